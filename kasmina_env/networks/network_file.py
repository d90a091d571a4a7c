"""Grown networks as files: weights beside a JSON document that says what they are the weights of.

``NAME.safetensors`` and ``NAME.json`` together are the whole network: host by its registered name and settings, seeds
as plain data. What a user registered must be registered again before loading.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from kasmina_env.networks.blueprints import BLUEPRINTS
from kasmina_env.networks.grown import (
    GrownNetwork,
    GrownSeed,
    Recipe,
    build_network,
    check_onnx,
    tensors_of,
    to_onnx,
    to_program,
)
from kasmina_env.networks.hosts import HOSTS, Host
from kasmina_env.settings.config import Operator, check_nested, freeze
from kasmina_env.settings.documents import check_new, document_path, load_pair, save_pair
from kasmina_env.settings.registry import Registry, unknown_name_message

KIND, SCHEMA = "grown network", 1
KEYS = ("host", "seeds", "facts")

# What a file ends in: how its content is made, from the network and a few samples.
FORMATS: dict[str, Callable[[GrownNetwork, Tensor | None], bytes]] = {
    ".safetensors": lambda network, example: _weights(network),
    ".pt2": lambda network, example: to_program(network, _given(example)),
    ".onnx": lambda network, example: to_onnx(network, _given(example)),
}


def check_path(path: Path, overwrite: bool = False) -> None:
    """Raise if `save_network` could not write there: before work is done that could not be kept."""
    if path.suffix not in FORMATS:
        raise ValueError(f"`path` must end in {', '.join(FORMATS)}, got {path.name!r}. Name another file.")
    if path.suffix == ".onnx":
        check_onnx()
    if not overwrite:
        check_new(path)


def save_network(
    network: GrownNetwork,
    path: Path | str,
    facts: Mapping[str, Any] | None = None,
    example: Tensor | None = None,
    overwrite: bool = False,
) -> None:
    """Write a network, and beside it a JSON document that describes it.

    Args:
        network: From `Population.network`, the environments' ``network``, or `load_network`.
        path: Ends in ``.safetensors`` (for `load_network`), ``.pt2`` (for `torch.export.load`) or ``.onnx``; the
            latter two run without kasmina_env.
        facts: Plain JSON values to keep with it, such as where it comes from and how good it is.
        example: Two or more samples ``[B, *input_shape]``; ``.pt2`` and ``.onnx`` need them.
        overwrite: Replace files that exist.

    Raises:
        ValueError: If the path ends in something else or the host is not registered.
        FileExistsError: If one of the two files exists.
    """
    path = Path(path)
    check_path(path, overwrite)
    document = {"kind": KIND, "schema": SCHEMA, "format": path.suffix, **_describe(network), "facts": dict(facts or {})}
    save_pair(path, FORMATS[path.suffix](network, example), document, overwrite)


def load_network(path: Path | str) -> GrownNetwork:
    """Rebuild a network from ``NAME.safetensors`` and ``NAME.json``: its outputs are the same bit for bit.

    Raises:
        FileNotFoundError: If one of the two files is missing.
        ValueError: If they are damaged, of another schema, or of a host or blueprint that is not registered here.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(
            f"`path` must end in .safetensors, got {path.name!r}. Other formats have loaders of their own."
        )
    payload, document = load_pair(path, KIND, SCHEMA, KEYS)
    try:
        host = _host(document["host"])
        seeds = {int(entry["slot"]): _seed(entry) for entry in document["seeds"]}
        return build_network(Recipe(host, seeds), safetensors.torch.load(payload))
    except KeyError as error:
        raise ValueError(f"`{document_path(path)}` must have the key {error}, got none. Save it again.") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{document_path(path)}` must describe a network that can be built here: {error}") from error


def _describe(network: GrownNetwork) -> dict[str, Any]:
    """Host and seeds as plain JSON values."""
    if network.recipe is None:
        raise ValueError("`network` must have a recipe, got None. Take it from a population, environment or file.")
    name, settings = _registered_as(network.recipe.host)
    return {
        "host": {"name": name, "settings": settings},
        "seeds": [
            {"slot": slot, "blueprint": seed.blueprint, "operator": seed.operator.name, "alpha": seed.alpha}
            for slot, seed in sorted(network.recipe.seeds.items())
        ],
    }


def _registered_as(host: object) -> tuple[str, dict[str, Any]]:
    """Name and keyword settings under which the registry makes an equal host."""
    name = next((name for name in HOSTS if HOSTS.get(name) is type(host)), None)
    if name is None or not dataclasses.is_dataclass(host):
        raise ValueError(
            f"`network` must have a host that is a registered dataclass, got {type(host).__name__}. Decorate the class "
            "with register_host."
        )
    return name, {field.name: getattr(host, field.name) for field in dataclasses.fields(host) if field.init}


def _host(entry: Mapping[str, Any]) -> Host:
    make = HOSTS.get(_registered(HOSTS, entry["name"]))
    settings = freeze(entry["settings"])
    check_nested("settings", make, settings)
    return make(**settings)


def _seed(entry: Mapping[str, Any]) -> GrownSeed:
    blueprint = _registered(BLUEPRINTS, entry["blueprint"])
    if entry["operator"] not in Operator.__members__:
        names = ", ".join(Operator.__members__)
        raise ValueError(f"`operator` must be one of {names}, got {entry['operator']!r}. Correct it.")
    return GrownSeed(blueprint, Operator[entry["operator"]], float(entry["alpha"]))


def _registered(registry: Registry[Any], name: str) -> str:
    if name not in registry:
        raise ValueError(f"{unknown_name_message(registry.kind, name, registry)} Register it before loading.")
    return name


def _weights(network: GrownNetwork) -> bytes:
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors_of(network).items()})


def _given(example: Tensor | None) -> Tensor:
    if example is None or len(example) < 2:
        raise ValueError(
            f"`example` must be two samples or more for this format, got {None if example is None else len(example)}. "
            "Give some of the task's."
        )
    return example
