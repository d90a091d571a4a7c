"""A small convolutional host."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch.nn import Module

from kasmina_env.networks.blueprints.convolution import num_norm_groups
from kasmina_env.networks.hosts.base import MOST_LAYERS, Slot, register_host
from kasmina_env.networks.layers import Layers, Topology
from kasmina_env.settings.config import check_sizes
from kasmina_env.settings.registry import unknown_name_message

LARGEST_KERNEL = 255
MOST_FEATURES = 2**24  # of one sample
CHOICES = {"norm": ("group", "batch"), "pooling": ("max", "average"), "slots_at": ("before", "after", "both")}


@register_host("cnn")
@dataclass(frozen=True)
class CNNHost:
    """Blocks of convolution, norm, ReLU and, for some, 2x2 pooling (odd sizes round up); then mean and linear head.

    A slot is named for what it stands behind: `block0` is before the first block's pool, `pool0` after it.

    Attributes:
        in_channels: Channels of the pictures.
        image_size: Side of the pictures in pixels.
        num_classes: Classes of the data.
        width: Channels of the first block; each pool before a block doubles them.
        kernels: Kernel size of each block. With (1, 1, 1) the host sees no shape until a seed gives it spatial reach.
        pooling: "max" or "average". Where neighbours are equal, as in an empty background, rounding decides which of
            them gets the gradient of a maximum, and a seed that sees more than one pixel learns from the choice.
        pools: Numbers of the blocks with a pool; None for all.
        stem: Side of the squares over which the picture is averaged first; 1 leaves it as it is.
        norm: "group" or "batch".
        group_size: Channels that are normalised together, where they divide evenly. Hosts whose widths are its
            multiples can stand side by side in one population (see `kasmina_env.population.variants`).
        slots_at: "before" or "after" the pool of each block, or "both". A block without pool has one slot.
        slot_blocks: Numbers of the blocks with slots; None for all.
    """

    in_channels: int = 1
    image_size: int = 8
    num_classes: int = 10
    width: int = 8
    kernels: tuple[int, ...] = (1, 1, 1)
    pooling: str = "max"
    pools: tuple[int, ...] | None = None
    stem: int = 1
    norm: str = "group"
    group_size: int = 8
    slots_at: str = "before"
    slot_blocks: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        counts = ("in_channels", "image_size", "num_classes", "width", "stem", "group_size")
        check_sizes({name: getattr(self, name) for name in counts})
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(unknown_name_message(name, getattr(self, name), known))
        if any(not 1 <= k <= LARGEST_KERNEL or k % 2 == 0 for k in self.kernels) or not self.kernels:
            raise ValueError(
                f"`kernels` must be odd sizes up to {LARGEST_KERNEL}, one for each block, got {self.kernels}. Use e.g. "
                "(3, 3, 3)."
            )
        if len(self.kernels) > MOST_LAYERS:
            raise ValueError(
                f"`kernels` must be at most {MOST_LAYERS} sizes, one for each block, got {len(self.kernels)}. Name "
                "fewer."
            )
        blocks = range(len(self.kernels))
        for name in ("pools", "slot_blocks"):
            named = getattr(self, name)
            if named is not None and (len(set(named)) != len(named) or not set(named) <= set(blocks)):
                raise ValueError(
                    f"`{name}` must be different blocks from 0 to {blocks[-1]}, got {named}. Name blocks that exist."
                )
        if self.slot_blocks == ():
            raise ValueError("`slot_blocks` must name a block, got none. Leave it out for all.")
        if self.image_size % self.stem:
            raise ValueError(
                f"`stem` must divide the image size {self.image_size}, got {self.stem}. Use one of its divisors."
            )
        if self.pooled and self.features(max(self.pooled))[1] == 1:
            raise ValueError(
                f"`pools` must leave something to pool, got {len(self.pooled)} pools for features of size "
                f"{self.image_size // self.stem}. Name fewer blocks."
            )
        channels = max(self.in_channels * self.stem**2, self.width)
        if channels * (self.image_size // self.stem) ** 2 > MOST_FEATURES:
            raise ValueError(
                f"`image_size` must leave at most {MOST_FEATURES} numbers to a picture and its features, got "
                f"{self.image_size} for {self.in_channels} channels and a width of {self.width}. Lower one of them."
            )

    @property
    def topology(self) -> Topology:
        return "image"

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.in_channels, self.image_size, self.image_size)

    @property
    def pooled(self) -> tuple[int, ...]:
        """Numbers of the blocks with a pool."""
        return tuple(range(len(self.kernels))) if self.pools is None else self.pools

    def features(self, block: int) -> tuple[int, int]:
        """Channels of a block, and side of its feature maps."""
        num_pools = sum(pool < block for pool in self.pooled)
        return self.width * 2**num_pools, math.ceil(self.image_size // self.stem / 2**num_pools)

    def has_slots(self, block: int) -> tuple[bool, bool]:
        """True where a block has a slot: before its pool, and after it."""
        is_pooled = block in self.pooled
        if self.slot_blocks is not None and block not in self.slot_blocks:
            return False, False
        return not is_pooled or self.slots_at != "after", is_pooled and self.slots_at != "before"

    @property
    def slots(self) -> tuple[Slot, ...]:
        before, after = [], []
        for i in range(len(self.kernels)):
            (channels, _), (has_before, has_after) = self.features(i), self.has_slots(i)
            if has_before:
                before.append(Slot(f"block{i}", channels, turn=2 * i))
            if has_after:
                after.append(Slot(f"pool{i}", channels, turn=2 * i + 1))
        return (*before, *after)

    def build(self, nn: Layers) -> list[Module]:
        segments: list[Module] = []
        layers = [nn.AvgPool2d(self.stem)] if self.stem > 1 else []
        previous = self.in_channels
        for i, kernel in enumerate(self.kernels):
            (channels, _), (has_before, has_after) = self.features(i), self.has_slots(i)
            conv = nn.Conv2d(previous, channels, kernel, padding=kernel // 2, bias=False)
            layers += [conv, self._norm(nn, channels), nn.ReLU()]
            if has_before:
                segments.append(nn.Sequential(*layers))
                layers = []
            if i in self.pooled:
                pool = nn.MaxPool2d if self.pooling == "max" else nn.AvgPool2d
                layers.append(pool(2, ceil_mode=True))
            if has_after:
                segments.append(nn.Sequential(*layers))
                layers = []
            previous = channels
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(previous, self.num_classes)]
        return [*segments, nn.Sequential(*layers, *head)]

    def _norm(self, nn: Layers, channels: int) -> Module:
        if self.norm == "batch":
            return nn.BatchNorm2d(channels)
        return nn.GroupNorm(num_norm_groups(channels, self.group_size), channels)
