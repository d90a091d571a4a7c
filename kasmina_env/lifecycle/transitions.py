"""The life of a seed in a slot: one table of transitions, from which everything else is derived.

`legal` says what may be done, `apply` does it, `tick` lets one step pass and `kasmina_env.envs.render.rules_table`
explains it, all by reading `TRANSITIONS`. The order inside one step of an environment is: `apply`, `tick`,
then the networks train and are evaluated.

Axes: N networks, S slots. States are frozen dataclasses of arrays and are never changed in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from kasmina_env.lifecycle import alpha as ramps
from kasmina_env.lifecycle.alpha import AlphaSchedule, Curve
from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray

NONE = -1  # blueprint and operator of a slot without a seed


class Stage(IntEnum):
    """Where the seed of a slot is in its life."""

    DORMANT = 0
    TRAINING = 1
    BLENDING = 2
    HOLDING = 3
    FOSSILIZED = 4
    EMBARGOED = 5


class Op(IntEnum):
    """What a controller can do to a slot."""

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
    min_contribution: float | None = None  # for FOSSILIZE; None asks only for a measured one
    instant: bool = False  # a germinated seed is in HOLDING at alpha 1 at once

    def __post_init__(self) -> None:
        for name in ("min_training_steps", "min_prune_age", "embargo_steps"):
            steps = getattr(self, name)
            if type(steps) is not int or steps < 0:
                raise ValueError(f"`{name}` must be an integer >= 0, got {steps!r}. Count steps.")
        least = self.min_contribution
        if least is not None and (type(least) not in (int, float) or not math.isfinite(least)):
            raise ValueError(f"`min_contribution` must be finite, got {least!r}. Or use None.")
        if type(self.instant) is not bool:
            raise ValueError(f"`instant` must be True or False, got {self.instant!r}. Use a bool.")


@dataclass(frozen=True, eq=False)
class LifecycleState:
    """What is in every slot of every network. N networks, S slots."""

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
class Facts:
    """What has been measured about the seeds, which the lifecycle cannot know."""

    has_finite_gradients: BoolArray  # [N, S]
    contribution: FloatArray  # [N, S] read only where has_contribution
    has_contribution: BoolArray  # [N, S] True where it was measured

    @classmethod
    def unmeasured(cls, num_networks: int, num_slots: int) -> Facts:
        """Nothing is known yet: no gradients, no contributions."""
        shape = (num_networks, num_slots)
        return cls(np.zeros(shape, np.bool_), np.zeros(shape), np.zeros(shape, np.bool_))


@dataclass(frozen=True, eq=False)
class Commands:
    """One command per network; fields that its operation does not use are not read."""

    op: IntArray  # [N] members of Op
    slot: IntArray  # [N] not read for WAIT
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
class Condition:
    """Something that must be true of a slot before a transition."""

    words: str  # what is required; {name} stands for a field of LifecycleRules
    # (state, facts, rules) -> [N, S], or one bool if it depends on rules alone
    holds: Callable[[LifecycleState, Facts, LifecycleRules], BoolArray | bool]


@dataclass(frozen=True)
class Transition:
    """One row of the table: what takes a slot from `stage` to `next_stage`."""

    stage: Stage
    cause: Op | None  # None is what a tick does by itself
    next_stage: Stage
    requires: tuple[str, ...]  # names of CONDITIONS, all of which must hold
    meaning: str  # one sentence for the documentation


@dataclass(frozen=True)
class ArgumentRule:
    """What the arguments of some operations must be."""

    ops: tuple[Op, ...]
    words: str  # what is required
    holds: Callable[[LifecycleState, Commands], BoolArray]  # -> [N, S], or [N, 1] for any slot


def target_differs(state: LifecycleState, target: FloatArray | float) -> BoolArray:
    """Where an alpha target is in [0, 1] and not the alpha the seed already has, [N, S, T].

    `target` is one target (T = 1), a menu [T], or anything that broadcasts against [N, S, T].
    """
    goal = np.asarray(target, dtype=np.float64)
    return np.asarray((state.alpha.value[..., None] != goal) & (goal >= 0.0) & (goal <= 1.0))


def prune_hastens(state: LifecycleState, tempo: IntArray | int) -> BoolArray:
    """Where a prune of a tempo begins, or ends one under way sooner, [N, S, T]: none is called off by being repeated.

    `tempo` is one tempo (T = 1), a menu [T], or anything that broadcasts against [N, S, T].
    """
    is_sooner = np.maximum(np.asarray(tempo), 0) < state.alpha.remaining[..., None]
    return np.asarray(~state.is_pruning[..., None] | is_sooner)


def _contributes(state: LifecycleState, facts: Facts, rules: LifecycleRules) -> BoolArray:
    least = -math.inf if rules.min_contribution is None else rules.min_contribution
    return np.asarray(facts.has_contribution & (facts.contribution >= least))


# fmt: off
CONDITIONS: dict[str, Condition] = {
    "staged": Condition("instant = False", lambda state, facts, rules: not rules.instant),
    "instant": Condition("instant = True", lambda state, facts, rules: rules.instant),
    "trained_enough": Condition(
        "{min_training_steps} or more steps in TRAINING",
        lambda state, facts, rules: state.steps_in_stage >= rules.min_training_steps),
    "finite_gradients": Condition(
        "finite gradients", lambda state, facts, rules: facts.has_finite_gradients),
    "old_enough": Condition(
        "{min_prune_age} or more steps since germination",
        lambda state, facts, rules: state.age >= rules.min_prune_age),
    "at_rest": Condition("alpha at rest", lambda state, facts, rules: state.alpha.is_at_rest),
    "alpha_is_one": Condition("alpha = 1", lambda state, facts, rules: state.alpha.target == 1.0),
    "alpha_is_zero": Condition("alpha = 0", lambda state, facts, rules: state.alpha.target == 0.0),
    "pruning": Condition("being pruned", lambda state, facts, rules: state.is_pruning),
    "not_pruning": Condition("not being pruned", lambda state, facts, rules: ~state.is_pruning),
    "contributes": Condition("a measured contribution, minimum {min_contribution}", _contributes),
    "embargo_over": Condition(
        "{embargo_steps} or more ticks in EMBARGOED",
        lambda state, facts, rules: state.steps_in_stage >= rules.embargo_steps),
}

# A tick goes through its rows from top to bottom, so one row may lead to the next in the same tick.
REMOVAL = Transition(Stage.BLENDING, None, Stage.EMBARGOED, ("pruning", "at_rest", "alpha_is_zero"),
                     "The seed is removed on the very tick its alpha reaches 0.")
TRANSITIONS: tuple[Transition, ...] = (
    Transition(Stage.DORMANT, Op.GERMINATE, Stage.TRAINING, ("staged",),
               "A new seed learns in the slot without changing the network's output."),
    Transition(Stage.DORMANT, Op.GERMINATE, Stage.HOLDING, ("instant",),
               "A new seed joins the network at once at alpha 1."),
    Transition(Stage.TRAINING, Op.ADVANCE, Stage.BLENDING, ("trained_enough", "finite_gradients"),
               "Alpha ramps to 1 over the tempo and curve chosen at germination."),
    Transition(Stage.TRAINING, Op.PRUNE, Stage.EMBARGOED, ("old_enough",),
               "The seed never was in the output, so it is removed at once whatever the tempo."),
    Transition(Stage.BLENDING, Op.SET_ALPHA_TARGET, Stage.BLENDING, ("at_rest", "not_pruning"),
               "Alpha ramps from where it rests to the new target."),
    Transition(Stage.BLENDING, Op.PRUNE, Stage.BLENDING, ("old_enough",),
               "Alpha turns to 0, even in a ramp; at tempo 0 the seed is removed at once."),
    REMOVAL,
    Transition(Stage.BLENDING, None, Stage.HOLDING, ("not_pruning", "at_rest", "alpha_is_one"),
               "The seed is fully blended in."),
    Transition(Stage.HOLDING, Op.SET_ALPHA_TARGET, Stage.BLENDING, ("at_rest",),
               "Alpha ramps down from 1 to the new target."),
    Transition(Stage.HOLDING, Op.PRUNE, Stage.BLENDING, ("old_enough",),
               "Alpha ramps to 0 over the tempo; at tempo 0 the seed is removed at once."),
    Transition(Stage.HOLDING, Op.FOSSILIZE, Stage.FOSSILIZED, ("contributes",),
               "The seed becomes a permanent part of the network and keeps training."),
    Transition(Stage.EMBARGOED, None, Stage.DORMANT, ("embargo_over",), "The slot is free again."),
)

ARGUMENT_RULES: tuple[ArgumentRule, ...] = (
    ArgumentRule(
        (Op.GERMINATE,), "a blueprint and an operator",
        lambda state, commands: ((commands.blueprint >= 0) & (commands.operator >= 0))[:, None]),
    ArgumentRule(
        (Op.GERMINATE, Op.SET_ALPHA_TARGET, Op.PRUNE), "a known curve",
        lambda state, commands: ((commands.curve >= 0) & (commands.curve < len(Curve)))[:, None]),
    ArgumentRule(
        (Op.SET_ALPHA_TARGET,), "a target in [0, 1] other than alpha",
        lambda state, commands: target_differs(state, commands.target[:, None, None])[..., 0]),
    ArgumentRule(
        (Op.PRUNE,), "a tempo that is sooner than a prune under way",
        lambda state, commands: prune_hastens(state, commands.tempo[:, None, None])[..., 0]),
)
# fmt: on

# ── what follows from the tables ────────────────────────────────────────────────────────────────


def fires(row: Transition, state: LifecycleState, facts: Facts, rules: LifecycleRules) -> BoolArray:
    """Where a row of the table applies, its cause given: stage and all conditions, [N, S]."""
    mask = np.asarray(state.stage == row.stage)
    for name in row.requires:
        mask = mask & CONDITIONS[name].holds(state, facts, rules)
    return mask


def legal(state: LifecycleState, facts: Facts, rules: LifecycleRules) -> BoolArray:
    """Which operations each slot allows, given fit arguments, [N, S, len(Op)], True = allowed."""
    mask = np.zeros((*state.stage.shape, len(Op)), dtype=np.bool_)
    mask[..., Op.WAIT] = True
    for row in TRANSITIONS:
        if row.cause is not None:
            mask[..., row.cause] |= fires(row, state, facts, rules)
    return mask


def is_command_legal(
    state: LifecycleState,
    commands: Commands,
    facts: Facts,
    rules: LifecycleRules,
) -> BoolArray:
    """Whether each network's command is allowed, its arguments included, [N].

    A command that names no slot, operation or curve that exists is illegal, never an error.

    Raises:
        ValueError: If there is not one command per network.
    """
    num_networks, num_slots = state.stage.shape
    if commands.op.shape != (num_networks,):
        got = f"{commands.op.shape} for {num_networks} networks"
        raise ValueError(f"`commands` must be one per network, got {got}. Fill up with WAIT.")
    slot = np.clip(commands.slot, 0, num_slots - 1)
    op = np.clip(commands.op, 0, len(Op) - 1)
    here = np.arange(num_networks), slot
    allowed = (slot == commands.slot) & (op == commands.op)
    allowed &= legal(state, facts, rules)[(*here, op)]
    for rule in ARGUMENT_RULES:
        is_asked = np.isin(op, rule.ops)
        if is_asked.any():
            verdict = np.broadcast_to(rule.holds(state, commands), state.stage.shape)
            allowed &= ~is_asked | verdict[here]
    return np.asarray(allowed | (commands.op == Op.WAIT))


def _order(state: LifecycleState, where: BoolArray, op: Op, commands: Commands) -> LifecycleState:
    """What an operation sets besides the stage, in the slots [N, S] where it was chosen."""
    tempo, curve = np.maximum(commands.tempo, 0)[:, None], commands.curve[:, None]
    if op == Op.GERMINATE:
        return replace(
            state,
            blueprint=np.where(where, commands.blueprint[:, None], state.blueprint),
            operator=np.where(where, commands.operator[:, None], state.operator),
            tempo=np.where(where, tempo, state.tempo),
            curve=np.where(where, curve, state.curve),
        )
    if op == Op.ADVANCE:
        alpha = ramps.retarget(state.alpha, where, 1.0, state.tempo, state.curve)
        return replace(state, alpha=alpha)
    if op == Op.SET_ALPHA_TARGET:
        alpha = ramps.retarget(state.alpha, where, commands.target[:, None], tempo, curve)
        return replace(state, alpha=alpha)
    if op == Op.PRUNE:
        alpha = ramps.retarget(state.alpha, where, 0.0, tempo, curve, interrupt=True)
        return replace(state, alpha=alpha, is_pruning=state.is_pruning | where)
    return state


def _enter(state: LifecycleState, where: BoolArray, stage: Stage) -> LifecycleState:
    """Move slots [N, S] to a stage and give them what that stage promises."""
    if not where.any():
        return state
    next_stage = np.where(where, int(stage), state.stage)
    steps_in_stage = np.where(next_stage == state.stage, state.steps_in_stage, 0)
    state = replace(state, stage=next_stage, steps_in_stage=steps_in_stage)
    if stage == Stage.HOLDING:
        return replace(state, alpha=ramps.hold(state.alpha, where, 1.0))
    if stage in SEED_STAGES:
        return state
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


def apply(
    state: LifecycleState, commands: Commands, facts: Facts, rules: LifecycleRules
) -> tuple[LifecycleState, BoolArray]:
    """Carry out one command per network. An illegal command changes nothing in its row.

    ADVANCE ramps as GERMINATE chose; SET_ALPHA_TARGET and PRUNE ramp as their own command says.

    Returns:
        The new state, and which commands were legal, [N].
    """
    is_legal = is_command_legal(state, commands, facts, rules)
    is_chosen = is_legal[:, None] & (commands.slot[:, None] == np.arange(state.stage.shape[1]))
    next_state = state
    for row in TRANSITIONS:
        if row.cause is not None and (commands.op == row.cause).any():
            where = is_chosen & (commands.op == row.cause)[:, None]
            where &= fires(row, state, facts, rules)
            next_state = _order(next_state, where, row.cause, commands)
            next_state = _enter(next_state, where, row.next_stage)
    # a prune with nothing left to ramp does not wait for the tick
    is_pruned = is_chosen & (commands.op == Op.PRUNE)[:, None]
    where = is_pruned & fires(REMOVAL, next_state, facts, rules)
    return _enter(next_state, where, REMOVAL.next_stage), is_legal


def tick(state: LifecycleState, rules: LifecycleRules) -> LifecycleState:
    """Let one step pass: ramps and counters move on, then the table's own transitions happen."""
    facts = Facts.unmeasured(*state.stage.shape)
    alpha = ramps.advance(state.alpha)
    age, steps_in_stage = state.age + state.has_seed, state.steps_in_stage + 1
    state = replace(state, alpha=alpha, age=age, steps_in_stage=steps_in_stage)
    for row in TRANSITIONS:
        if row.cause is None:
            state = _enter(state, fires(row, state, facts, rules), row.next_stage)
    return state
