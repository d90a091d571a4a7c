"""Blueprints for vectors and tokens: channels mixed per position, so causal networks stay causal.

Output layers start at zero. Nothing stands behind them, so they learn from the first step, the others from the second.
"""

from __future__ import annotations

from torch.nn import Module

from kasmina_env.networks.blueprints.base import register_blueprint
from kasmina_env.networks.layers import Layers

OUTPUT_AT_ZERO = {"2.weight": 0.0, "2.bias": 0.0}


def _two_layers(nn: Layers, channels: int, hidden: int) -> Module:
    return nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))


def _low_rank(nn: Layers, channels: int, rank: int) -> Module:
    rank = min(rank, channels)
    return nn.Sequential(nn.Linear(channels, rank, bias=False), nn.Linear(rank, channels, bias=False))


@register_blueprint("mlp_small", topologies=("vector", "tokens"), initial=OUTPUT_AT_ZERO)
def mlp_small(nn: Layers, channels: int) -> Module:
    """Two linear layers with a GELU between, as wide as the features."""
    return _two_layers(nn, channels, channels)


@register_blueprint("mlp", topologies=("vector", "tokens"), initial=OUTPUT_AT_ZERO)
def mlp(nn: Layers, channels: int) -> Module:
    """Two linear layers with a GELU between, four times as wide as the features."""
    return _two_layers(nn, channels, 4 * channels)


@register_blueprint("lora", topologies=("vector", "tokens"), initial={"1.weight": 0.0})
def lora(nn: Layers, channels: int) -> Module:
    """Low-rank linear map: down to rank 4 and up again (Hu et al. 2021)."""
    return _low_rank(nn, channels, 4)


@register_blueprint("lora_large", topologies=("vector", "tokens"), initial={"1.weight": 0.0})
def lora_large(nn: Layers, channels: int) -> Module:
    """Low-rank linear map: down to rank 16 and up again (Hu et al. 2021)."""
    return _low_rank(nn, channels, 16)
