"""The life of a seed in a slot, as one table of transitions.

`legal_commands` says what may be done, `apply` does it, `tick` lets one step pass, and
`kasmina_env.envs.render.rules_table` explains it: all four read `TRANSITIONS` and `ARGUMENT_RULES`. One step of an
environment is `apply`, `tick`, training, evaluation.

N networks, S slots. States are frozen dataclasses of arrays and are never changed in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import TypeAlias

import numpy as np

from kasmina_env.lifecycle import alpha as ramps
from kasmina_env.lifecycle.alpha import AlphaSchedule, Curve
from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray

SlotIndex: TypeAlias = tuple[slice | IntArray, IntArray]  # rows and slots of an [N, S] array

MAX_STEPS = 100_000  # the longest episode
NONE = -1  # blueprint and operator of a slot without a seed


class Stage(IntEnum):
    """Stage of a slot."""

    DORMANT = 0
    TRAINING = 1
    BLENDING = 2
    HOLDING = 3
    FOSSILIZED = 4
    EMBARGOED = 5


class Op(IntEnum):
    """Operation of a controller on a slot."""

    WAIT = 0
    GERMINATE = 1
    ADVANCE = 2
    SET_ALPHA_TARGET = 3
    PRUNE = 4
    FOSSILIZE = 5


SEED_STAGES = (Stage.TRAINING, Stage.BLENDING, Stage.HOLDING, Stage.FOSSILIZED)
LIVE_STAGES = (Stage.BLENDING, Stage.HOLDING, Stage.FOSSILIZED)
_HAS_SEED = np.array([stage in SEED_STAGES for stage in Stage])  # [len(Stage)]
_IS_LIVE = np.array([stage in LIVE_STAGES for stage in Stage])  # [len(Stage)]


@dataclass(frozen=True)
class LifecycleRules:
    """Thresholds of the lifecycle. A value out of its range is a ValueError."""

    min_training_steps: int = 2  # steps a seed must spend in TRAINING before ADVANCE
    min_prune_age: int = 2  # steps since germination before PRUNE
    embargo_steps: int = 3  # ticks a slot stays EMBARGOED after its seed was removed
    min_contribution: float | None = None  # for FOSSILIZE, in accuracy; None asks only for a measured one
    instant: bool = False  # a germinated seed is in HOLDING at alpha 1 at once

    def __post_init__(self) -> None:
        for name in ("min_training_steps", "min_prune_age", "embargo_steps"):
            steps = getattr(self, name)
            if type(steps) is not int or not 0 <= steps <= MAX_STEPS:
                raise ValueError(f"`{name}` must be an integer from 0 to {MAX_STEPS}, got {steps!r}. It counts steps.")
        least = self.min_contribution
        if least is not None and (type(least) not in (int, float) or not -1 <= least <= 1):
            raise ValueError(f"`min_contribution` must be a number from -1 to 1, got {least!r}. Or use None.")
        if type(self.instant) is not bool:
            raise ValueError(f"`instant` must be True or False, got {self.instant!r}. Use a bool.")


@dataclass(frozen=True, eq=False)
class LifecycleState:
    """Content of every slot of every network. N networks, S slots."""

    stage: IntArray  # [N, S] members of Stage
    blueprint: IntArray  # [N, S] index into the menu of blueprints, NONE without a seed
    operator: IntArray  # [N, S] index into the menu of blend operators, NONE without a seed
    tempo: IntArray  # [N, S] steps of the ramp that ADVANCE will start, chosen at GERMINATE
    curve: IntArray  # [N, S] its Curve, chosen at GERMINATE
    steps_in_stage: IntArray  # [N, S] ticks since the stage was entered
    age: IntArray  # [N, S] ticks since germination, 0 without a seed
    is_pruning: BoolArray  # [N, S] True while alpha ramps down to the removal of the seed
    alpha: AlphaSchedule  # of [N, S]

    @classmethod
    def dormant(cls, num_networks: int, num_slots: int) -> LifecycleState:
        """All slots empty and free."""
        shape = (num_networks, num_slots)
        stage, tempo, curve, steps, age = np.zeros((5, *shape), dtype=np.int64)
        blueprint, operator = np.full((2, *shape), NONE, dtype=np.int64)
        is_pruning = np.zeros(shape, dtype=np.bool_)
        alpha = AlphaSchedule.constant(shape)
        return cls(stage, blueprint, operator, tempo, curve, steps, age, is_pruning, alpha)

    @property
    def has_seed(self) -> BoolArray:
        """True where a seed is in the slot, [N, S]."""
        return np.asarray(_HAS_SEED[self.stage])

    @property
    def is_live(self) -> BoolArray:
        """True where the seed is part of the network's output, at its alpha, [N, S]."""
        return np.asarray(_IS_LIVE[self.stage])


@dataclass(frozen=True, eq=False)
class SeedMeasurements:
    """Measurements of the seeds that decide what is legal. N networks, S slots."""

    has_finite_gradients: BoolArray  # [N, S]
    contribution: FloatArray  # [N, S] read only where has_contribution
    has_contribution: BoolArray  # [N, S] True where it was measured

    @classmethod
    def unmeasured(cls, num_networks: int, num_slots: int) -> SeedMeasurements:
        """No gradients and no contributions yet."""
        shape = (num_networks, num_slots)
        return cls(np.zeros(shape, np.bool_), np.zeros(shape), np.zeros(shape, np.bool_))


@dataclass(frozen=True, eq=False)
class Commands:
    """N operations with their arguments; an argument that an operation does not have is not read."""

    op: IntArray  # [N] members of Op
    slot: IntArray  # [N] for all operations but WAIT
    blueprint: IntArray  # [N] for GERMINATE
    operator: IntArray  # [N] for GERMINATE
    tempo: IntArray  # [N] for GERMINATE, SET_ALPHA_TARGET, PRUNE; 0 or less lands at once
    curve: IntArray  # [N] for GERMINATE, SET_ALPHA_TARGET, PRUNE
    target: FloatArray  # [N] for SET_ALPHA_TARGET

    @classmethod
    def wait(cls, num_networks: int) -> Commands:
        """Every network waits."""
        op, slot, blueprint, operator, tempo, curve = np.zeros((6, num_networks), dtype=np.int64)
        return cls(op, slot, blueprint, operator, tempo, curve, np.zeros(num_networks))


# ── the tables ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Guard:
    """Something that must be true of a slot before a transition."""

    words: str  # the requirement; {name} stands for a field of LifecycleRules
    # (state, measurements, rules) -> [N, S], or one bool where it depends on the rules alone
    holds: Callable[[LifecycleState, SeedMeasurements, LifecycleRules], BoolArray | bool]


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


def _contributes(state: LifecycleState, measurements: SeedMeasurements, rules: LifecycleRules) -> BoolArray:
    minimum = -math.inf if rules.min_contribution is None else rules.min_contribution
    return np.asarray(measurements.has_contribution & (measurements.contribution >= minimum))


# fmt: off
GUARDS: dict[str, Guard] = {
    "staged": Guard("instant = False", lambda state, measurements, rules: not rules.instant),
    "instant": Guard("instant = True", lambda state, measurements, rules: rules.instant),
    "trained_enough": Guard(
        "{min_training_steps} or more steps in TRAINING",
        lambda state, measurements, rules: state.steps_in_stage >= rules.min_training_steps),
    "finite_gradients": Guard(
        "finite gradients", lambda state, measurements, rules: measurements.has_finite_gradients),
    "old_enough": Guard(
        "{min_prune_age} or more steps since germination",
        lambda state, measurements, rules: state.age >= rules.min_prune_age),
    "at_rest": Guard("alpha at rest", lambda state, measurements, rules: state.alpha.is_at_rest),
    "alpha_is_one": Guard("alpha = 1", lambda state, measurements, rules: state.alpha.target == 1.0),
    "alpha_is_zero": Guard("alpha = 0", lambda state, measurements, rules: state.alpha.target == 0.0),
    "pruning": Guard("being pruned", lambda state, measurements, rules: state.is_pruning),
    "not_pruning": Guard("not being pruned", lambda state, measurements, rules: ~state.is_pruning),
    "contributes": Guard("a measured contribution, minimum {min_contribution}", _contributes),
    "embargo_over": Guard(
        "{embargo_steps} or more ticks in EMBARGOED",
        lambda state, measurements, rules: state.steps_in_stage >= rules.embargo_steps),
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

# ── legality ────────────────────────────────────────────────────────────────────────────────────


def fires(row: Transition, state: LifecycleState, measurements: SeedMeasurements, rules: LifecycleRules) -> BoolArray:
    """Slots where a row of the table applies, given its cause: stage and all guards, [N, S]."""
    mask = np.asarray(state.stage == row.stage)
    for name in row.guards:
        mask = mask & GUARDS[name].holds(state, measurements, rules)
    return mask


def legal_operations(state: LifecycleState, measurements: SeedMeasurements, rules: LifecycleRules) -> BoolArray:
    """Operations each slot allows, given fit arguments, [N, S, len(Op)], True = allowed."""
    mask = np.zeros((*state.stage.shape, len(Op)), dtype=np.bool_)
    mask[..., Op.WAIT] = True
    for row in TRANSITIONS:
        if row.cause is not None:
            mask[..., row.cause] |= fires(row, state, measurements, rules)
    return mask


def legal_commands(
    state: LifecycleState, commands: Commands, measurements: SeedMeasurements, rules: LifecycleRules
) -> BoolArray:
    """Commands of a menu that each network may carry out, arguments included, [N, C], True = allowed.

    Args:
        state: Slots of N networks.
        commands: C commands, the same menu for all networks.
        measurements: Measurements of their seeds.
        rules: Thresholds.
    """
    return _judge(state, slice(None), commands, measurements, rules)


def is_command_legal(
    state: LifecycleState, commands: Commands, measurements: SeedMeasurements, rules: LifecycleRules
) -> BoolArray:
    """Legality of each network's own command, arguments included, [N], True = allowed.

    Raises:
        ValueError: If there is not one command per network.
    """
    num_networks = len(state.stage)
    if commands.op.shape != (num_networks,):
        raise ValueError(f"`commands` must be one per network, got {commands.op.shape} for {num_networks} networks.")
    return _judge(state, np.arange(num_networks), commands, measurements, rules)


def _judge(
    state: LifecycleState,
    rows: slice | IntArray,
    commands: Commands,
    measurements: SeedMeasurements,
    rules: LifecycleRules,
) -> BoolArray:
    """Legality of C commands: of each for all networks [N, C] if `rows` is a slice, of each for its own row [C] if not.

    A command that names no slot, operation or curve that exists is illegal, never an error.
    """
    slot = np.minimum(np.maximum(commands.slot, 0), state.stage.shape[1] - 1)
    op = np.minimum(np.maximum(commands.op, 0), len(Op) - 1)
    mask = legal_operations(state, measurements, rules)[rows, slot, op]
    mask &= (slot == commands.slot) & (op == commands.op)
    for rule in ARGUMENT_RULES:
        asked = np.flatnonzero(rule.is_about[op])
        if len(asked):
            here = rows if isinstance(rows, slice) else rows[asked], slot[asked]
            given = Commands(**{name: values[asked] for name, values in vars(commands).items()})
            mask[..., asked] &= rule.holds(state, here, given)
    mask[..., commands.op == Op.WAIT] = True
    return np.asarray(mask)


# ── what happens ────────────────────────────────────────────────────────────────────────────────


def apply(
    state: LifecycleState, commands: Commands, measurements: SeedMeasurements, rules: LifecycleRules
) -> tuple[LifecycleState, BoolArray]:
    """Carry out one command per network. An illegal command changes nothing in its row.

    ADVANCE ramps as GERMINATE chose; SET_ALPHA_TARGET and PRUNE ramp as their own command says.

    Returns:
        The new state, and which commands were legal, [N].
    """
    is_legal = is_command_legal(state, commands, measurements, rules)
    is_chosen = is_legal[:, None] & (commands.slot[:, None] == np.arange(state.stage.shape[1]))
    next_state = state
    for row in TRANSITIONS:
        if row.cause is not None and (commands.op == row.cause).any():
            where = is_chosen & (commands.op == row.cause)[:, None]
            where &= fires(row, state, measurements, rules)
            next_state = _take(row, next_state, where, commands)
    # a prune with nothing left to ramp does not wait for the tick
    is_pruned = is_chosen & (commands.op == Op.PRUNE)[:, None]
    where = is_pruned & fires(REMOVAL, next_state, measurements, rules)
    return _take(REMOVAL, next_state, where, commands), is_legal


def tick(state: LifecycleState, rules: LifecycleRules) -> LifecycleState:
    """Let one step pass: ramps and counters move on, then the table's own transitions happen."""
    nothing, wait = SeedMeasurements.unmeasured(*state.stage.shape), Commands.wait(len(state.stage))
    alpha = ramps.advance(state.alpha)
    age, steps_in_stage = state.age + state.has_seed, state.steps_in_stage + 1
    state = replace(state, alpha=alpha, age=age, steps_in_stage=steps_in_stage)
    for row in TRANSITIONS:
        if row.cause is None:
            state = _take(row, state, fires(row, state, nothing, rules), wait)
    return state


def uproot(state: LifecycleState, where: BoolArray) -> LifecycleState:
    """Remove seeds at once, whatever their stage and age, as a prune at tempo 0 does.

    Args:
        state: Slots of N networks.
        where: Seeds to remove ``[N, S]``.
    """
    return _take(REMOVAL, state, where & state.has_seed, Commands.wait(len(state.stage)))


def _take(row: Transition, state: LifecycleState, where: BoolArray, commands: Commands) -> LifecycleState:
    """Take slots [N, S] along a row of the table."""
    if not where.any():
        return state
    next_stage = np.where(where, int(row.next_stage), state.stage)
    steps_in_stage = np.where(next_stage == state.stage, state.steps_in_stage, 0)
    return row.effect(replace(state, stage=next_stage, steps_in_stage=steps_in_stage), where, commands)
