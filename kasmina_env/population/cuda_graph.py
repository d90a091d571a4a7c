"""A function that is called again and again: on a GPU one recording of it is replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

FEWEST = 4  # calls for which a recording pays: it costs as much as one call, and a replay a third of one


@dataclass(eq=False)
class Recorder:
    """What recordings of one population leave behind for the next: a stream, and the memory of the last one.

    A CUDA graph launches all kernels of a call at once, where the host would launch them one by one, which takes longer
    than the kernels until there are a few thousand small networks.

    Attributes:
        is_on: Whether anything is recorded. While one thread records no other may use a GPU, so where populations train
            in several threads nothing is.
        stream: On which everything runs that is repeated.
        last: Recording whose memory goes to the next one.
    """

    is_on: bool = True
    stream: torch.cuda.Stream | None = None
    last: torch.cuda.CUDAGraph | None = None

    def __reduce__(self) -> tuple[type[Recorder], tuple[bool]]:
        """Copies and pickles, as snapshots are, begin without what cannot leave this process."""
        return Recorder, (self.is_on,)

    def repeat(self, function: Callable[..., Tensor], calls: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Results of the calls, in order.

        Args:
            function: Launches the same kernels whatever the numbers in its arguments, and waits for none of them.
            calls: Arguments, of the same shapes in each call.
        """
        if len(calls) < FEWEST or not (self.is_on and calls[0][0].is_cuda):
            return [function(*arguments) for arguments in calls]
        current = torch.cuda.current_stream(calls[0][0].device)
        self.stream = self.stream or torch.cuda.Stream(calls[0][0].device)
        self.stream.wait_stream(current)
        try:
            with torch.cuda.stream(self.stream):
                first = function(*calls[0])  # as it is: libraries choose their kernels and get their memory
                return [first, *self._replay(function, calls[1:])]
        finally:
            current.wait_stream(self.stream)  # after an error or Ctrl-C too: what was launched still writes

    def _replay(self, function: Callable[..., Tensor], calls: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        arguments = [value.clone() for value in calls[0]]
        graph = torch.cuda.CUDAGraph()
        pool = torch.cuda.graph_pool_handle() if self.last is None else self.last.pool()
        graph.capture_begin(pool, capture_error_mode="thread_local")
        try:
            result = function(*arguments)
        except BaseException as error:
            with suppress(RuntimeError):
                graph.capture_end()
            error.add_note(
                "This came while the minibatches of a step were recorded for the GPU. The task's criterion, the host "
                "and the blueprints must not wait for the device, nor copy to it; or set `setting.recorder.is_on` of "
                "the population to False."
            )
            raise
        graph.capture_end()
        self.last = graph
        results = []
        for call in calls:
            for held, value in zip(arguments, call, strict=True):
                held.copy_(value)
            graph.replay()
            results.append(result.clone())
        return results
