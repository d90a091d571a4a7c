"""The grown network as an ordinary `torch.nn.Module`: no population, no reinforcement learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Identity, Module, ModuleList

from kasmina_env.blend import blend
from kasmina_env.blueprints import build_seed
from kasmina_env.config import Operator
from kasmina_env.hosts import Host, SegmentedNetwork


class GrownSlot(Module):
    """A slot with its seed, blended in at a constant alpha."""

    def __init__(self, seed: Module, alpha: float) -> None:
        super().__init__()
        self.seed = seed
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return blend(x, self.seed(x), self.alpha)


class GrownNetwork(Module):
    """A host with its seeds, made of `torch.nn` layers. Maps ``[B, *input_shape]`` to logits ``[B, num_classes]``."""

    def __init__(self, network: SegmentedNetwork, slots: Sequence[Module]) -> None:
        super().__init__()
        self.network = network
        self.slots = ModuleList(slots)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x, list(self.slots))
        return logits


@dataclass(frozen=True)
class GrownSeed:
    """A seed as plain data."""

    blueprint: str
    operator: Operator
    alpha: float
    parameters: dict[str, Tensor]


def build_network(host: Host, parameters: Mapping[str, Tensor], seeds: Mapping[int, GrownSeed]) -> GrownNetwork:
    """Assemble the ordinary network.

    Args:
        host: Recipe of the host.
        parameters: Its parameters, by name.
        seeds: Slot to seed; slots left out are identities.
    """
    import torch.nn as nn

    slots: list[Module] = []
    with torch.device("meta"):  # draws no random numbers
        network = SegmentedNetwork(host.build(nn))
        for index, slot in enumerate(host.slots):
            if index not in seeds:
                slots.append(Identity())
                continue
            seed = seeds[index]
            module = build_seed(nn, seed.blueprint, seed.operator, slot.channels)
            slots.append(GrownSlot(module, seed.alpha))
    network.load_state_dict(dict(parameters), assign=True)
    for index, seed in seeds.items():
        slots[index].get_submodule("seed").load_state_dict(dict(seed.parameters), assign=True)
    return GrownNetwork(network, slots).requires_grad_()
