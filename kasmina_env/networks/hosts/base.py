"""Specifications of hosts, and their registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import Module, ModuleList

from kasmina_env.networks.layers import Layers, Topology
from kasmina_env.settings.registry import Registry

MOST_LAYERS = MOST_SLOTS = 2**8
MOST_PARAMETERS = 2**30  # 4 GiB in float32, and three times that to train with Adam


@dataclass(frozen=True)
class Slot:
    """A place in a host where at most one seed lives.

    Attributes:
        name: Readable name, unique in its host.
        channels: C of the features there.
        turn: Position in the order in which features pass the slots; slots of equal turn keep the order of the list.
    """

    name: str
    channels: int
    turn: int = field(default=0, kw_only=True)


def execution_order(slots: Sequence[Slot]) -> tuple[int, ...]:
    """Indices of the slots in the order in which features pass them."""
    return tuple(sorted(range(len(slots)), key=lambda index: slots[index].turn))


@runtime_checkable
class Host(Protocol):
    """Specification of a network that is cut into segments, with a slot between each segment and the next.

    ``build(nn)`` returns ``len(slots) + 1`` segments, made of layers of the namespace ``nn``. Segment i ends in the
    features of the slot behind it, ``slots[execution_order(slots)[i]]``, which keeps their shape; the last segment ends
    in logits ``[B, num_classes]``, for tokens ``[B, T, num_classes]``.

    Built from `kasmina_env.networks.layers` the same segments hold N networks, whose features lie as described there. A
    forward of your own therefore counts the axes of vectors and tokens from the end, and mixes channels of images in
    layers alone.
    """

    @property
    def topology(self) -> Topology: ...
    @property
    def slots(self) -> tuple[Slot, ...]: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample, channels first; for tokens their number."""
        ...

    def build(self, nn: Layers) -> Sequence[Module]: ...


HOSTS: Registry[Callable[..., Host]] = Registry("host")
HostT = TypeVar("HostT", bound=Callable[..., Any])


def register_host(name: str) -> Callable[[HostT], HostT]:
    """Register a frozen dataclass, or a function, that makes a `Host` from keyword settings.

    Settings whose annotations are in `kasmina_env.settings.config.KINDS` are checked before it is called. Networks of a
    dataclass can be saved (see `kasmina_env.networks.network_file`).

    Args:
        name: New name; one that is taken is a ``ValueError``.
    """

    def decorate(make: HostT) -> HostT:
        HOSTS.register(name, make)
        return make

    return decorate


class SegmentedNetwork(Module):
    """Segments of a host, with a slot called on the features between each and the next.

    Args:
        segments: Segments, S + 1.
        order: `execution_order` of the slots; as listed if left out.
    """

    def __init__(self, segments: Sequence[Module], order: Sequence[int] | None = None) -> None:
        super().__init__()
        self.segments = ModuleList(segments)
        self.order = range(len(segments) - 1) if order is None else order

    def forward(self, x: Tensor, slots: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
        for segment, index in zip(self.segments, self.order, strict=False):
            x = slots[index](segment(x))
        logits: Tensor = self.segments[-1](x)
        return logits


def make_network(host: Host, nn: Layers) -> SegmentedNetwork:
    """Network of a host: ordinary from the namespace `torch.nn`, wide from `kasmina_env.networks.layers`."""
    return SegmentedNetwork(host.build(nn), execution_order(host.slots))


def count_parameters(host: Host) -> int:
    """Parameters of one network of a host, counted without memory for them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make_network(host, nn).parameters())


def check_host(host: Host) -> None:
    """Raise a ``ValueError`` if a host has more slots or parameters than an environment can be about."""
    if len(host.slots) > MOST_SLOTS:
        raise ValueError(
            f"`host_settings` must make a host of at most {MOST_SLOTS} slots, got {len(host.slots)}. Use fewer layers."
        )
    if (found := count_parameters(host)) > MOST_PARAMETERS:
        raise ValueError(
            f"`host_settings` must make a host of at most {MOST_PARAMETERS} parameters, got {found}. Make it narrower."
        )
