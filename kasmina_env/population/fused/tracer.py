"""Lowering: a module of `torch.nn` runs once on tensors without numbers, and what it asks for is written down.

Hosts and blueprints are written once, against a namespace of layers. Here they are built from `torch.nn` on the meta
device, and a mode of PyTorch sees every function they call. Those in `LOWERINGS` become operations; any other may only
look at tensors in another way (`transpose`, `flatten`, a slice). For that PyTorch itself keeps the books: the tensors
have the strides that their numbers have in memory, samples innermost, ``[..., B]``, so a view is a view here as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kasmina_env.population.fused.kernels import Kernel, Operation, kernel, unpack
from kasmina_env.population.fused.vectors import WIDTH, fill, store

META = torch.device("meta")


class UnsupportedError(Exception):
    """Something has no kernel; its text is a sentence that says what."""


Lowering = Callable[..., Tensor]
LOWERINGS: dict[str, Lowering] = {}


def lowers(*names: str) -> Callable[[Lowering], Lowering]:
    """Register how functions of PyTorch with these names become operations: ``(tracer, *arguments) -> Tensor``."""

    def decorate(lower: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(names, lower))
        return lower

    return decorate


@dataclass(eq=False)
class Buffer:
    """Numbers in memory and their gradient."""

    place: int
    size: int
    storage: Any  # of the tensors that view it, kept so that its identity is
    wants_gradient: bool
    gradient: int = -1  # where; -1: nowhere yet
    is_filled: bool = False  # whether the gradient holds anything


@dataclass(frozen=True)
class Window:
    """The part of a convolution's kernels that is present, as rows and columns of the whole."""

    start: int
    size: int


class Space:
    """Memory given out piece by piece; what is given back is taken again for a piece of equal size."""

    def __init__(self, start: int) -> None:
        self.end = start
        self._free: dict[int, list[int]] = {}

    def take(self, size: int) -> int:
        size = -(-size // 16) * 16
        if self._free.get(size):
            return self._free[size].pop()
        self.end += size
        return self.end - size

    def give_back(self, place: int, size: int) -> None:
        self._free.setdefault(-(-size // 16) * 16, []).append(place)


@kernel
def clear(memory: Any, numbers: Any, reals: Any) -> None:
    """Fill with zeros; pieces are multiples of a vector long."""
    place, size = unpack(numbers, 2)
    for i in range(place, place + size, WIDTH):
        store(memory, i, fill(0.0))


class Tracer(TorchFunctionMode):
    """Writes down what a module does on `lanes` samples.

    Args:
        lanes: Samples that are computed together, a multiple of `WIDTH`.
        start: First free place in memory.
        weights: Where the weights of the samples in the mean loss are: 0 for those that only fill a vector up, and in
            evaluation.
        windows: Windows of convolution weights, by name of the parameter (see `add_parameters`).

    Attributes:
        forward, backward: Operations in order.
        constants: Numbers that memory must hold, and where.
    """

    def __init__(self, lanes: int, start: int, weights: int, windows: dict[str, Window] | None = None) -> None:
        super().__init__()
        self.lanes, self.space, self.weights = lanes, Space(start), weights
        self.forward: list[Operation] = []
        self.backward: list[Operation] = []
        self.constants: list[tuple[int, np.ndarray[Any, Any]]] = []
        self._buffers: dict[int, Buffer] = {}
        self._tape: list[tuple[Tensor, Callable[[], None]]] = []
        self._windows = windows or {}
        self._window_of: dict[int, Window] = {}

    # ── tensors ──────────────────────────────────────────────────────────────────────────────

    def put(self, tensor: Tensor, place: int, wants_gradient: bool, gradient: int = -1) -> Tensor:
        """File a tensor on the meta device whose numbers are at a place known from elsewhere."""
        storage = tensor.untyped_storage()
        buffer = Buffer(place, storage.nbytes() // tensor.element_size(), storage, wants_gradient, gradient)
        self._buffers[storage._cdata] = buffer
        return tensor

    def make(self, shape: Sequence[int], order: Sequence[int] = ()) -> Tensor:
        """A new tensor ``[B, *shape]`` that wants a gradient.

        Args:
            shape: Shape of one sample.
            order: Axes of a sample from the outermost in memory to the innermost; as they stand if left out.
        """
        tensor = empty(self.lanes, shape, order)
        return self.put(tensor, self.space.take(self.lanes * prod(shape)), wants_gradient=True)

    def add_parameters(self, module: torch.nn.Module, names: Sequence[str], place: int, gradient: int) -> None:
        """File a module's parameters, which follow each other from `place` on, and their gradients likewise.

        Among the names may be those of buffers, such as running statistics.
        """
        own = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers())
        for name in names:
            self.buffer(self.put(own[name], place, wants_gradient=True, gradient=gradient)).is_filled = True
            if name in self._windows:
                self._window_of[id(own[name])] = self._windows[name]
            place, gradient = place + own[name].numel(), gradient + own[name].numel()

    def buffer(self, tensor: Tensor) -> Buffer:
        return self._buffers[tensor.untyped_storage()._cdata]

    def window(self, weight: Tensor) -> Window:
        """Which part of a convolution's kernels is present."""
        return self._window_of.get(id(weight), Window(0, weight.shape[-1]))

    def place(self, tensor: Tensor) -> int:
        """Where a tensor's first number is."""
        return self.buffer(tensor).place + int(tensor.storage_offset())

    def scratch(self, size: int) -> int:
        """Memory that nothing else uses, in the backward too."""
        return self.space.take(size)

    def as_operand(self, value: Tensor | float) -> Tensor:
        """A number, or a tensor that is known already, as a tensor in memory."""
        if isinstance(value, Tensor) and value.device == META:
            return value
        known = torch.as_tensor(value, dtype=torch.float32, device="cpu")
        place = self.space.take(known.numel())
        self.constants.append((place, known.contiguous().numpy().ravel()))
        return self.put(torch.empty(known.shape, device=META), place, wants_gradient=False)

    # ── operations ───────────────────────────────────────────────────────────────────────────

    def emit(self, kernel: Kernel, *numbers: int, reals: Sequence[float] = ()) -> None:
        """Write down an operation of the forward."""
        self.forward.append(Operation(kernel, numbers, tuple(reals)))

    def emit_backward(self, kernel: Kernel, *numbers: int, reals: Sequence[float] = ()) -> None:
        """Write down an operation of the backward."""
        self.backward.append(Operation(kernel, numbers, tuple(reals)))

    def on_backward(self, out: Tensor, emit: Callable[[], None]) -> Tensor:
        """Remember what makes the backward of `out`; it is called if there is a gradient of `out`."""
        self._tape.append((out, emit))
        return out

    def wants_gradient(self, tensor: Tensor) -> bool:
        return self.buffer(tensor).wants_gradient

    def gradient(self, tensor: Tensor) -> int:
        """Where the gradient of a tensor is."""
        return self.buffer(tensor).gradient + int(tensor.storage_offset())

    def add_gradient(self, tensor: Tensor, is_sum: bool = False) -> tuple[int, int]:
        """Where a gradient goes to, and 1 where it must be added to what is there, 0 where it is the first.

        Args:
            tensor: That the gradient belongs to.
            is_sum: Whether the kernel can only add.
        """
        buffer = self.buffer(tensor)
        if buffer.gradient < 0:
            buffer.gradient = self.space.take(buffer.size)
        adds = buffer.is_filled
        if not adds and (is_sum or tensor.numel() != buffer.size):
            self.emit_backward(clear, buffer.gradient, buffer.size)
            adds = True
        buffer.is_filled = True
        return self.gradient(tensor), int(adds)

    def add_gradient_of_whole(self, tensor: Tensor) -> int:
        """Where the gradient of all that a tensor views goes to, of which this must be the only one."""
        buffer = self.buffer(tensor)
        require(not buffer.is_filled, "a tensor that is used twice in this way has no kernel")
        buffer.gradient = self.space.take(buffer.size)
        buffer.is_filled = True
        return buffer.gradient

    def emit_all_backward(self) -> None:
        """Write down the backward of all that was recorded, last first."""
        for out, emit in reversed(self._tape):
            buffer = self.buffer(out)
            if buffer.is_filled:
                emit()
                if buffer.gradient >= 0:
                    self.space.give_back(buffer.gradient, buffer.size)

    # ── PyTorch ──────────────────────────────────────────────────────────────────────────────

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, getattr(function, "__name__", str(function))
        if not any(tensor.device == META for tensor in _tensors([*args, *kwargs.values()])):
            # Numbers known already, such as distances between tokens: PyTorch computes them.
            return function(*args, **(kwargs | {"device": "cpu"} if "device" in kwargs else kwargs))
        if name in LOWERINGS:
            return LOWERINGS[name](self, *args, **kwargs)
        try:
            out = function(*args, **kwargs)
        except (RuntimeError, NotImplementedError) as error:
            raise UnsupportedError(f"`{name}` has no kernel") from error
        if any(tensor.untyped_storage()._cdata not in self._buffers for tensor in _tensors([out])):
            raise UnsupportedError(f"`{name}` has no kernel")
        return out


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def empty(lanes: int, shape: Sequence[int], order: Sequence[int] = ()) -> Tensor:
    """A tensor ``[B, *shape]`` without numbers, samples innermost in memory (see `Tracer.make`)."""
    strides, step = [0] * len(shape), lanes
    for axis in reversed(order or range(len(shape))):
        strides[axis], step = step, step * shape[axis]
    return torch.empty_strided((lanes, *shape), (1, *strides), device=META)


def require(is_met: bool, sentence: str) -> None:
    """Raise an `UnsupportedError` unless something holds."""
    if not is_met:
        raise UnsupportedError(sentence)


def dense(tracer: Tracer, tensor: Tensor, name: str) -> int:
    """Where a tensor is that fills its piece of memory without gaps, so that every number can be treated alike."""
    require(tensor.numel() == tracer.buffer(tensor).size, f"`{name}` of a part of a tensor has no kernel")
    return tracer.place(tensor)


def run_length(tensor: Tensor, axis: int, is_dense: bool = True) -> int:
    """How many numbers follow each other, samples innermost, at each step of an axis.

    Args:
        tensor: Tensor whose other axes lie without gaps.
        axis: Which.
        is_dense: Whether the next step must begin where a run ends.
    """
    run = 1
    for i in sorted((i for i in range(tensor.ndim) if i != axis), key=lambda i: (tensor.stride(i), tensor.shape[i])):
        require(tensor.shape[i] == 1 or tensor.stride(i) == run, "features in this order have no kernel")
        run *= tensor.shape[i]
    is_next = tensor.shape[axis] == 1 or tensor.stride(axis) == run
    require(is_next or not is_dense, "features in this order have no kernel")
    return run
