"""Blueprints and their registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import get_args

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
        build: ``(nn, channels) -> Module`` that maps features to their proposed change *delta*, of the same shape.
        initial: Constant initial values of parameters, by name, in place of their layer's default. A small one in the
            last layer keeps a newborn seed near identity. Zero is for a layer with nothing behind it: a zero weight
            between a norm and a ReLU never learns.
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
        builders: Builder for each topology of features: "image" ``[B, C, H, W]``, "vector" ``[B, C]``, "tokens"
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

    A name may have several builders, each for topologies of its own. All layers come from the namespace ``nn``. Built
    from `kasmina_env.networks.layers` the module holds N networks: images ``[B, N*C, H, W]``, vectors ``[N, B, C]``,
    tokens ``[N, B, T, C]``. A forward of your own therefore counts the axes of vectors and tokens from the end, and
    mixes channels of images in layers alone. On a GPU it is recorded and replayed: it must not wait for the device
    (`item`, a mask as index) or copy to it.

    Args:
        name: New name, or new for these topologies; one that is taken is a ``ValueError``.
        topologies: Kinds of features that it accepts.
        initial: Constant initial values of parameters, by name (see `Builder`).
    """
    if not topologies or not set(topologies) <= set(get_args(Topology)):
        known = ", ".join(get_args(Topology))
        raise ValueError(f"`topologies` must be some of {known}, got {topologies!r}. Name what {name!r} accepts.")

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
    """Seed of a blueprint: ordinary from the namespace `torch.nn`, wide from `kasmina_env.networks.layers`."""
    return Seed(nn, BLUEPRINTS.get(blueprint).builder(topology).build(nn, channels), operator, topology, channels)
