"""The grown network as an ordinary `torch.nn.Module`: no population, no reinforcement learning."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import Identity, Module, ModuleList, Parameter

from kasmina_env.networks.blend import blend
from kasmina_env.networks.blueprints import build_seed
from kasmina_env.networks.hosts import Host, SegmentedNetwork, make_network
from kasmina_env.settings.config import Operator


@dataclass(frozen=True)
class GrownSeed:
    """A seed as plain data."""

    blueprint: str
    operator: Operator
    alpha: float


@dataclass(frozen=True)
class Recipe:
    """What a grown network is made of; its weights are apart.

    Attributes:
        host: Recipe of the host.
        seeds: Slot to seed; slots left out are identities.
    """

    host: Host
    seeds: Mapping[int, GrownSeed]


class GrownSlot(Module):
    """A slot with its seed, blended in at a constant alpha."""

    def __init__(self, seed: Module, alpha: float) -> None:
        super().__init__()
        self.seed = seed
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return blend(x, self.seed(x), self.alpha)


class GrownNetwork(Module):
    """A host with its seeds, made of `torch.nn` layers. Maps ``[B, *input_shape]`` to logits ``[B, num_classes]``.

    Args:
        network: The host.
        slots: What is called on the features between its segments.
        recipe: What all this was built from; needed only to save it (see `kasmina_env.networks.network_file`).
    """

    def __init__(self, network: SegmentedNetwork, slots: Sequence[Module], recipe: Recipe | None = None) -> None:
        super().__init__()
        self.network = network
        self.slots = ModuleList(slots)
        self.recipe = recipe

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x, list(self.slots))
        return logits


COUNTER = "num_batches_tracked"  # of torch's batch normalisation, which looks at it only without a momentum


def build_network(recipe: Recipe, tensors: Mapping[str, Tensor]) -> GrownNetwork:
    """Assemble the ordinary network, in evaluation mode, with its own copy of the weights.

    Args:
        recipe: What to build.
        tensors: Its parameters and persistent buffers, by their names in the network; a tied parameter once.

    Raises:
        ValueError: If a tensor is missing, superfluous or of another shape, or a buffer is not persistent.
    """
    import torch.nn as nn

    slots: list[Module] = []
    with torch.device("meta"):  # draws no random numbers
        network = make_network(recipe.host, nn)
        for index, slot in enumerate(recipe.host.slots):
            if index not in recipe.seeds:
                slots.append(Identity())
                continue
            seed = recipe.seeds[index]
            module = build_seed(nn, seed.blueprint, recipe.host.topology, seed.operator, slot.channels)
            slots.append(GrownSlot(module, seed.alpha))
    grown = GrownNetwork(network, slots, recipe)
    _fill(grown, tensors)
    return grown.requires_grad_().eval()


def tensors_of(network: Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, but counters; a tied parameter once, under its first name."""
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    kept = {name for name in network.state_dict() if not name.endswith(COUNTER)}
    return parameters | {name: buffer for name, buffer in network.named_buffers() if name in kept}


def _fill(network: Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network on the meta device copies of tensors. Tied parameters stay one; `load_state_dict` parts them."""
    wanted = {name: tuple(tensor.shape) for name, tensor in tensors_of(network).items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wanted != found:
        odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ValueError(
            f"`tensors` must be the network's own, got {found.get(odd[0], 'none')} for {odd[0]!r}, which is "
            f"{wanted.get(odd[0], 'not part of it')}. Give those of the same host and seeds."
        )
    filled: dict[int, Tensor] = {
        id(buffer): torch.zeros_like(buffer, device="cpu")
        for name, buffer in network.named_buffers()
        if name.endswith(COUNTER)
    }
    for name, old in (*network.named_parameters(remove_duplicate=False), *network.named_buffers()):
        if id(old) not in filled and name in tensors:
            copied = tensors[name].clone(memory_format=torch.contiguous_format)
            filled[id(old)] = Parameter(copied) if isinstance(old, Parameter) else copied
        if id(old) in filled:
            owner, _, last = name.rpartition(".")
            setattr(network.get_submodule(owner), last, filled[id(old)])
    empty = [name for name, buffer in network.named_buffers() if buffer.is_meta]
    if empty:
        raise ValueError(f"`host` must have no buffer that is not saved, got {empty[0]!r}. Compute it in forward.")


# ── without kasmina_env ─────────────────────────────────────────────────────────────────────────


def to_program(network: GrownNetwork, example: Tensor) -> bytes:
    """A file for `torch.export.load`, which runs without kasmina_env.

    Args:
        network: In evaluation mode.
        example: At least two samples ``[B, *input_shape]``; B is free in the program.
    """
    file = io.BytesIO()
    torch.export.save(_trace(network, example), file)
    return file.getvalue()


def to_onnx(network: GrownNetwork, example: Tensor) -> bytes:
    """An ONNX file with input ``x`` and output ``logits``; arguments as for `to_program`.

    Raises:
        ModuleNotFoundError: If the extra "onnx" is not installed.
    """
    check_onnx()
    traced = _trace(network, example)
    program = torch.onnx.export(traced, dynamo=True, input_names=["x"], output_names=["logits"], verbose=False)
    assert program is not None
    serialized: bytes = program.model_proto.SerializeToString()
    return serialized


def check_onnx() -> None:
    """Raise a ``ModuleNotFoundError`` if the extra "onnx" is not installed."""
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"`onnx` must be installed to write ONNX, got no module {missing[0]!r}. Run pip install kasmina-env[onnx]."
        )


def _trace(network: GrownNetwork, example: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
