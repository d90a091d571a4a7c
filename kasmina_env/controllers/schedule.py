"""Schedules: growing plans that do not look at the training. The best of them is the control a learner must beat."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kasmina_env.controllers.policy import Policy
from kasmina_env.episode.actions import ActionTable
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, IntArray
from kasmina_env.lifecycle.state import Op
from kasmina_env.settings.documents import read_document, write_document


@dataclass(frozen=True)
class Planned:
    """One seed of a plan: grown, advanced as soon as that is legal, and then kept or taken away.

    Attributes:
        start: Step at which it is grown.
        slot, blueprint, operator, tempo: Seed to grow.
        prune: Step from which it is pruned, with the quickest ramp, as soon as that is legal; it is never fossilized.
            None for a seed that is fossilized as soon as that is legal.
        curve: Name of the ramp's curve; None for the menu's first.
        target: Alpha to which it is set, with the quickest ramp, as soon as it is blended in; it is never fossilized.
            None for a seed that stays at 1.
    """

    start: int
    slot: str
    blueprint: str
    operator: str
    tempo: int
    prune: int | None = None
    curve: str | None = None
    target: float | None = None

    def action(self, table: ActionTable) -> int:
        """The flat action that grows it."""
        found = table.find(Op.GERMINATE, self.slot, self.blueprint, self.operator, self.tempo, curve=self.curve)
        return int(found[0])


def quickest(table: ActionTable, op: Op, slot: str, target: float | None = None) -> int:
    """The flat action of an operation on a slot with the shortest ramp and the menu's first curve."""
    found = table.find(op, slot, target=target)
    return int(found[table.commands.tempo[found].argmin()])


Plan = tuple[Planned, ...]


def actions_of(plan: Plan, problem: Problem, is_instant: bool | None = None) -> IntArray:
    """A plan as one flat action per step ``[T]``; 0 (WAIT) where no action is due.

    A network takes one action a step. Actions due at the same time queue up: fossilizing first, then pruning and
    setting alpha, advancing, growing.

    Args:
        plan: Seeds to grow.
        problem: Problem that the plan is for.
        is_instant: Whether seeds start at alpha 1; by default the setting `instant` of the problem.
    """
    instant = problem.config.instant if is_instant is None else is_instant
    rank = {Op.FOSSILIZE: 0, Op.PRUNE: 1, Op.SET_ALPHA_TARGET: 1, Op.ADVANCE: 2, Op.GERMINATE: 3}
    actions = np.zeros(problem.horizon, dtype=np.int64)
    due: list[tuple[int, Op, Planned]] = [(seed.start, Op.GERMINATE, seed) for seed in plan]
    for step in range(problem.horizon):
        ready = sorted((e for e in due if e[0] <= step), key=lambda e: (rank[e[1]], e[0], e[2].slot))
        if not ready:
            continue
        due.remove(ready[0])
        _, op, seed = ready[0]
        actions[step] = _action(op, seed, problem.actions)
        if op is Op.GERMINATE and seed.prune is not None:
            due.append((max(seed.prune, step + problem.config.min_prune_age), Op.PRUNE, seed))
        if op is Op.GERMINATE and not instant:
            due.append((step + problem.config.min_training_steps, Op.ADVANCE, seed))
        elif op in (Op.GERMINATE, Op.ADVANCE) and (seed.prune is None or seed.target is not None):
            # a ramp of n steps reaches 1 in the n-th step; fossilizing needs one measurement at alpha 1
            then = Op.FOSSILIZE if seed.target is None else Op.SET_ALPHA_TARGET
            due.append((step + (seed.tempo if op is Op.ADVANCE else 1), then, seed))
        elif op is Op.PRUNE:  # what comes before may still be due
            due = [entry for entry in due if entry[2] != seed]
    return actions


def _action(op: Op, seed: Planned, table: ActionTable) -> int:
    """The flat action that carries out an operation of a plan."""
    if op is Op.GERMINATE:
        return seed.action(table)
    return quickest(table, op, seed.slot, seed.target if op is Op.SET_ALPHA_TARGET else None)


class Fixed(Policy):
    """Policy that plays one schedule, or one per network, whatever happens in training.

    Args:
        problem: Problem it plays.
        actions: Flat action of each step ``[T]``, or of each network and step ``[N, T]``.
    """

    def __init__(self, problem: Problem, actions: IntArray) -> None:
        self._actions = np.atleast_2d(actions)
        self._progress, self._horizon = problem.observations.column("progress"), problem.horizon

    def act(self, observation: Float32Array, mask: BoolArray, schedule: IntArray | None = None) -> IntArray:
        """Choose actions; `schedule` ``[N]`` is the index of each network's schedule, by default its row."""
        step = np.rint(observation[:, self._progress] * self._horizon).astype(np.int64)
        chosen_by = np.arange(len(step)) % len(self._actions) if schedule is None else schedule
        chosen = self._actions[chosen_by, np.minimum(step, self._actions.shape[1] - 1)]
        is_legal = mask[np.arange(len(step)), chosen]
        return np.where(is_legal, chosen, 0)


def plan_of(actions: IntArray, table: ActionTable) -> Plan:
    """Plan of the seeds that a schedule makes permanent, prunes, or leaves at an alpha below 1."""
    started: dict[str | None, Planned] = {}
    usual = table.menus["curve"][0]
    finished: list[Planned] = []
    for step, number in enumerate(actions.tolist()):
        action = table.entry(number)
        if action.op is Op.GERMINATE:
            values = (action.slot, action.blueprint, action.operator, action.tempo)
            seed = Planned(step, *values)  # type: ignore[arg-type]  # a germination has all of them
            started[action.slot] = replace(seed, curve=None if action.curve == usual else action.curve)
        elif action.op is Op.SET_ALPHA_TARGET and action.slot in started:
            target = None if action.target == 1.0 else action.target
            started[action.slot] = replace(started[action.slot], target=target)
        elif action.op in (Op.FOSSILIZE, Op.PRUNE) and action.slot in started:
            seed = started.pop(action.slot)
            finished.append(seed if action.op is Op.FOSSILIZE else replace(seed, prune=step))
    finished += [seed for seed in started.values() if seed.target is not None]
    return tuple(sorted(finished, key=lambda seed: seed.start))


def steps_of(actions: IntArray, table: ActionTable) -> dict[str, str]:
    """A schedule for JSON: name of the action by step, without WAIT."""
    return {str(step): table.names[a] for step, a in enumerate(actions) if a != 0}


def actions_from(steps: Mapping[str, Any], problem: Problem, source: str) -> IntArray:
    """Flat actions ``[T]`` of a schedule from JSON; an action that the problem does not have raises.

    Args:
        steps: Name of the action by step, as from `steps_of`.
        problem: Problem of the schedule.
        source: Name of the file, for error messages.
    """
    if not isinstance(steps, Mapping):
        raise ValueError(f"`{source}` must map steps to actions, got {reprlib.repr(steps)}. Search again.")
    actions = np.zeros(problem.horizon, dtype=np.int64)
    known = {name: number for number, name in enumerate(problem.actions.names)}
    for step, action in steps.items():
        if (
            not isinstance(action, str)
            or action not in known
            or not str(step).isdecimal()
            or int(step) >= problem.horizon
        ):
            raise ValueError(
                f"`{source}` must hold actions of {problem.id} at steps below {problem.horizon}, got {action!r} at "
                f"step {step}. Search again for these settings."
            )
        actions[int(step)] = known[action]
    return actions


def save_schedule(path: Path, problem: Problem, actions: IntArray, about: Mapping[str, Any]) -> None:
    """Write a schedule as JSON."""
    document = {"id": problem.id, "steps": steps_of(actions, problem.actions), "about": dict(about)}
    write_document(path, document, overwrite=True)


def load_schedule(path: Path, problem: Problem) -> IntArray:
    """Read a schedule as flat actions ``[T]``; an action that the problem does not have raises."""
    return actions_from(read_document(path, "steps")["steps"], problem, path.name)


def schedule_in_words(actions: Sequence[int] | IntArray, table: ActionTable) -> str:
    """A schedule in one line, without WAIT and ADVANCE."""
    hidden = (Op.WAIT, Op.ADVANCE)
    words = [f"{step}: {table.names[a]}" for step, a in enumerate(actions) if a >= 0 and table.op[a] not in hidden]
    return ", ".join(words) or "WAIT throughout"
