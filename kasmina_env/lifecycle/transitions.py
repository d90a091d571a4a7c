"""The life of a seed in a slot, as one table of transitions.

`legality.py` computes from it what may be done, `execution.py` does it and lets time pass, and `rules_table` explains
it: all read `TRANSITIONS` and `ARGUMENT_RULES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from kasmina_env.lifecycle import alpha as ramps
from kasmina_env.lifecycle.alpha import Curve
from kasmina_env.lifecycle.arrays import BoolArray, IntArray
from kasmina_env.lifecycle.state import NONE, Commands, LifecycleState, Op, SeedMeasurements, Stage, Thresholds

SlotIndex: TypeAlias = tuple[slice | IntArray, IntArray]  # rows and slots of an [N, S] array


@dataclass(frozen=True)
class Guard:
    """Something that must be true of a slot before a transition."""

    words: str  # the requirement; {name} stands for a field of Thresholds
    # (state, measurements, thresholds) -> [N, S], or one bool where it depends on the thresholds alone
    holds: Callable[[LifecycleState, SeedMeasurements, Thresholds], BoolArray | bool]


# (state, where [N, S], commands) -> the state with everything set there but the stage. A tick passes WAIT as commands.
Effect = Callable[[LifecycleState, BoolArray, Commands], LifecycleState]


@dataclass(frozen=True)
class Transition:
    """One row of the table: a way from `stage` to `next_stage`."""

    stage: Stage
    cause: Op | None  # None: the passing of time
    next_stage: Stage
    guards: tuple[str, ...]  # names in GUARDS, all of which must hold
    effect: Effect
    words: str  # one sentence for the documentation


@dataclass(frozen=True)
class ArgumentRule:
    """A requirement on the arguments of some operations."""

    ops: tuple[Op, ...]
    words: str
    # (state, index of the commands' slots in it, C commands) -> [C], or [N, C] where the index takes all networks
    holds: Callable[[LifecycleState, SlotIndex, Commands], BoolArray]

    @cached_property
    def is_about(self) -> BoolArray:
        """True for the operations, [len(Op)]."""
        return np.isin(np.arange(len(Op)), self.ops)


def _contributes(state: LifecycleState, measurements: SeedMeasurements, thresholds: Thresholds) -> BoolArray:
    minimum = -math.inf if thresholds.min_contribution is None else thresholds.min_contribution
    return np.asarray(measurements.has_contribution & (measurements.contribution >= minimum))


# fmt: off
GUARDS: dict[str, Guard] = {
    "staged": Guard("instant = False", lambda state, measurements, thresholds: not thresholds.instant),
    "instant": Guard("instant = True", lambda state, measurements, thresholds: thresholds.instant),
    "trained_enough": Guard(
        "{min_training_steps} or more steps in TRAINING",
        lambda state, measurements, thresholds: state.steps_in_stage >= thresholds.min_training_steps),
    "finite_gradients": Guard(
        "finite gradients", lambda state, measurements, thresholds: measurements.has_finite_gradients),
    "old_enough": Guard(
        "{min_prune_age} or more steps since germination",
        lambda state, measurements, thresholds: state.age >= thresholds.min_prune_age),
    "at_rest": Guard("alpha at rest", lambda state, measurements, thresholds: state.alpha.is_at_rest),
    "alpha_is_one": Guard("alpha = 1", lambda state, measurements, thresholds: state.alpha.target == 1.0),
    "alpha_is_zero": Guard("alpha = 0", lambda state, measurements, thresholds: state.alpha.target == 0.0),
    "pruning": Guard("being pruned", lambda state, measurements, thresholds: state.is_pruning),
    "not_pruning": Guard("not being pruned", lambda state, measurements, thresholds: ~state.is_pruning),
    "contributes": Guard("a measured contribution, minimum {min_contribution}", _contributes),
    "embargo_over": Guard(
        "{embargo_steps} or more ticks in EMBARGOED",
        lambda state, measurements, thresholds: state.steps_in_stage >= thresholds.embargo_steps),
}
# fmt: on


def _keep(state: LifecycleState, where: BoolArray, commands: Commands) -> LifecycleState:
    return state


def _plant(state: LifecycleState, where: BoolArray, commands: Commands) -> LifecycleState:
    return replace(
        state,
        blueprint=np.where(where, commands.blueprint[:, None], state.blueprint),
        operator=np.where(where, commands.operator[:, None], state.operator),
        tempo=np.where(where, _ramp_steps(commands), state.tempo),
        curve=np.where(where, commands.curve[:, None], state.curve),
    )


def _hold_at_one(state: LifecycleState, where: BoolArray, commands: Commands) -> LifecycleState:
    return replace(state, alpha=ramps.hold(state.alpha, where, 1.0))


def _plant_at_one(state: LifecycleState, where: BoolArray, commands: Commands) -> LifecycleState:
    return _hold_at_one(_plant(state, where, commands), where, commands)


def _ramp_to_one(state: LifecycleState, where: BoolArray, commands: Commands) -> LifecycleState:
    return replace(state, alpha=ramps.retarget(state.alpha, where, 1.0, state.tempo, state.curve))


def _ramp_to_target(state: LifecycleState, where: BoolArray, commands: Commands) -> LifecycleState:
    target, curve = commands.target[:, None], commands.curve[:, None]
    return replace(state, alpha=ramps.retarget(state.alpha, where, target, _ramp_steps(commands), curve))


def _ramp_to_zero(state: LifecycleState, where: BoolArray, commands: Commands) -> LifecycleState:
    steps, curve = _ramp_steps(commands), commands.curve[:, None]
    alpha = ramps.retarget(state.alpha, where, 0.0, steps, curve, interrupt=True)
    return replace(state, alpha=alpha, is_pruning=state.is_pruning | where)


def _remove(state: LifecycleState, where: BoolArray, commands: Commands) -> LifecycleState:
    return replace(
        state,
        blueprint=np.where(where, NONE, state.blueprint),
        operator=np.where(where, NONE, state.operator),
        tempo=np.where(where, 0, state.tempo),
        curve=np.where(where, 0, state.curve),
        age=np.where(where, 0, state.age),
        is_pruning=state.is_pruning & ~where,
        alpha=ramps.hold(state.alpha, where, 0.0),
    )


def _ramp_steps(commands: Commands) -> IntArray:
    return np.maximum(commands.tempo, 0)[:, None]


# fmt: off
# A tick goes through its rows from top to bottom, so one row may lead to the next in the same tick.
REMOVAL = Transition(Stage.BLENDING, None, Stage.EMBARGOED, ("pruning", "at_rest", "alpha_is_zero"), _remove,
                     "The seed is removed on the very tick its alpha reaches 0.")
TRANSITIONS: tuple[Transition, ...] = (
    Transition(Stage.DORMANT, Op.GERMINATE, Stage.TRAINING, ("staged",), _plant,
               "A new seed learns in the slot without changing the network's output."),
    Transition(Stage.DORMANT, Op.GERMINATE, Stage.HOLDING, ("instant",), _plant_at_one,
               "A new seed joins the network at once at alpha 1."),
    Transition(Stage.TRAINING, Op.ADVANCE, Stage.BLENDING, ("trained_enough", "finite_gradients"), _ramp_to_one,
               "Alpha ramps to 1 over the tempo and curve chosen at germination."),
    Transition(Stage.TRAINING, Op.PRUNE, Stage.EMBARGOED, ("old_enough",), _remove,
               "The seed was never part of the output, so it is removed at once, whatever the tempo."),
    Transition(Stage.BLENDING, Op.SET_ALPHA_TARGET, Stage.BLENDING, ("at_rest", "not_pruning"), _ramp_to_target,
               "Alpha ramps from where it rests to the new target."),
    Transition(Stage.BLENDING, Op.PRUNE, Stage.BLENDING, ("old_enough",), _ramp_to_zero,
               "Alpha ramps to 0, even from within a ramp; at tempo 0 the seed is removed at once."),
    REMOVAL,
    Transition(Stage.BLENDING, None, Stage.HOLDING, ("not_pruning", "at_rest", "alpha_is_one"), _hold_at_one,
               "The seed is fully blended in."),
    Transition(Stage.HOLDING, Op.SET_ALPHA_TARGET, Stage.BLENDING, ("at_rest",), _ramp_to_target,
               "Alpha ramps down from 1 to the new target."),
    Transition(Stage.HOLDING, Op.PRUNE, Stage.BLENDING, ("old_enough",), _ramp_to_zero,
               "Alpha ramps to 0 over the tempo; at tempo 0 the seed is removed at once."),
    Transition(Stage.HOLDING, Op.FOSSILIZE, Stage.FOSSILIZED, ("contributes",), _keep,
               "The seed becomes a permanent part of the network and keeps training."),
    Transition(Stage.EMBARGOED, None, Stage.DORMANT, ("embargo_over",), _keep, "The slot is free again."),
)

ARGUMENT_RULES: tuple[ArgumentRule, ...] = (
    ArgumentRule(
        (Op.GERMINATE,), "a blueprint and an operator",
        lambda state, here, commands: (commands.blueprint >= 0) & (commands.operator >= 0)),
    ArgumentRule(
        (Op.GERMINATE, Op.SET_ALPHA_TARGET, Op.PRUNE), "a known curve",
        lambda state, here, commands: (commands.curve >= 0) & (commands.curve < len(Curve))),
    ArgumentRule(
        (Op.SET_ALPHA_TARGET,), "a target in [0, 1] other than alpha",
        lambda state, here, commands:
            (commands.target >= 0) & (commands.target <= 1) & (commands.target != state.alpha.value[here])),
    ArgumentRule(
        (Op.PRUNE,), "a tempo that ends a prune under way sooner",
        lambda state, here, commands:
            ~state.is_pruning[here] | (np.maximum(commands.tempo, 0) < state.alpha.remaining[here])),
)
# fmt: on


def fires(row: Transition, state: LifecycleState, measurements: SeedMeasurements, thresholds: Thresholds) -> BoolArray:
    """Slots where a row of the table applies, given its cause: stage and all guards, [N, S]."""
    mask = np.asarray(state.stage == row.stage)
    for name in row.guards:
        mask = mask & GUARDS[name].holds(state, measurements, thresholds)
    return mask


def rules_table(thresholds: Thresholds) -> list[tuple[str, str, str, str, str]]:
    """The lifecycle in words: rows (stage, operation, next stage, requirements, meaning)."""
    table = [("any", Op.WAIT.name, "unchanged", "", "The controller changes nothing.")]
    values = asdict(thresholds)
    for row in TRANSITIONS:
        words = [GUARDS[name].words.format(**values) for name in row.guards]
        words += [rule.words for rule in ARGUMENT_RULES if row.cause in rule.ops]
        cause = "tick" if row.cause is None else row.cause.name
        table.append((row.stage.name, cause, row.next_stage.name, ", ".join(words), row.words))
    return table
