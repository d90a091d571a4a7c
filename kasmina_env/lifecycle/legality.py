"""What may be done to the slots of N networks now: masks, computed from the table of transitions."""

from __future__ import annotations

import numpy as np

from kasmina_env.lifecycle.arrays import BoolArray, IntArray
from kasmina_env.lifecycle.state import Commands, LifecycleState, Op, SeedMeasurements, Thresholds
from kasmina_env.lifecycle.transitions import ARGUMENT_RULES, TRANSITIONS, fires


def legal_operations(state: LifecycleState, measurements: SeedMeasurements, thresholds: Thresholds) -> BoolArray:
    """Operations each slot allows, given fit arguments, [N, S, len(Op)], True = allowed."""
    mask = np.zeros((*state.stage.shape, len(Op)), dtype=np.bool_)
    mask[..., Op.WAIT] = True
    for row in TRANSITIONS:
        if row.cause is not None:
            mask[..., row.cause] |= fires(row, state, measurements, thresholds)
    return mask


def legal_commands(
    state: LifecycleState, commands: Commands, measurements: SeedMeasurements, thresholds: Thresholds
) -> BoolArray:
    """Commands of a menu that each network may carry out, arguments included, [N, C], True = allowed.

    Args:
        state: Slots of N networks.
        commands: C commands, the same menu for all networks.
        measurements: Measurements of their seeds.
        thresholds: Thresholds of the lifecycle.
    """
    return _judge(state, slice(None), commands, measurements, thresholds)


def is_command_legal(
    state: LifecycleState, commands: Commands, measurements: SeedMeasurements, thresholds: Thresholds
) -> BoolArray:
    """Legality of each network's own command, arguments included, [N], True = allowed.

    Raises:
        ValueError: If there is not one command per network.
    """
    num_networks = len(state.stage)
    if commands.op.shape != (num_networks,):
        raise ValueError(f"`commands` must be one per network, got {commands.op.shape} for {num_networks} networks.")
    return _judge(state, np.arange(num_networks), commands, measurements, thresholds)


def _judge(
    state: LifecycleState,
    rows: slice | IntArray,
    commands: Commands,
    measurements: SeedMeasurements,
    thresholds: Thresholds,
) -> BoolArray:
    """Legality of C commands: of each for all networks [N, C] if `rows` is a slice, of each for its own row [C] if not.

    A command that names no slot, operation or curve that exists is illegal, never an error.
    """
    slot = np.minimum(np.maximum(commands.slot, 0), state.stage.shape[1] - 1)
    op = np.minimum(np.maximum(commands.op, 0), len(Op) - 1)
    mask = legal_operations(state, measurements, thresholds)[rows, slot, op]
    mask &= (slot == commands.slot) & (op == commands.op)
    for rule in ARGUMENT_RULES:
        asked = np.flatnonzero(rule.is_about[op])
        if len(asked):
            here = rows if isinstance(rows, slice) else rows[asked], slot[asked]
            given = Commands(**{name: values[asked] for name, values in vars(commands).items()})
            mask[..., asked] &= rule.holds(state, here, given)
    mask[..., commands.op == Op.WAIT] = True
    return np.asarray(mask)
