"""Samples in the order in which kernels read them: innermost, in lanes.

NumPy moves them: PyTorch would do so in threads of its own, which wait for each other at the networks' expense.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kasmina_env.lifecycle.arrays import IntArray
from kasmina_env.population.fused.transfers import Float32Array
from kasmina_env.tasks import Split


def fill_up(x: NDArray[np.generic], lanes: int) -> Float32Array:
    """Samples, the last axis, filled up by the last one: it does nothing that a real sample does not."""
    missing = lanes - x.shape[-1]
    if missing:
        x = np.concatenate([x, np.repeat(x[..., -1:], missing, axis=-1)], axis=-1)
    return np.ascontiguousarray(x, dtype=np.float32)


def inputs_of(x: Tensor, num_networks: int, lanes: int) -> Float32Array:
    """Wide inputs (`kasmina_env.networks.layers.widen`) network by network, ``[N, ..., B]``."""
    wide = x.unflatten(1, (num_networks, -1)).movedim(0, -1) if x.ndim == 4 else x.movedim(1, -1)
    return fill_up(wide.numpy(), lanes)


def labels_of(y: Tensor, lanes: int) -> Float32Array:
    """Labels ``[B, N]`` or ``[B, N, T]`` network by network, ``[N, B]`` or ``[N, T, B]``."""
    return fill_up(y.movedim(0, -1).numpy(), lanes)


def addresses(arrays: Sequence[Float32Array | None]) -> IntArray:
    """Where arrays are, 0 for none."""
    return np.array([0 if array is None else array.ctypes.data for array in arrays])


class Chunks:
    """Data in chunks of samples, ``[chunks, ..., B]``, and after each of V changes where data drift."""

    def __init__(self, split: Split, lanes: int) -> None:
        versions = [split.x] if split.changed is None else split.changed
        self.x = [_cut(x, lanes) for x in versions]  # V of them, the first unchanged
        self.y = _cut(split.y, lanes)
        self.noise = None if split.noise is None else _cut(split.noise.inputs, lanes)

    def inputs_of(self, change: IntArray) -> IntArray:
        """Where the samples of each network are ``[N]``, given the number of its change."""
        return addresses(self.x)[change if len(self.x) > 1 else np.zeros_like(change)]


def _cut(values: Tensor, lanes: int) -> Float32Array:
    whole = fill_up(values.movedim(0, -1).numpy(), -(-len(values) // lanes) * lanes)
    return np.ascontiguousarray(np.moveaxis(whole.reshape(*whole.shape[:-1], -1, lanes), -2, 0))
