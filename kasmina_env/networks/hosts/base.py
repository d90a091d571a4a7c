"""What a host is, and the registry of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor
from torch.nn import Module, ModuleList

from kasmina_env.networks.layers import Layers, Topology
from kasmina_env.settings.registry import Registry


@dataclass(frozen=True)
class Slot:
    """A place in a host where at most one seed lives.

    Attributes:
        name: Readable name, unique in its host.
        channels: C of the features there.
        turn: Features pass the slots in ascending order of this, and those of equal turn as the host lists them.
    """

    name: str
    channels: int
    turn: int = field(default=0, kw_only=True)


def execution_order(slots: Sequence[Slot]) -> tuple[int, ...]:
    """Indices of the slots, as actions and observations count them, in the order in which features pass them."""
    return tuple(sorted(range(len(slots)), key=lambda index: slots[index].turn))


@runtime_checkable
class Host(Protocol):
    """A recipe for a network cut into segments, with a slot between each segment and the next.

    ``build(nn)`` returns ``len(slots) + 1`` segments. Segment i maps features to ``[B, C, ...]``, where the slot behind
    it, ``slots[execution_order(slots)[i]]``, keeps the shape; the last one returns logits ``[B, num_classes]``, for
    tokens ``[B, T, num_classes]``. Built from `kasmina_env.networks.layers` the same segments are N networks wide
    (see there how these lie: the axes of vectors and tokens are counted from the end).
    """

    @property
    def topology(self) -> Topology: ...
    @property
    def slots(self) -> tuple[Slot, ...]: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample, channels first; for tokens, which are integers, their number."""
        ...

    def build(self, nn: Layers) -> Sequence[Module]: ...


HOSTS: Registry[Callable[..., Host]] = Registry("host")
HostT = TypeVar("HostT", bound=Callable[..., Any])


def register_host(name: str) -> Callable[[HostT], HostT]:
    """Register a frozen dataclass (or a function) that makes a `Host` from keyword settings; a duplicate name raises.

    Settings annotated with one of `kasmina_env.settings.config.KINDS` are checked before it is called.
    """

    def decorate(make: HostT) -> HostT:
        HOSTS.register(name, make)
        return make

    return decorate


class SegmentedNetwork(Module):
    """Segments with something (a seed, or nothing) called on the features between them.

    Args:
        segments: Of a host.
        order: `execution_order` of its slots; left out: as listed.
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
    """The network of a host, from a namespace of layers: ordinary with `torch.nn`, wide with `layers.py`."""
    return SegmentedNetwork(host.build(nn), execution_order(host.slots))
