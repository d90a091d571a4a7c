"""Blueprints that only normalise: the cheapest seeds."""

from __future__ import annotations

from torch.nn import Module

from kasmina_env.networks.blueprints.base import register_blueprint
from kasmina_env.networks.layers import Layers


@register_blueprint("norm", topologies=("image",), initial={"weight": 0.3})
def norm(nn: Layers, channels: int) -> Module:
    """GroupNorm over all channels with a learnable scale and shift."""
    return nn.GroupNorm(1, channels)


@register_blueprint("layer_norm", topologies=("vector", "tokens"), initial={"weight": 0.3})
def layer_norm(nn: Layers, channels: int) -> Module:
    """LayerNorm over the channels with a learnable scale and shift."""
    return nn.LayerNorm(channels)
