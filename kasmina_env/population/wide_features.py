"""How the features of N networks lie side by side at a slot, and how some of them are taken out and put back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kasmina_env.networks.layers import Topology


class Lanes:
    """Wide features seen so that networks follow each other along one axis, where a few of them are a slice.

    That are the channels of images ``[B, N*C, H, W]``, moved last, and the networks of vectors ``[N, B, C]`` and tokens
    ``[N, B, T, C]``.

    Args:
        topology: Topology of the features.
        channels: C of one network.
    """

    def __init__(self, topology: Topology, channels: int) -> None:
        self.is_image = topology == "image"
        self.channels = channels
        self.axis = -1 if self.is_image else 0
        self.width = channels if self.is_image else 1  # of the axis, for each network
        self.batch_axis = 0 if self.is_image else 1  # of features that are not opened
        self._behind = (1, 1) if topology == "vector" else (1, 1, 1)

    def open(self, x: Tensor) -> Tensor:
        """Wide features as they are cut; a view."""
        return x.permute(0, 2, 3, 1) if self.is_image else x

    def close(self, x: Tensor) -> Tensor:
        """Undo `open`."""
        return x.permute(0, 3, 1, 2) if self.is_image else x

    def cut(self, x: Tensor, start: int, size: int) -> Tensor:
        """Some networks next to each other; a view."""
        return x.narrow(self.axis, start * self.width, size * self.width)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Networks behind each other, copied."""
        return torch.cat(list(parts), dim=self.axis)

    def take(self, x: Tensor, order: Tensor) -> Tensor:
        """All networks in another order, copied."""
        if not self.is_image:
            return x.index_select(0, order)
        return x.reshape(-1, len(order), self.channels).index_select(1, order).view(x.shape)

    def spread(self, values: Tensor) -> Tensor:
        """One value for each network, ``[R, 1]``, so that it goes with opened features of theirs."""
        return values.expand(-1, self.channels).flatten() if self.is_image else values.view(-1, *self._behind)


class Stretch(NamedTuple):
    """Networks next to each other in one of some tensors."""

    source: int
    start: int
    size: int


class Regroup:
    """Takes networks from some tensors to others, each put together from stretches of the first.

    Images are copied stretch by stretch. Of everything else a network is one piece of memory, and one `index_select`
    does it all.

    Args:
        lanes: Layout of the features.
        sizes: Networks in each source.
        targets: Parts that each target is put together from.
    """

    def __init__(self, lanes: Lanes, sizes: Sequence[int], targets: Sequence[Sequence[Stretch]]) -> None:
        self._lanes, self._sizes, self._targets = lanes, sizes, targets
        self._index: Tensor | None = None

    def __call__(self, sources: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The targets."""
        if self._lanes.is_image:
            cut = self._lanes.cut
            parts = [[cut(sources[s.source], s.start, s.size) for s in target] for target in self._targets]
            return tuple(map(self._lanes.join, parts))
        joined = sources[0] if len(sources) == 1 else torch.cat(list(sources))
        if self._index is None:  # many are never asked: gradients in evaluation, all of it where there is one network
            self._index = self._make_index().to(joined.device, non_blocking=True)
        sizes = [sum(s.size for s in target) for target in self._targets]
        targets: tuple[Tensor, ...] = joined.index_select(0, self._index).split(sizes)
        return targets

    def _make_index(self) -> Tensor:
        first = [0, *accumulate(self._sizes)]
        rows = [first[s.source] + s.start + np.arange(s.size) for target in self._targets for s in target]
        return torch.from_numpy(np.concatenate(rows))

    def add_to(self, out: Tensor, sources: Sequence[Tensor]) -> None:
        """Add the only target to the first networks of `out`."""
        if not self._lanes.is_image:
            (target,) = self(sources)
            out.narrow(0, 0, len(target)).add_(target)
            return
        start = 0
        for s in self._targets[0]:
            self._lanes.cut(out, start, s.size).add_(self._lanes.cut(sources[s.source], s.start, s.size))
            start += s.size
