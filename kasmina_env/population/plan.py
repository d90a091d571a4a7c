"""The plan of a step: for every slot what runs, over which networks, and how it is blended in.

Structure changes only between steps, so it is planned once. Seeds of one blueprint in one slot run together whatever
their operator and stage: on small networks a launch costs as much as its arithmetic (64 networks with random seeds
make 65 groups by blueprint, operator and stage, and 15 by blueprint).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kasmina_env.config import Operator
from kasmina_env.population.stack import Template
from kasmina_env.population.state import GATE, BoolArray, Cell, FloatArray, IntArray, Networks, Part


@dataclass(frozen=True)
class PlannedCell:
    """Seeds of one blueprint, or gates, ready to run."""

    template: Template
    parameters: Sequence[Tensor]  # each [R, *shape]
    rows: Tensor  # [R] networks that hold them

    def call(self, inputs: Tensor) -> Tensor:
        """Run them on the features of their networks, ``[B, R*C, ...]``."""
        return self.template.call(self.parameters, inputs)


@dataclass(frozen=True)
class Piece:
    """Seeds of a slot under one operator: R of them, L of these live (not in TRAINING)."""

    operator: Operator
    positions: Tensor | None  # [R] among the slot's seeds, cell after cell; None: all of them, in that order
    rows: Tensor  # [R] networks that hold them
    scale: Tensor  # [R, 1] gradient of the output to their terms: alpha, or 1 in TRAINING
    live: Tensor | None  # [L] among the R; None: all of them
    live_rows: Tensor  # [L] networks that hold those
    alpha: Tensor  # [L, 1]


@dataclass(frozen=True)
class PlannedSlot:
    """All that happens at a slot."""

    cells: list[PlannedCell]  # by blueprint
    pieces: list[Piece]  # by operator
    gates: PlannedCell | None  # of the piece under GATE, in its order
    training_rows: Tensor | None  # networks whose seed here is in TRAINING; None: no such network


# Working parameters of some members of a cell: leaves or views; None: of all members.
ParametersOf = Callable[[Part, Cell, IntArray | None], Sequence[Tensor]]


def make_plan(
    networks: Networks, alpha: FloatArray, parameters_of: ParametersOf, with_training: bool
) -> list[PlannedSlot | None]:
    """Plan every slot; None where nothing runs.

    Args:
        networks: Hosts and seeds.
        alpha: Amplitudes ``[N, S]``.
        parameters_of: Where parameters come from.
        with_training: Whether seeds in TRAINING run; in evaluation they change nothing.
    """
    runs = networks.has_seed if with_training else networks.has_seed & ~networks.in_training
    slots = range(networks.setting.num_slots)
    return [_plan_slot(networks, slot, runs[:, slot], alpha[:, slot], parameters_of) for slot in slots]


def _plan_slot(
    networks: Networks, slot: int, runs: BoolArray, alpha: FloatArray, parameters_of: ParametersOf
) -> PlannedSlot | None:
    if not runs.any():
        return None
    cells, gates, order = [], None, []
    for part, cell in networks.cells.items():
        if part.slot != slot or not runs[cell.rows].any():
            continue
        planned = _plan_cell(networks, part, cell, runs, parameters_of)
        if part.name == GATE:
            gates = planned
        else:
            cells.append(planned)
            order.append(cell.rows[runs[cell.rows]])
    rows = np.concatenate(order)
    pieces = [
        _plan_piece(networks, slot, Operator(code), rows, alpha) for code in np.unique(networks.operator[rows, slot])
    ]
    training = rows[networks.in_training[rows, slot]]
    return PlannedSlot(cells, pieces, gates, networks.setting.index(training) if len(training) else None)


def _plan_cell(networks: Networks, part: Part, cell: Cell, runs: BoolArray, parameters_of: ParametersOf) -> PlannedCell:
    members = None if runs[cell.rows].all() else np.flatnonzero(runs[cell.rows])
    rows = cell.rows if members is None else cell.rows[members]
    template = networks.setting.template(part)
    return PlannedCell(template, parameters_of(part, cell, members), networks.setting.index(rows))


def _plan_piece(networks: Networks, slot: int, operator: Operator, slot_rows: IntArray, alpha: FloatArray) -> Piece:
    index, numbers = networks.setting.index, networks.setting.column
    is_member = networks.operator[slot_rows, slot] == operator
    positions = np.flatnonzero(is_member)
    if operator is Operator.GATE:  # the order of the cell of gates
        positions = positions[np.argsort(slot_rows[positions])]
    rows = slot_rows[positions]
    is_live = ~networks.in_training[rows, slot]
    covers_all = is_member.all() and (np.diff(positions) == 1).all()
    return Piece(
        operator,
        positions=None if covers_all else index(positions),
        rows=index(rows),
        scale=numbers(np.where(is_live, alpha[rows], 1.0)),
        live=None if is_live.all() else index(np.flatnonzero(is_live)),
        live_rows=index(rows[is_live]),
        alpha=numbers(alpha[rows[is_live]]),
    )
