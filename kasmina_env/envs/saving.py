"""Environments on disk: episodes with everything that their future, and the episodes after them, depend on.

A file holds the arrays of a snapshot, and in its header the problem it is of and where each array belongs. It fits the
environments of an equal problem with as many rows, however they are spread over processes and devices.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kasmina_env.envs.streams import EnvSnapshot
from kasmina_env.episode.core import CoreSnapshot
from kasmina_env.episode.episodes import EpisodesSnapshot
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import BoolArray
from kasmina_env.networks.tensor_file import checksum, describe, read_file, to_bytes
from kasmina_env.networks.tensor_tree import Packed, pack, unpack
from kasmina_env.settings.documents import to_json, write_file

KIND, SCHEMA = "episodes", 1
KEYS = ("id", "config", "parts", "dtype", "rows", "content")
SUFFIX = ".safetensors"
NAME = "episodes"  # before the names of the tensors


@dataclasses.dataclass(frozen=True, eq=False)
class Content:
    """Episodes and their streams, without the problem. R episodes."""

    episodes: CoreSnapshot
    generators: tuple[np.random.Generator, ...]
    is_test: BoolArray  # [R]


def save_snapshot(path: Path | str, problem: Problem, saved: EnvSnapshot, overwrite: bool = False) -> None:
    """Write episodes to a file, whole or not at all.

    Args:
        path: Ends in ``.safetensors``.
        problem: Problem of the episodes.
        saved: Episodes.
        overwrite: Whether to replace a file that exists.

    Raises:
        ValueError: If the path ends in something else, or a setting of the problem is not a plain JSON value.
        FileExistsError: If the file exists.
        OSError: If it cannot be written; then nothing has changed.
    """
    document, packed = describe_snapshot(problem, saved)
    write_file(_checked(path), to_bytes(describe(KIND, SCHEMA, document), packed.tensors), overwrite)


def load_snapshot(path: Path | str, problem: Problem, num_rows: int, dtype: torch.dtype) -> EnvSnapshot:
    """Read episodes from a file.

    Args:
        path: A file of `save_snapshot`.
        problem: Problem that they must be of.
        num_rows: Number of episodes that it must hold.
        dtype: Floating-point type that their networks must have.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or of another version, problem, number or type.
    """
    document, tensors = read_file(_checked(path), KIND, SCHEMA, *KEYS)
    return read_snapshot(path, document, tensors, problem, num_rows, dtype)


def describe_snapshot(problem: Problem, saved: EnvSnapshot) -> tuple[dict[str, Any], Packed]:
    """Document of a file of episodes, and what it holds."""
    packed = pack(Content(saved.episodes.content, saved.generators, saved.is_test), NAME)
    document = {
        "id": problem.id,
        "config": dataclasses.asdict(problem.config),
        "parts": _parts(problem),
        "dtype": str(saved.episodes.dtype),
        "rows": len(saved),
        "content": packed.tree,
    }
    return document, packed


def read_snapshot(
    path: Path | str,
    document: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    problem: Problem,
    num_rows: int,
    dtype: torch.dtype,
) -> EnvSnapshot:
    """Episodes of a document and the tensors of its file; see `load_snapshot`."""
    own, theirs = json.loads(to_json("config", dataclasses.asdict(problem.config))), document["config"]
    differs = [name for name in {**own, **theirs} if own.get(name) != theirs.get(name)]
    if differs:
        raise ValueError(
            f"`{path}` must hold episodes of an equal problem, got {document['id']} with another {', '.join(differs)}."
        )
    for what, fingerprint in _parts(problem).items():
        if document["parts"].get(what) != fingerprint:
            raise ValueError(
                f"`{path}` must hold episodes of an equal problem, got one whose {what} are others of the same names."
            )
    for what, found, wanted in (("rows", document["rows"], num_rows), ("dtype", document["dtype"], str(dtype))):
        if found != wanted:
            raise ValueError(f"`{path}` must be of an environment with {what} {wanted}, got {found}.")
    try:
        content: Content = unpack(Packed(document["content"], tensors), Content, NAME)
    except ValueError as error:
        raise ValueError(f"`{path}` must hold episodes as this version has them: {error}. Save them again.") from error
    episodes = EpisodesSnapshot(problem.config, dtype, content.episodes)
    return EnvSnapshot(episodes, content.generators, content.is_test)


def _checked(path: Path | str) -> Path:
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"`path` must end in {SUFFIX}, got {path.name!r}. Name another file.")
    return path


def _parts(problem: Problem) -> dict[str, str]:
    """Fingerprints of the parts of a problem that may differ under equal names."""
    found = {
        "observations": problem.observations.names,
        "actions": problem.actions.names,
        "rewards": tuple(problem.reward.terms),
        "networks": (problem.costs.host_parameters, problem.costs.seed_parameters),
        "instances": problem.instances,
    }
    packed = {name: pack(value) for name, value in found.items()}
    return {name: checksum(to_json(name, {"tree": part.tree}), part.tensors) for name, part in packed.items()}
