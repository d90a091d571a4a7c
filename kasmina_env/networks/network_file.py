"""Grown networks as files: the weights, and inside the same file a description of the network.

The description is JSON: the host by its registered name and settings, the seeds as plain data, what the user wants to
keep with the network, the version of this format. It lies in the header of ``.safetensors``, among the extra files of
``.pt2`` and in the metadata properties of ``.onnx``, with a checksum of itself and of the weights. A file is written as
a whole and nothing in it is ever unpickled here. What a user registered must be registered again before loading.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from kasmina_env.networks.blueprints import BLUEPRINTS
from kasmina_env.networks.grown import (
    GrownNetwork,
    GrownSeed,
    NetworkSpec,
    build_network,
    check_as_built,
    check_onnx,
    spec_of,
    tensors_of,
    to_onnx,
    to_program,
)
from kasmina_env.networks.hosts import HOSTS, Host
from kasmina_env.networks.tensor_file import (
    CHECKSUM,
    DESCRIPTION,
    check_is_file,
    describe,
    read_file,
    read_header,
    seal,
    to_bytes,
)
from kasmina_env.settings.config import Operator, check_nested, freeze
from kasmina_env.settings.documents import check_new, from_json, to_json, write_file
from kasmina_env.settings.registry import Registry, unknown_name_message

KIND, SCHEMA = "grown network", 2
KEYS = ("host", "seeds", "metadata")
SUFFIXES = (".safetensors", ".pt2", ".onnx")


def check_path(path: Path, overwrite: bool = False) -> None:
    """Raise if `save_network` could not write there: before work is done that could not be kept."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"`path` must end in {', '.join(SUFFIXES)}, got {path.name!r}. Name another file.")
    if path.suffix == ".onnx":
        check_onnx()
    if not overwrite:
        check_new(path)


def save_network(
    network: GrownNetwork,
    path: Path | str,
    metadata: Mapping[str, Any] | None = None,
    example: Tensor | None = None,
    overwrite: bool = False,
) -> None:
    """Write a network to one file.

    ``.safetensors`` holds weights, so a network that was edited can be saved only as far as its host and seeds still
    describe it: other weights, another alpha, a seed less. The other formats hold the computation, and so any network.

    Args:
        network: From `Population.network`, the environments' ``network``, or `load_network`.
        path: Ends in ``.safetensors`` (for `load_network`), ``.pt2`` (for `torch.export.load`) or ``.onnx``; the
            latter two run without kasmina_env.
        metadata: Plain JSON values to keep with it, such as its origin and its score.
        example: Two or more samples ``[B, *input_shape]``; ``.pt2`` and ``.onnx`` need them.
        overwrite: Whether to replace a file that exists.

    Raises:
        ValueError: If the path ends in something else, the metadata are not JSON, or `load_network` would build
            another network than this one.
        FileExistsError: If the file exists.
    """
    path = Path(path)
    check_path(path, overwrite)
    kept = dict(metadata or {})
    to_json("metadata", kept)  # before the network is described, so that the message names what is wrong
    if path.suffix == ".safetensors":
        structure = _structure(network)
    else:
        structure = {"host": None, "seeds": None}
        with suppress(ValueError):  # a program says itself what it computes
            structure = _structure(network)
    text, tensors = describe(KIND, SCHEMA, {**structure, "metadata": kept}), tensors_of(network)
    if path.suffix == ".safetensors":
        content = to_bytes(text, tensors)
    elif path.suffix == ".pt2":
        content = to_program(network, _given(example), seal(text, tensors))
    else:
        content = to_onnx(network, _given(example), seal(text, tensors))
    write_file(path, content, overwrite)


def load_network(path: Path | str) -> GrownNetwork:
    """Rebuild a network from ``NAME.safetensors``, in evaluation mode: its outputs are the same bit for bit.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, of another schema, or of a host or blueprint that is not registered here.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(
            f"`path` must end in .safetensors, got {path.name!r}. Other formats have loaders of their own."
        )
    document, tensors = read_file(path, KIND, SCHEMA, *KEYS)
    try:
        return build_network(_read_spec(document), tensors)
    except KeyError as error:
        raise ValueError(f"`{path}` must have the key {error} in its description, got none. Save it again.") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{path}` must be of a network that can be built here: {error}") from error


def read_description(path: Path | str) -> dict[str, Any]:
    """Description inside a file of any of the formats: its "host", its "seeds", and the "metadata" it was saved with.

    Host and seeds are None in a program of a network that no registered host and blueprints build.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or has no description.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return read_file(path, KIND, SCHEMA, *KEYS)[0]
    if path.suffix == ".pt2":
        return read_header(path, _read_program(path), KIND, SCHEMA, KEYS)
    if path.suffix == ".onnx":
        return read_header(path, _read_onnx(path), KIND, SCHEMA, KEYS)
    raise ValueError(f"`path` must end in {', '.join(SUFFIXES)}, got {path.name!r}. Name another file.")


# ── the description ─────────────────────────────────────────────────────────────────────────────


def _structure(network: GrownNetwork) -> dict[str, Any]:
    """Host and seeds as plain JSON values, from which `load_network` builds this very network."""
    spec = spec_of(network)
    name, settings = _registered_as(spec.host)
    structure = {
        "host": {"name": name, "settings": settings},
        "seeds": [
            {"slot": slot, "blueprint": seed.blueprint, "operator": seed.operator.name, "alpha": seed.alpha}
            for slot, seed in sorted(spec.seeds.items())
        ],
    }
    check_as_built(network, _read_spec(from_json("network", to_json("network", structure))))
    return structure


def _registered_as(host: object) -> tuple[str, dict[str, Any]]:
    """Name and keyword settings under which the registry makes an equal host."""
    name = next((name for name in HOSTS if HOSTS.get(name) is type(host)), None)
    if name is None or not dataclasses.is_dataclass(host):
        raise ValueError(
            f"`network` must have a host that is a registered dataclass, got {type(host).__name__}. Decorate the class "
            "with register_host."
        )
    return name, {field.name: getattr(host, field.name) for field in dataclasses.fields(host) if field.init}


def _read_spec(document: Mapping[str, Any]) -> NetworkSpec:
    host = _host(document["host"])
    return NetworkSpec(host, {int(entry["slot"]): _seed(entry) for entry in document["seeds"]})


def _host(entry: Mapping[str, Any]) -> Host:
    make = HOSTS.get(_registered(HOSTS, entry["name"]))
    settings = freeze(entry["settings"])
    check_nested("settings", make, settings)
    return make(**settings)


def _seed(entry: Mapping[str, Any]) -> GrownSeed:
    blueprint = _registered(BLUEPRINTS, entry["blueprint"])
    if entry["operator"] not in Operator.__members__:
        raise ValueError(unknown_name_message("operator", entry["operator"], Operator.__members__))
    return GrownSeed(blueprint, Operator[entry["operator"]], float(entry["alpha"]))


def _registered(registry: Registry[Any], name: str) -> str:
    if name not in registry:
        raise ValueError(f"{unknown_name_message(registry.kind, name, registry)} Register it before loading.")
    return name


def _given(example: Tensor | None) -> Tensor:
    if example is None or len(example) < 2:
        raise ValueError(
            f"`example` must be two samples or more for this format, got {None if example is None else len(example)}. "
            "Give some of the task's."
        )
    return example


# ── inside the file ─────────────────────────────────────────────────────────────────────────────


def _read_program(path: Path) -> dict[str, str]:
    check_is_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            found = {PurePosixPath(name).name: name for name in archive.namelist()}
            return {key: archive.read(found[key]).decode() for key in (DESCRIPTION, CHECKSUM) if key in found}
    except (zipfile.BadZipFile, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"`{path}` must be a whole .pt2 file, got a damaged one: {error}.") from error


def _read_onnx(path: Path) -> dict[str, str]:
    check_onnx()
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import load_model

    check_is_file(path)
    try:
        return {entry.key: entry.value for entry in load_model(path).metadata_props}
    except DecodeError as error:
        raise ValueError(f"`{path}` must be a whole .onnx file, got a damaged one: {error}.") from error
