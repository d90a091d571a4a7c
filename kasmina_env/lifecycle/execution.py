"""What happens in the slots of N networks: commands are carried out, and time passes.

One step of an environment is `apply`, `tick`, training, evaluation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kasmina_env.lifecycle import alpha as ramps
from kasmina_env.lifecycle.arrays import BoolArray
from kasmina_env.lifecycle.legality import is_command_legal
from kasmina_env.lifecycle.state import Commands, LifecycleState, Op, SeedMeasurements, Thresholds
from kasmina_env.lifecycle.transitions import REMOVAL, TRANSITIONS, Transition, fires


def apply(
    state: LifecycleState, commands: Commands, measurements: SeedMeasurements, thresholds: Thresholds
) -> tuple[LifecycleState, BoolArray]:
    """Carry out one command per network. An illegal command changes nothing in its row.

    ADVANCE ramps as GERMINATE chose; SET_ALPHA_TARGET and PRUNE ramp as their own command says.

    Returns:
        The new state, and which commands were legal, [N].
    """
    is_legal = is_command_legal(state, commands, measurements, thresholds)
    is_chosen = is_legal[:, None] & (commands.slot[:, None] == np.arange(state.stage.shape[1]))
    next_state = state
    for row in TRANSITIONS:
        if row.cause is not None and (commands.op == row.cause).any():
            where = is_chosen & (commands.op == row.cause)[:, None]
            where &= fires(row, state, measurements, thresholds)
            next_state = _take(row, next_state, where, commands)
    # a prune with nothing left to ramp does not wait for the tick
    is_pruned = is_chosen & (commands.op == Op.PRUNE)[:, None]
    where = is_pruned & fires(REMOVAL, next_state, measurements, thresholds)
    return _take(REMOVAL, next_state, where, commands), is_legal


def tick(state: LifecycleState, thresholds: Thresholds) -> LifecycleState:
    """Let one step pass: ramps and counters move on, then the table's own transitions happen."""
    nothing, wait = SeedMeasurements.unmeasured(*state.stage.shape), Commands.wait(len(state.stage))
    alpha = ramps.move_on(state.alpha)
    age, steps_in_stage = state.age + state.has_seed, state.steps_in_stage + 1
    state = replace(state, alpha=alpha, age=age, steps_in_stage=steps_in_stage)
    for row in TRANSITIONS:
        if row.cause is None:
            state = _take(row, state, fires(row, state, nothing, thresholds), wait)
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
