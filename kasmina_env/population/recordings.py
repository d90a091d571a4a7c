"""Calls that come again and again: recorded once, and replayed in every step that runs the same kernels."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

FEWEST = 4  # calls for which a recording pays at once: it costs as much as one call, and a replay a third of one
MOST, MOST_BYTES = 64, 2**29  # recordings that are kept, and bytes of the tensors copied in and out of them

Replay = Callable[[], Tensor]  # runs a call on the tensors it was recorded with; returns the same tensor every time


class Graphs(Protocol):
    """A way to record, such as `kasmina_env.population.cuda_graph.CudaGraphs`."""

    def aside(self) -> AbstractContextManager[None]:
        """Surroundings of every call, recorded or not."""
        ...

    def record(self, function: Callable[[], Tensor]) -> Replay:
        """Record a call without running it."""
        ...


@dataclass(frozen=True, eq=False)
class Recording:
    """A recorded call, and the tensors it reads and writes.

    Attributes:
        function: Function that was recorded. It holds tensors whose addresses are in the recording.
        arguments: Its arguments; a replay copies new ones in.
        state: Everything else that it reads or writes and that differs from step to step.
        replay: Replay of the call.
    """

    function: Callable[..., Tensor]
    arguments: list[Tensor]
    state: list[Tensor]
    replay: Replay

    @property
    def num_bytes(self) -> int:
        """Bytes of arguments and state."""
        return sum(tensor.nbytes for tensor in (*self.arguments, *self.state))

    def play(self, arguments: Sequence[Tensor]) -> Tensor:
        """Result of the call with these arguments."""
        for held, value in zip(self.arguments, arguments, strict=True):
            held.copy_(value)
        return self.replay().clone()


@dataclass(eq=False)
class Recordings:
    """The recordings of one population: those used last, within a limit.

    A recording owns all tensors it works on. Later steps copy theirs in before a replay and out after it. So it does
    not matter where the weights of a population lie by then: rows may be reset, restored, or grow and lose seeds.

    Attributes:
        graphs: Way to record; None where nothing is recorded, as on a CPU.
        is_on: Whether anything is recorded. While one thread records no other may use a GPU, so where populations train
            in several threads nothing is.
        most: Recordings kept.
        most_bytes: Bytes of their tensors. The one used last stays even if it has more.
        num_made: Recordings made so far.
        num_found: Calls of `repeat` so far that found a recording of an earlier step.
    """

    graphs: Graphs | None = None
    is_on: bool = True
    most: int = MOST
    most_bytes: int = MOST_BYTES
    num_made: int = 0
    num_found: int = 0
    _kept: dict[Hashable, Recording] = field(default_factory=dict, repr=False)  # the one used last stands last

    def __reduce__(self) -> tuple[type[Recordings], tuple[Graphs | None, bool, int, int]]:
        """Copies and pickles, as snapshots are, begin without what cannot leave this process."""
        return Recordings, (self.graphs, self.is_on, self.most, self.most_bytes)

    def __len__(self) -> int:
        return len(self._kept)

    def repeat(
        self,
        function: Callable[..., Tensor],
        calls: Sequence[Sequence[Tensor]],
        kernels: Hashable,
        state: Sequence[Tensor],
    ) -> list[Tensor]:
        """Results of the calls, in order.

        Args:
            function: Launches the same kernels whatever the numbers in its arguments, and waits for none of them.
            calls: Arguments, of the same shapes in each call.
            kernels: Value that is equal for functions that launch the same kernels on tensors of equal shapes.
            state: Tensors besides the arguments that the function reads or writes and that differ from step to step. No
                two share memory, and nobody but the caller uses them.
        """
        if self.graphs is None or not self.is_on:
            return [function(*arguments) for arguments in calls]
        key = (kernels, _shapes(calls[0]), _shapes(state))
        with self.graphs.aside():
            if key in self._kept:
                return self._play(key, calls, state)
            if len(calls) < FEWEST:
                return [function(*arguments) for arguments in calls]
            first = function(*calls[0])  # as it is: libraries choose their kernels and get their memory
            held = [value.clone() for value in calls[1]]
            recording = Recording(function, held, list(state), self.graphs.record(lambda: function(*held)))
            self._keep(key, recording)
            return [first, *map(recording.play, calls[1:])]

    def _play(self, key: Hashable, calls: Sequence[Sequence[Tensor]], state: Sequence[Tensor]) -> list[Tensor]:
        recording = self._kept[key] = self._kept.pop(key)
        self.num_found += 1
        with torch.no_grad():
            _copy(state, recording.state)
            results = [recording.play(arguments) for arguments in calls]
            _copy(recording.state, state)
        return results

    def _keep(self, key: Hashable, recording: Recording) -> None:
        self.num_made += 1
        self._kept[key] = recording
        while len(self) > self.most or sum(each.num_bytes for each in self._kept.values()) > self.most_bytes:
            if len(self) == 1:
                break
            del self._kept[next(iter(self._kept))]


def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    """Copy tensors to others, one kernel each: what copies lists at once is private to PyTorch."""
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)


def _shapes(tensors: Sequence[Tensor]) -> tuple[Hashable, ...]:
    return tuple((tensor.shape, tensor.dtype) for tensor in tensors)
