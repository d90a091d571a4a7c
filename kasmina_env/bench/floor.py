"""What a step would take if arithmetic, or moving its operands, were all there is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Machine:
    """What the device does at best, measured here and now."""

    flops_per_second: float  # of a large matrix product
    bytes_per_second: float  # read and written by a large copy


@dataclass(frozen=True)
class Work:
    """What a step is made of."""

    flops: float
    num_bytes: float  # that its operations read and write

    def arithmetic(self, machine: Machine) -> float:
        """Seconds of all arithmetic at the rate of a large matrix product."""
        return self.flops / machine.flops_per_second

    def traffic(self, machine: Machine) -> float:
        """Seconds in which all operands are read and written one kernel after the other, without fusion."""
        return self.num_bytes / machine.bytes_per_second


class _Traffic(TorchDispatchMode):
    """Counts the bytes of operands and results, views left out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.num_bytes += _num_bytes((*args, *(kwargs or {}).values(), out))
        return out


def _num_bytes(value: object) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_num_bytes, value)) if isinstance(value, tuple | list) else 0


def _backward_of_convolution(grad: Sequence[int], x: Sequence[int], weight: Sequence[int], *args: Any, **_: Any) -> int:
    """Operations from shapes; the gradients of input and of weight each take those of the forward.

    PyTorch 2.13 counts that of the weight as if its groups mixed: with 64 networks side by side 64 times too many.
    """
    output_mask = args[7]
    forward = 2 * grad[0] * math.prod(grad[2:]) * math.prod(weight)
    return int(forward * sum(output_mask[:2]))


def work_of(step: Callable[[], object]) -> Work:
    """Count what a step does."""
    formulas = {torch.ops.aten.convolution_backward: _backward_of_convolution}
    traffic, flops = _Traffic(), FlopCounterMode(display=False, custom_mapping=formulas)
    with flops, traffic:
        step()
    return Work(float(flops.get_total_flops()), float(traffic.num_bytes))


def measure_machine(device: torch.device, repeats: int = 7) -> Machine:
    """Best of some repeats of a matrix product and of a copy too large for the caches, in float32."""
    size, length = (1024, 2**24) if device.type == "cpu" else (8192, 2**28)
    left, right = torch.rand(2, size, size, device=device)
    source = torch.rand(length, device=device)
    target = torch.empty_like(source)
    multiply = min(_seconds(lambda: left @ right, device) for _ in range(repeats))
    copy = min(_seconds(lambda: target.copy_(source), device) for _ in range(repeats))
    return Machine(2 * size**3 / multiply, 2 * source.numel() * source.element_size() / copy)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
