"""Blueprints that give images spatial reach or mix their channels.

All end in a GroupNorm whose weight starts at 0.3. A newborn seed then changes its features by about a third of their
size, whatever its convolutions start with, and every weight before the norm gets gradient from the first step.
"""

from __future__ import annotations

from torch.nn import Module

from kasmina_env.networks.blueprints.base import register_blueprint
from kasmina_env.networks.layers import Layers

SCALE = 0.3


def num_norm_groups(channels: int, size: int = 8) -> int:
    """Groups of `size` channels where they divide evenly, else one group."""
    return channels // size if channels % size == 0 else 1


def _norm(nn: Layers, channels: int) -> Module:
    return nn.GroupNorm(num_norm_groups(channels), channels)


@register_blueprint("pointwise", topologies=("image",), initial={"1.weight": SCALE})
def pointwise(nn: Layers, channels: int) -> Module:
    """1x1 convolution: mixes channels, adds no spatial reach."""
    return nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), _norm(nn, channels))


@register_blueprint("depthwise", topologies=("image",), initial={"2.weight": SCALE})
def depthwise(nn: Layers, channels: int) -> Module:
    """3x3 convolution per channel, then 1x1: spatial reach for few parameters (Howard et al. 2017)."""
    spatial = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    mix = nn.Conv2d(channels, channels, 1, bias=False)
    return nn.Sequential(spatial, mix, _norm(nn, channels))


@register_blueprint("bottleneck", topologies=("image",), initial={"4.weight": SCALE})
def bottleneck(nn: Layers, channels: int) -> Module:
    """1x1 down to half, 3x3, ReLU, 1x1 up (He et al. 2016)."""
    inner = max(4, channels // 2)
    return nn.Sequential(
        nn.Conv2d(channels, inner, 1, bias=False),
        nn.Conv2d(inner, inner, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(inner, channels, 1, bias=False),
        _norm(nn, channels),
    )


@register_blueprint("conv_light", topologies=("image",), initial={"1.weight": SCALE})
def conv_light(nn: Layers, channels: int) -> Module:
    """One full 3x3 convolution."""
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, _norm(nn, channels))


@register_blueprint("conv_heavy", topologies=("image",), initial={"3.weight": SCALE})
def conv_heavy(nn: Layers, channels: int) -> Module:
    """Two full 3x3 convolutions with a ReLU between: reach 5x5, most parameters."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        _norm(nn, channels),
    )
