"""CUDA graphs: all kernels of a call launched at once.

The host would launch them one by one, which takes longer than the kernels until there are a few thousand small
networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from kasmina_env.population.recordings import Replay


class CudaGraphs:
    """Records calls on one device, and on a stream of its own.

    All recordings use the same memory between their kernels: one runs at a time, and none needs what it left there.

    Args:
        device: GPU of the tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._newest: torch.cuda.CUDAGraph | None = None  # keeps the shared memory

    def __reduce__(self) -> tuple[type[CudaGraphs], tuple[torch.device]]:
        """Copies and pickles begin without what cannot leave this process."""
        return CudaGraphs, (self._device,)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Surroundings of every call, recorded or not: the stream of its own."""
        current = torch.cuda.current_stream(self._device)
        self._stream = self._stream or torch.cuda.Stream(self._device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)  # after an error or Ctrl-C too: what was launched still writes

    def record(self, function: Callable[[], Tensor]) -> Replay:
        """Record a call without running it."""
        graph = torch.cuda.CUDAGraph()
        pool = torch.cuda.graph_pool_handle() if self._newest is None else self._newest.pool()
        graph.capture_begin(pool, capture_error_mode="thread_local")
        try:
            result = function()
        except BaseException as error:
            with suppress(RuntimeError):
                graph.capture_end()
            error.add_note(
                "This came while the minibatches of a step were recorded for the GPU. The task's criterion, the host "
                "and the blueprints must not wait for the device, nor copy to it; or set `setting.recordings.is_on` of "
                "the population to False."
            )
            raise
        graph.capture_end()
        self._newest = graph

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay
