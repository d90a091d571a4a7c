"""How the features of N networks lie side by side, and how some of them are taken out and put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from kasmina_env.layers import Topology, merge_networks, split_networks


@dataclass(frozen=True)
class Layout:
    """Wide features of a host: images ``[B, N*C, H, W]``, vectors ``[N, B, C]``, tokens ``[N, B, T, C]``.

    Attributes:
        topology: Of the host.
    """

    topology: Topology

    @property
    def is_image(self) -> bool:
        return self.topology == "image"

    @property
    def batch_axis(self) -> int:
        """Which axis of wide features, and of wide inputs, are samples."""
        return 0 if self.is_image else 1

    def where(self, on: Tensor, yes: Tensor, no: Tensor, num_networks: int) -> Tensor:
        """Features of the networks that are on ``[N]`` from `yes`, of the others from `no`."""
        if not self.is_image:
            return torch.where(on.view(-1, *[1] * (yes.ndim - 1)), yes, no)
        pair = (split_networks(x, num_networks) for x in (yes, no))
        return merge_networks(torch.where(on.unsqueeze(1), *pair))


@dataclass(frozen=True)
class Lanes:
    """Features at a slot, seen so that networks follow each other along one axis: a few of them are a slice.

    That are the channels, as the last axis, of images, and the networks of everything else.

    Attributes:
        topology: Of the host.
        channels: C of one network.
    """

    topology: Topology
    channels: int

    @property
    def axis(self) -> int:
        return -1 if self.topology == "image" else 0

    @property
    def width(self) -> int:
        """How much of the axis one network takes."""
        return self.channels if self.topology == "image" else 1

    def open(self, x: Tensor) -> Tensor:
        """Wide features as they are cut."""
        return x.permute(0, 2, 3, 1) if self.topology == "image" else x

    def close(self, x: Tensor) -> Tensor:
        """Undo `open`."""
        return x.permute(0, 3, 1, 2) if self.topology == "image" else x

    def cut(self, x: Tensor, start: int, size: int) -> Tensor:
        """Features of some networks next to each other; a view."""
        return x.narrow(self.axis, start * self.width, size * self.width)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Features of networks behind each other, copied."""
        return torch.cat(list(parts), dim=self.axis)

    def take(self, x: Tensor, order: Tensor) -> Tensor:
        """All networks in another order."""
        if self.topology != "image":
            return x.index_select(0, order)
        return x.reshape(-1, len(order), self.channels).index_select(1, order).view(x.shape)

    def amplitudes(self, alpha: Tensor) -> Tensor:
        """One number for each network, ``[R, 1]``, so that it multiplies that network's features, cut as these are."""
        if self.topology == "image":
            return alpha.expand(-1, self.channels).flatten()
        return alpha.view(-1, *[1] * (2 if self.topology == "vector" else 3))


@dataclass(frozen=True)
class Stretch:
    """Networks next to each other in one of the tensors they are taken from."""

    source: int
    start: int
    size: int


@dataclass(frozen=True)
class Regroup:
    """Features of networks in some tensors to the same ones in others, each put together from stretches.

    Attributes:
        lanes: How they are cut.
        sizes: Networks in each source.
        targets: What each target is put together from.
        device: Of the features.
    """

    lanes: Lanes
    sizes: Sequence[int]
    targets: Sequence[Sequence[Stretch]]
    device: torch.device
    _index: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", None if self.lanes.topology == "image" else self._make_index())

    def _make_index(self) -> Tensor:
        first = [0, *accumulate(self.sizes)]
        starts = [(first[s.source] + s.start, s.size) for target in self.targets for s in target]
        index = np.concatenate([np.arange(start, start + size) for start, size in starts])
        return torch.from_numpy(index).to(self.device, non_blocking=True)

    def __call__(self, sources: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The targets. Images are copied piece by piece, everything else whole networks at a time."""
        if self._index is None:
            cut = self.lanes.cut
            return tuple(self.lanes.join([cut(sources[s.source], s.start, s.size) for s in t]) for t in self.targets)
        joined = sources[0] if len(sources) == 1 else torch.cat(list(sources))
        return joined.index_select(0, self._index).split([sum(s.size for s in t) for t in self.targets])
