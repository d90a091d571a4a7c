"""A multilayer perceptron."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch.nn import Module

from kasmina_env.networks.hosts.base import MOST_LAYERS, Slot, register_host
from kasmina_env.networks.layers import Layers, Topology
from kasmina_env.settings.config import check_sizes


@register_host("mlp")
@dataclass(frozen=True)
class MLPHost:
    """Hidden layers of linear map and ReLU, a slot after each, and a linear head.

    Attributes:
        in_features: Features of a sample.
        num_classes: Classes of the data.
        width: Features of each hidden layer.
        depth: Number of hidden layers.
        is_linear: Whether to leave the ReLUs out, so that the host is a linear map until a seed bends it.
    """

    in_features: int = 2
    num_classes: int = 3
    width: int = 8
    depth: int = 2
    is_linear: bool = False

    def __post_init__(self) -> None:
        check_sizes({name: getattr(self, name) for name in ("in_features", "num_classes", "width")})
        check_sizes({"depth": self.depth}, MOST_LAYERS)

    @property
    def topology(self) -> Topology:
        return "vector"

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.in_features,)

    @property
    def slots(self) -> tuple[Slot, ...]:
        return tuple(Slot(f"layer{i}", self.width) for i in range(self.depth))

    def build(self, nn: Layers) -> list[Module]:
        sizes = [self.in_features] + [self.width] * self.depth
        activation = [] if self.is_linear else [nn.ReLU]
        segments = [nn.Sequential(nn.Linear(i, o), *(make() for make in activation)) for i, o in pairwise(sizes)]
        return [*segments, nn.Linear(self.width, self.num_classes)]
