"""Tensors in a ``.safetensors`` file, with a JSON document about them in its header and a checksum of both.

Nothing in such a file is ever unpickled. What a document says is up to its kind: a grown network, episodes, a training
run. A document has its kind and the version of its format besides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kasmina_env.settings.documents import from_json, to_json

DESCRIPTION, CHECKSUM = "kasmina_env", "kasmina_env.sha256"  # keys in the header


def describe(kind: str, schema: int, document: Mapping[str, Any]) -> str:
    """JSON text of a document, with its kind and the version of its format; a ``ValueError`` if it is not plain."""
    return to_json(kind, {"kind": kind, "schema": schema, **document})


def seal(text: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Header of a file: the text, and the checksum of text and tensors."""
    return {DESCRIPTION: text, CHECKSUM: checksum(text, tensors)}


def to_bytes(text: str, tensors: Mapping[str, Tensor]) -> bytes:
    """Content of a file."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(whole, seal(text, whole))


def read_file(path: Path, kind: str, schema: int, *keys: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read document and tensors.

    Args:
        path: File to read.
        kind: Kind that the document must be of.
        schema: Version of its format.
        *keys: Keys it must have.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, of another kind or version.
    """
    header, tensors = read_safetensors(path)
    return read_header(path, header, kind, schema, keys, tensors), tensors


def read_header(
    path: Path,
    header: Mapping[str, str],
    kind: str,
    schema: int,
    keys: tuple[str, ...],
    tensors: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """Document of a file, once it is known to be of this kind and version, and undamaged where tensors are given."""
    if DESCRIPTION not in header:
        raise ValueError(
            f"`{path}` must be a whole file of a {kind} saved by kasmina_env, got one without a description in it."
        )
    text = header[DESCRIPTION]
    document = from_json(f"the description in {path}", text, "kind", "schema")
    for key, wanted in (("kind", kind), ("schema", schema)):
        if document[key] != wanted:
            raise ValueError(
                f"`{path}` must have {wanted!r} as {key}, got {document[key]!r}. Save it with this version."
            )
    if tensors is not None and header.get(CHECKSUM) != checksum(text, tensors):
        raise ValueError(f"`{path}` must be as it was written, got content of another checksum. Save it again.")
    missing = [key for key in keys if key not in document]
    if missing:
        raise ValueError(f"`{path}` must have the key {missing[0]!r} in its description, got none. Save it again.")
    return document


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors of any ``.safetensors`` file."""
    check_is_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, UnicodeDecodeError) as error:
        raise ValueError(f"`{path}` must be a whole .safetensors file, got a damaged one: {error}.") from error


def check_is_file(path: Path) -> None:
    """Raise a ``FileNotFoundError`` if there is no such file."""
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be a file that exists, got {path}. Name another one.")


def checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a text and of tensors with their names, types and shapes."""
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
