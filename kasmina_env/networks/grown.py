"""Grown networks as ordinary modules of `torch.nn`."""

from __future__ import annotations

import io
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from types import FunctionType

import numpy as np
import torch
from torch import Tensor
from torch.nn import Identity, Module, ModuleList, Parameter

from kasmina_env.networks.blend import blend
from kasmina_env.networks.blueprints import build_seed
from kasmina_env.networks.hosts import Host, SegmentedNetwork, make_network
from kasmina_env.networks.modes import own_modes
from kasmina_env.settings.config import Operator


@dataclass(frozen=True)
class GrownSeed:
    """A seed as plain data."""

    blueprint: str
    operator: Operator
    alpha: float


@dataclass(frozen=True)
class NetworkSpec:
    """Specification of a grown network, without its weights.

    Attributes:
        host: The host.
        seeds: Slot to seed; slots left out are identities.
    """

    host: Host
    seeds: Mapping[int, GrownSeed]


class GrownSlot(Module):
    """A slot with a seed, blended in at a constant alpha."""

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
        slots: Modules that are called on the features between its segments: a `GrownSlot` each, or an identity.
        spec: Specification that all this was built from; needed only to save it (see
            `kasmina_env.networks.network_file`).
    """

    def __init__(self, network: SegmentedNetwork, slots: Sequence[Module], spec: NetworkSpec | None = None) -> None:
        super().__init__()
        self.network = network
        self.slots = ModuleList(slots)
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x, list(self.slots))
        return logits


COUNTER = "num_batches_tracked"  # of torch's batch normalisation, which reads it only without a momentum


def build_network(spec: NetworkSpec, tensors: Mapping[str, Tensor]) -> GrownNetwork:
    """Assemble the ordinary network, in evaluation mode, with its own copy of the weights, which can be trained.

    Args:
        spec: Specification of the network.
        tensors: Its parameters and persistent buffers, by their names in the network; a tied parameter once.

    Raises:
        ValueError: If a tensor is missing, superfluous or of another shape, or a buffer is not persistent.
    """
    with own_modes(torch.device("cpu")):
        grown = _skeleton(spec)
        _fill(grown, tensors)
        return grown.requires_grad_().eval()


def _skeleton(spec: NetworkSpec) -> GrownNetwork:
    """The network on the meta device, where no random numbers are drawn."""
    import torch.nn as nn

    slots: list[Module] = []
    with torch.device("meta"):
        network = make_network(spec.host, nn)
        for index, slot in enumerate(spec.host.slots):
            if index not in spec.seeds:
                slots.append(Identity())
                continue
            seed = spec.seeds[index]
            module = build_seed(nn, seed.blueprint, spec.host.topology, seed.operator, slot.channels)
            slots.append(GrownSlot(module, seed.alpha))
    return GrownNetwork(network, slots, spec)


def tensors_of(network: Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, without counters; a tied parameter once, under its first name."""
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    kept = {name for name in network.state_dict() if not name.endswith(COUNTER)}
    return parameters | {name: buffer for name, buffer in network.named_buffers() if name in kept}


def _fill(network: Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network on the meta device copies of tensors. Tied parameters stay tied; `load_state_dict` parts them."""
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


# ── as it was built, or edited ──────────────────────────────────────────────────────────────────


def spec_of(network: GrownNetwork) -> NetworkSpec:
    """Specification of a network as it is now: seeds may have been removed since it was built, or have another alpha.

    Raises:
        ValueError: If the network does not know what it was built from.
    """
    if network.spec is None:
        raise ValueError(
            "`network` must have a specification, got None. Take it from a population, environment or file."
        )
    seeds = dict(network.spec.seeds)
    for index, slot in enumerate(network.slots):
        if isinstance(slot, Identity):
            seeds.pop(index, None)
        elif index in seeds and isinstance(slot, GrownSlot) and isinstance(slot.alpha, int | float):
            seeds[index] = replace(seeds[index], alpha=float(slot.alpha))
    return replace(network.spec, seeds=seeds)


def check_as_built(network: GrownNetwork, spec: NetworkSpec) -> None:
    """Raise a ``ValueError`` if a network is anything but what its specification builds with the network's weights."""
    found, wanted = _anatomy(network), _anatomy(_skeleton(spec))
    for place in (*wanted, *(place for place in found if place not in wanted)):
        got, built = found.get(place, _NOTHING), wanted.get(place, _NOTHING)
        if not _are_alike(got, built):
            raise ValueError(
                f"`network` must be as its host and seeds build it, got {_words(got)} for {place!r} in place of "
                f"{_words(built)}. Save an edited network as .pt2 or .onnx, which hold any computation."
            )


_NOTHING = "nothing"
# Attributes of a module that are compared apart, or that do not tell what it computes in evaluation mode.
_NOT_COMPARED = {"training", "spec", "_parameters", "_buffers", "_modules", "_compiled_call_impl"}


def _anatomy(network: Module) -> dict[str, object]:
    """Everything but weights that a network computes with, by its place: modules, their attributes, shapes."""
    parts: dict[str, object] = {}
    for name, module in network.named_modules():
        parts[name] = type(module)
        parts |= {f"{name}.{key}": value for key, value in vars(module).items() if key not in _NOT_COMPARED}
    return parts | {name: tuple(tensor.shape) for name, tensor in tensors_of(network).items()}


def _words(part: object) -> str:
    return part.__name__ if isinstance(part, type) else reprlib.repr(part)


def _are_alike(one: object, other: object) -> bool:
    """Equality of two parts; of objects that cannot be compared, that of their types."""
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    if type(one) is not type(other):
        return False
    if isinstance(one, type):
        return one is other
    if isinstance(one, FunctionType) and isinstance(other, FunctionType):
        return one.__code__ == other.__code__
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_are_alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_are_alike, one, other))
    return type(one).__eq__ is object.__eq__ or one == other


# ── without kasmina_env ─────────────────────────────────────────────────────────────────────────


def to_program(network: GrownNetwork, example: Tensor, metadata: Mapping[str, str]) -> bytes:
    """A file for `torch.export.load`, which runs without kasmina_env.

    Args:
        network: In evaluation mode.
        example: At least two samples ``[B, *input_shape]``; B is free in the program.
        metadata: Texts to keep in the file, by name.
    """
    file = io.BytesIO()
    torch.export.save(_trace(network, example), file, extra_files=dict(metadata))
    return file.getvalue()


def to_onnx(network: GrownNetwork, example: Tensor, metadata: Mapping[str, str]) -> bytes:
    """An ONNX file with input ``x`` and output ``logits``; arguments as for `to_program`.

    Raises:
        ModuleNotFoundError: If the extra "onnx" is not installed.
    """
    check_onnx()
    import onnx

    traced = _trace(network, example)
    program = torch.onnx.export(traced, dynamo=True, input_names=["x"], output_names=["logits"], verbose=False)
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, dict(metadata))
    serialized: bytes = model.SerializeToString()
    return serialized


def check_onnx() -> None:
    """Raise a ``ModuleNotFoundError`` if the extra "onnx" is not installed."""
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"`onnx` must be installed to write ONNX, got no module {missing[0]!r}. Run pip install kasmina-env[onnx]."
        )


def _trace(network: GrownNetwork, example: Tensor) -> torch.export.ExportedProgram:
    with own_modes(example.device):
        return torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
