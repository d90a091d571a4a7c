"""Kernels: small compiled functions, one for each thing that an operation of a program can do.

All have one signature, so a program is a table of numbers, and whoever runs it knows no kernel: each row starts with a
kernel's address. Each is compiled once, on its own, when it is first needed, and kept in numba's cache on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from llvmlite import ir
from numba import cfunc, njit, types
from numba.extending import intrinsic

from kasmina_env.population.fused.vectors import FAST, MEMORY

# (memory of a network, whole numbers of the operation, real numbers of the operation)
SIGNATURE = types.void(MEMORY, types.CPointer(types.int64), types.CPointer(types.float64))
MAX_NUMBERS, MAX_REALS = 28, 4  # of one operation


def _can_cache() -> bool:
    """Whether numba finds a folder for its cache."""
    try:
        njit(cache=True)(_can_cache)
    except RuntimeError:
        return False
    return True


def stamped(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function under a name of which the sources of this engine are a part: numba looks its cache up by that name.

    By itself numba notices a change in the file of a function only, and not in what the function calls.
    """
    function.__qualname__ = f"{function.__qualname__}_{_digest()}"
    return function


@cache
def _digest() -> str:
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


OPTIONS: dict[str, Any] = {"cache": _can_cache(), "error_model": "numpy", "fastmath": set(FAST)}
KERNELS: list[Kernel] = []


@dataclass(eq=False)
class Kernel:
    """A function of an operation, not compiled before it is needed."""

    function: Callable[..., None]
    _compiled: Any = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.function.__name__

    def compile(self) -> bool:
        """Compile it, or load it from the cache; returns whether the cache, or this process, had it."""
        if self._compiled is None:
            self._compiled = cfunc(SIGNATURE, **OPTIONS)(stamped(self.function))
            return bool(self._compiled.cache_hits)
        return True

    @property
    def address(self) -> int:
        """Where its machine code is in this process."""
        self.compile()
        return int(self._compiled.address)


def _typed_unpack(context: Any, numbers: Any, count: Any) -> Any:
    result = types.UniTuple(types.int64, count.literal_value)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        places = (ir.Constant(ir.IntType(64), i) for i in range(1, 1 + result.count))  # behind the address
        found = [builder.load(builder.gep(values[0], [place])) for place in places]
        return context.make_tuple(builder, result, found)

    return result(numbers, count), generate


unpack: Any = intrinsic(prefer_literal=True)(_typed_unpack)  # the first `count` numbers of an operation


class Operation(NamedTuple):
    """One call of a kernel."""

    kernel: Kernel
    numbers: tuple[int, ...]  # places in memory and sizes
    reals: tuple[float, ...] = ()


def kernel(function: Callable[..., None]) -> Kernel:
    """Make a kernel of ``(memory, numbers, reals) -> None``."""
    made = Kernel(function)
    KERNELS.append(made)
    return made
