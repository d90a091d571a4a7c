"""Token shift: the cheapest way to see more than one token."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from kasmina_env.networks.blueprints.base import register_blueprint
from kasmina_env.networks.layers import Layers


class Shift(Module):
    """Features ``[..., T, C]`` of the token before, zeros for the first."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 1, 0))[..., :-1, :]


@register_blueprint("shift", topologies=("tokens",), initial={"3.weight": 0.0, "3.bias": 0.0})
def shift(nn: Layers, channels: int) -> Module:
    """Two linear layers of the token before (the token shift of Peng et al. 2023), as wide as the features."""
    return nn.Sequential(Shift(), nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels))
