"""Schedules: growing plans that do not look at the training. The best of them is the control a learner must beat."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kasmina_env.controllers.policy import Names
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, IntArray
from kasmina_env.settings.documents import read_document


@dataclass(frozen=True)
class Planned:
    """One seed of a plan: grown at a step, advanced as soon as it may, fossilized as soon as it may."""

    start: int
    slot: str
    blueprint: str
    operator: str
    tempo: int

    @property
    def action(self) -> str:
        return f"GERMINATE {self.slot} {self.blueprint} {self.operator} tempo{self.tempo}"


Plan = tuple[Planned, ...]


def actions_of(plan: Plan, names: Names, min_training_steps: int, instant: bool) -> IntArray:
    """Write a plan out as one flat action per step, ``[T]``; 0 (WAIT) where nothing is due.

    One network takes one action a step, so what is due at the same time queues up: fossilizing first, then advancing,
    then growing.
    """
    actions = np.zeros(names.horizon, dtype=np.int64)
    index = {name: i for i, name in enumerate(names.action)}
    due: list[tuple[int, int, str, Planned]] = [(p.start, 2, "GERMINATE", p) for p in plan]
    for step in range(names.horizon):
        ready = sorted((entry for entry in due if entry[0] <= step), key=lambda e: (e[1], e[0], e[3].slot))
        if not ready:
            continue
        entry = ready[0]
        due.remove(entry)
        _, _, op, seed = entry
        actions[step] = index[seed.action if op == "GERMINATE" else f"{op} {seed.slot}"]
        if op == "GERMINATE" and not instant:
            due.append((step + min_training_steps, 1, "ADVANCE", seed))
        elif op != "FOSSILIZE":
            # a ramp of n steps reaches 1 in the n-th step; fossilizing needs one measurement at alpha 1
            due.append((step + (seed.tempo if op == "ADVANCE" else 1), 0, "FOSSILIZE", seed))
    return actions


class Fixed:
    """Plays one schedule, or one for each network, by the clock.

    Args:
        names: Of the environment.
        actions: Flat action of each step ``[T]``, or of each network and step ``[N, T]``.
    """

    def __init__(self, names: Names, actions: IntArray) -> None:
        self._actions = np.atleast_2d(actions)
        self._progress, self._horizon = names.column("progress"), names.horizon

    def act(self, observation: Float32Array, mask: BoolArray, schedule: IntArray | None = None) -> IntArray:
        """Choose; `schedule` ``[N]`` says which one each network follows, by default the one of its row."""
        step = np.rint(observation[:, self._progress] * self._horizon).astype(np.int64)
        chosen_by = np.arange(len(step)) % len(self._actions) if schedule is None else schedule
        chosen = self._actions[chosen_by, np.minimum(step, self._actions.shape[1] - 1)]
        is_legal = mask[np.arange(len(step)), chosen]
        return np.where(is_legal, chosen, 0)


def plan_of(actions: IntArray, names: Names) -> Plan:
    """The seeds that a schedule makes permanent, as a plan."""
    started: dict[str, Planned] = {}
    kept: list[Planned] = []
    for step, action in enumerate(actions):
        op, *words = names.action[action].split()
        if op == "GERMINATE":
            slot, blueprint, operator, tempo = words
            started[slot] = Planned(step, slot, blueprint, operator, int(tempo.removeprefix("tempo")))
        elif op == "FOSSILIZE":
            kept.append(started[words[0]])
    return tuple(sorted(kept, key=lambda seed: seed.start))


def steps_of(actions: IntArray, names: Names) -> dict[str, str]:
    """A schedule as JSON values: step to name of the action, WAIT left out."""
    return {str(step): names.action[a] for step, a in enumerate(actions) if a != 0}


def actions_from(steps: Mapping[str, str], names: Names, source: str) -> IntArray:
    """A schedule from JSON values as flat actions ``[T]``; an action the environment does not have raises.

    Args:
        steps: As `steps_of` makes them.
        names: Of the environment.
        source: Where they are from, for the message.
    """
    if not isinstance(steps, Mapping):
        raise ValueError(f"`{source}` must map steps to actions, got {reprlib.repr(steps)}. Search again.")
    actions = np.zeros(names.horizon, dtype=np.int64)
    for step, action in steps.items():
        if action not in names.action or not 0 <= int(step) < names.horizon:
            raise ValueError(
                f"`{source}` must hold actions of the environment at steps below {names.horizon}, got {action!r} at "
                f"step {step}. Search again for these settings."
            )
        actions[int(step)] = names.action.index(action)
    return actions


def save_schedule(path: Path, preset: str, names: Names, actions: IntArray, about: Mapping[str, Any]) -> None:
    """Write a schedule as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"id": preset, "steps": steps_of(actions, names), "about": dict(about)}
    path.write_text(json.dumps(document, indent=2) + "\n")


def load_schedule(path: Path, names: Names) -> IntArray:
    """Read a schedule back as flat actions ``[T]``; an action the environment does not have raises."""
    return actions_from(read_document(path, "steps")["steps"], names, path.name)


def describe(actions: Sequence[int] | IntArray, names: Names) -> str:
    """A schedule in one line, WAIT and ADVANCE left out."""
    words = [(step, names.action[a]) for step, a in enumerate(actions) if a > 0]
    return ", ".join(f"{step}: {name}" for step, name in words if not name.startswith("ADVANCE")) or "WAIT throughout"
