"""Contexts: a small grid of cells over the visible facts of an instance, which are known before any training.

One schedule per cell is the strongest control that does not watch the training.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np

from kasmina_env.controllers.policy import Policy, instances_of
from kasmina_env.controllers.schedule import Fixed, actions_from, steps_of
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, FloatArray, IntArray
from kasmina_env.settings.config import is_number
from kasmina_env.settings.documents import read_document, write_document
from kasmina_env.settings.registry import unknown_name_message


@dataclass(frozen=True)
class Context:
    """A cell of the grid.

    Attributes:
        bounds: Lowest and highest value of each entry ``instance.<fact>`` of the observation.
    """

    bounds: Mapping[str, tuple[float, float]]


def make_contexts(entries: Sequence[str], values: FloatArray) -> list[Context]:
    """Cut each fact at its quantiles; cells without instances are left out.

    Args:
        entries: Names of V entries of the observation.
        values: Facts of the I train instances ``[I, V]``, in units of the observation.
    """
    num_cells = 4 if len(entries) == 1 else 2
    edges = [np.quantile(column, np.linspace(0, 1, num_cells + 1)) for column in values.T]
    cells = [
        Context({name: (float(low), float(high)) for name, (low, high) in zip(entries, bounds, strict=True)})
        for bounds in product(*[list(pairwise(e)) for e in edges])
    ]
    used = set(nearest(cells, entries, values).tolist())
    return [cell for i, cell in enumerate(cells) if i in used]


def nearest(contexts: Sequence[Context], entries: Sequence[str], values: FloatArray) -> IntArray:
    """Index ``[N]`` of the cell that each instance lies in or nearest to.

    Args:
        contexts: All C cells.
        entries: Names of V entries of the observation.
        values: Facts of the instances ``[N, V]``, in units of the observation.
    """
    bounds = np.array([[context.bounds[entry] for entry in entries] for context in contexts])  # [C, V, 2]
    low, high = bounds[None, ..., 0], bounds[None, ..., 1]
    here = values[:, None, :]
    outside = np.maximum(np.maximum(low - here, here - high), 0.0)
    return np.asarray(outside.sum(axis=2).argmin(axis=1))


def contexts_of(problem: Problem, facts: Sequence[str] = ()) -> tuple[list[Context], IntArray]:
    """The contexts of a family, and the index of the context of each train instance ``[I]``.

    Args:
        problem: Problem of a family.
        facts: Names of the visible facts that span the grid; all by default.
    """
    train, known = instances_of(problem, "train"), tuple(problem.instances.visible)
    if train is None or not known:
        raise ValueError(f"`env_id` must be of a family with visible facts, got {problem.id!r}. Name another one.")
    for fact in facts:
        if fact not in known:
            raise ValueError(unknown_name_message("facts", fact, known))
    columns = [i for i, fact in enumerate(known) if fact in (facts or known)]
    entries, values = [f"instance.{known[i]}" for i in columns], problem.instances.scaled_facts()[train][:, columns]
    contexts = make_contexts(entries, values)
    return contexts, nearest(contexts, entries, values)


class PerContext(Policy):
    """Policy that plays the schedule of the context it observes, whatever happens in training.

    Args:
        problem: Problem it plays.
        contexts: C cells.
        actions: Flat actions ``[C, T]``, one schedule per cell.
    """

    def __init__(self, problem: Problem, contexts: Sequence[Context], actions: IntArray) -> None:
        self.contexts, self._entries = contexts, tuple(contexts[0].bounds)
        self._columns = [problem.observations.column(entry) for entry in self._entries]
        self.schedules, self._fixed = actions, Fixed(problem, actions)

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        values = observation[:, self._columns].astype(np.float64)
        return self._fixed.act(observation, mask, nearest(self.contexts, self._entries, values))


def save_contexts(
    path: Path,
    problem: Problem,
    found: Sequence[tuple[Context, IntArray, float]],
    about: Mapping[str, Any],
) -> None:
    """Write contexts with their schedules and mean returns as JSON."""
    contexts = [
        {"bounds": context.bounds, "steps": steps_of(actions, problem.actions), "mean_return": value}
        for context, actions, value in found
    ]
    write_document(path, {"id": problem.id, "contexts": contexts, "about": dict(about)}, overwrite=True)


def load_contexts(path: Path, problem: Problem) -> PerContext:
    """Policy from a file that `save_contexts` wrote; anything else is a ``ValueError`` of one sentence."""
    found = read_document(path, "contexts")["contexts"]
    if not isinstance(found, list) or not found:
        raise ValueError(f"`{path.name}` must hold a list of contexts, got {reprlib.repr(found)}. Search again.")
    for entry in found:
        if not _is_context(entry) or entry["bounds"].keys() != found[0]["bounds"].keys():
            raise ValueError(
                f"`{path.name}` must hold equal bounds, each two numbers, and steps in each context, got "
                f"{reprlib.repr(entry)}. Search again."
            )
    contexts = [Context({key: (low, high) for key, (low, high) in entry["bounds"].items()}) for entry in found]
    unknown = [key for key in contexts[0].bounds if key not in problem.observations.names]
    if unknown:
        raise ValueError(f"`{path.name}` must have bounds of what is observed, got {unknown[0]!r}. Search again.")
    actions = np.stack([actions_from(entry["steps"], problem, path.name) for entry in found])
    return PerContext(problem, contexts, actions)


def _is_context(entry: object) -> bool:
    """Whether a JSON value has the form of a context with its schedule."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("bounds"), Mapping) or "steps" not in entry:
        return False
    return all(
        isinstance(pair, list) and len(pair) == 2 and all(map(is_number, pair)) for pair in entry["bounds"].values()
    )
