"""A small convolutional host."""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn import Module

from kasmina_env.blueprints.base import Topology
from kasmina_env.blueprints.convolution import num_norm_groups
from kasmina_env.hosts.base import Slot, check_at_least_one, register_host
from kasmina_env.layers import Layers


@register_host("cnn")
@dataclass(frozen=True)
class CNNHost:
    """Blocks of convolution, GroupNorm, ReLU; after each block a slot, then 2x2 max-pooling; mean, linear head.

    Attributes:
        in_channels, image_size, num_classes: Of the data.
        width: Channels of the first block; each further block has twice as many.
        kernels: Kernel size of each block. With (1, 1, 1) the host sees no shape until a seed gives it spatial reach.
    """

    in_channels: int = 1
    image_size: int = 8
    num_classes: int = 10
    width: int = 8
    kernels: tuple[int, ...] = (1, 1, 1)

    def __post_init__(self) -> None:
        check_at_least_one(self, ("in_channels", "image_size", "num_classes", "width"))
        if self.image_size % 2 ** len(self.kernels):
            raise ValueError(
                f"`image_size` must be divisible by 2 for each of the {len(self.kernels)} blocks, got "
                f"{self.image_size}. Give fewer `kernels` or another image size."
            )
        if any(k < 1 or k % 2 == 0 for k in self.kernels) or not self.kernels:
            raise ValueError(
                f"`kernels` must be odd sizes, one for each block, got {self.kernels}. Use e.g. (3, 3, 3)."
            )

    @property
    def topology(self) -> Topology:
        return "image"

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.in_channels, self.image_size, self.image_size)

    @property
    def slots(self) -> tuple[Slot, ...]:
        return tuple(
            Slot(f"block{i}", self.width * 2**i, (self.image_size // 2**i) ** 2) for i in range(len(self.kernels))
        )

    def build(self, nn: Layers) -> list[Module]:
        segments, channels = [], self.in_channels
        for i, (kernel, slot) in enumerate(zip(self.kernels, self.slots, strict=True)):
            block = [
                nn.Conv2d(channels, slot.channels, kernel, padding=kernel // 2, bias=False),
                nn.GroupNorm(num_norm_groups(slot.channels), slot.channels),
                nn.ReLU(),
            ]
            segments.append(nn.Sequential(*([nn.MaxPool2d(2)] if i else []), *block))
            channels = slot.channels
        head = nn.Linear(channels, self.num_classes)
        pool = [nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return [*segments, nn.Sequential(*pool, head)]
