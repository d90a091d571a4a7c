"""Attention over the channels of an image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module

from kasmina_env.blueprints.base import register_blueprint
from kasmina_env.layers import Layers


class SqueezeExcite(Module):
    """Change each channel in proportion to a bounded function of all channel means (Hu et al. 2018)."""

    def __init__(self, nn: Layers, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // 4)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.tanh(self.expand(torch.relu(self.reduce(pooled))))


@register_blueprint("attention", topologies=("image",), initial={"expand.bias": 0.0})
def attention(nn: Layers, channels: int) -> Module:
    """Squeeze-and-excite: rescales channels by what the whole image shows."""
    return SqueezeExcite(nn, channels)
