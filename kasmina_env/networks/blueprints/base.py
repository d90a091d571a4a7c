"""What a blueprint is, and the registry of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch.nn import Module

from kasmina_env.networks.blend import Seed
from kasmina_env.networks.layers import Layers, Topology
from kasmina_env.settings.config import Operator
from kasmina_env.settings.registry import Registry

Build = Callable[[Layers, int], Module]


@dataclass(frozen=True)
class Builder:
    """A kind of seed for some topologies.

    Attributes:
        build: ``(nn, channels) -> Module`` mapping features to their proposed change *delta*, shape kept.
        initial: Parameters that start at a constant instead of their layer's default. A small one behind the last
            layer keeps a newborn seed near identity; it must not be zero where nothing behind it can move (a zero
            weight behind a norm and a ReLU never learns).
        description: One line for people.
    """

    build: Build
    initial: Mapping[str, float] = field(default_factory=dict)
    description: str = ""


@dataclass(frozen=True)
class Blueprint:
    """A kind of seed.

    Attributes:
        name: Name in actions and observations.
        builders: Builder by topology of the features: "image" ``[B, C, H, W]``, "vector" ``[B, C]``, "tokens"
            ``[B, T, C]``.
    """

    name: str
    builders: dict[Topology, Builder]

    @property
    def topologies(self) -> tuple[Topology, ...]:
        return tuple(self.builders)

    def builder(self, topology: Topology) -> Builder:
        """Builder for these features; a ``ValueError`` where it does not accept them."""
        if topology not in self.builders:
            raise ValueError(
                f"`blueprint` must accept {topology} features, got {self.name!r}, which accepts "
                f"{', '.join(self.topologies)}. Choose a blueprint for this host."
            )
        return self.builders[topology]


BLUEPRINTS: Registry[Blueprint] = Registry("blueprint")


def register_blueprint(
    name: str,
    *,
    topologies: tuple[Topology, ...],
    initial: Mapping[str, float] | None = None,
) -> Callable[[Build], Build]:
    """Register a builder ``(nn, channels) -> Module`` as a blueprint; its docstring's first line describes it.

    One name may have several builders, each for topologies of its own. Built from `layers.py` the same module runs many
    networks at once, images as ``[B, N*C, H, W]``, vectors as ``[N, B, C]``, tokens as ``[N, B, T, C]``: it
    counts the axes of vectors and tokens from the end, and mixes channels of images in layers alone. On a GPU what it
    does is recorded and replayed: its forward must not wait for the device (`item`, a mask as index) or copy to it.

    Args:
        name: New name, or new for these topologies; a duplicate raises ``ValueError``.
        topologies: Which features it accepts.
        initial: Parameter name to constant starting value.
    """

    def decorate(build: Build) -> Build:
        description = (build.__doc__ or name).strip().splitlines()[0]
        added = dict.fromkeys(topologies, Builder(build, dict(initial or {}), description))
        known = BLUEPRINTS.get(name).builders if name in BLUEPRINTS else {}
        if known and known.keys().isdisjoint(added):
            known.update(added)
        else:
            BLUEPRINTS.register(name, Blueprint(name, added))
        return build

    return decorate


def build_seed(nn: Layers, blueprint: str, topology: Topology, operator: Operator, channels: int) -> Seed:
    """One seed from a namespace of layers: ordinary with `torch.nn`, wide with `kasmina_env.networks.layers`."""
    return Seed(nn, BLUEPRINTS.get(blueprint).builder(topology).build(nn, channels), operator, topology, channels)
