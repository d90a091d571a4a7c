"""Samples in the order in which kernels read them: innermost, in lanes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kasmina_env.lifecycle.arrays import IntArray
from kasmina_env.tasks import Split


def fill_up(x: Tensor, lanes: int) -> Tensor:
    """Samples, the last axis, filled up by the last one: it does nothing that a real sample does not."""
    missing = lanes - x.shape[-1]
    if missing:
        x = torch.cat([x, x[..., -1:].expand(*x.shape[:-1], missing)], dim=-1)
    return x.contiguous()


def samples_last(x: Tensor, num_networks: int, lanes: int) -> Tensor:
    """Wide inputs (`kasmina_env.networks.layers.widen`) network by network, ``[N, ..., B]``."""
    x = x.unflatten(1, (num_networks, -1)).movedim(0, -1) if x.ndim == 4 else x.movedim(1, -1)
    return fill_up(x.to(torch.float32), lanes)


def addresses(tensors: Sequence[Tensor | None]) -> IntArray:
    """Where tensors are, 0 for none."""
    return np.array([0 if tensor is None else tensor.data_ptr() for tensor in tensors])


class Chunks:
    """Data in chunks of samples, ``[chunks, ..., B]``."""

    def __init__(self, split: Split, lanes: int) -> None:
        self.x, self.y = self._cut(split.x, lanes), self._cut(split.y, lanes)
        self.noise = None if split.noise is None else self._cut(split.noise.inputs, lanes)

    @staticmethod
    def _cut(values: Tensor, lanes: int) -> Tensor:
        missing = -len(values) % lanes
        if missing:
            values = torch.cat([values, values[-1:].expand(missing, *values.shape[1:])])
        chunks: Tensor = values.unflatten(0, (-1, lanes))
        return chunks.movedim(1, -1).to(torch.float32).contiguous()
