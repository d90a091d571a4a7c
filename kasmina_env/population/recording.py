"""A function that is called again and again: on a GPU one recording of it is replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FEWEST = 4  # calls for which a recording pays: it costs as much as one call, and a replay a third of one


@dataclass(eq=False)
class Recorder:
    """What recordings of one population leave behind for the next: a stream, and the memory of the last one.

    A CUDA graph launches all kernels of a call at once, where the host would launch them one by one, which takes longer
    than the kernels until there are a few thousand small networks.
    """

    is_on: bool = True
    stream: torch.cuda.Stream | None = None
    last: torch.cuda.CUDAGraph | None = None  # its memory goes to the next

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
        with torch.cuda.stream(self.stream):
            first = function(*calls[0])  # as it is: libraries choose their kernels and get their memory
            results = [first, *self._replay(function, calls[1:])]
        current.wait_stream(self.stream)
        return results

    def _replay(self, function: Callable[..., Tensor], calls: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        arguments = [value.clone() for value in calls[0]]
        graph = torch.cuda.CUDAGraph()
        pool = torch.cuda.graph_pool_handle() if self.last is None else self.last.pool()
        graph.capture_begin(pool, capture_error_mode="thread_local")
        try:
            result = function(*arguments)
        finally:
            graph.capture_end()
        self.last = graph
        results = []
        for call in calls:
            for held, value in zip(arguments, call, strict=True):
                held.copy_(value)
            graph.replay()
            results.append(result.clone())
        return results
