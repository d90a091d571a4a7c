"""The plan of a step: for every slot what runs, over which networks, and in which order these stand side by side.

Structure changes only between steps, so it is planned once. Seeds of one blueprint in one slot run together whatever
their operator and stage: on small networks a launch costs as much as its arithmetic (64 networks with random seeds
make 65 groups by blueprint, operator and stage, and 15 by blueprint).

In a slot the networks stand in the slot's own order, seeds of a kind next to each other, so that a group is a slice:
features are moved into that order once, and back once (gathering each group and putting its result back took a third
of a step). Between slots every network stands at its own number, so that its bits do not depend on what others grow.
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
    """Seeds of one blueprint, or gates, ready to run: first those that act, then those in TRAINING."""

    template: Template
    parameters: Sequence[Tensor]  # each [R, *shape]
    live: tuple[int, ...]  # how many act under each operator, in the order of `Operator`
    training: tuple[int, ...]  # and how many are in TRAINING

    def call(self, inputs: Tensor) -> Tensor:
        """Run them on the features of their networks, ``[B, R*C, ...]``."""
        return self.template.call(self.parameters, inputs)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of seeds of all groups in their order, ``[2 * operators]``."""
        return self.live + self.training


@dataclass(frozen=True)
class PlannedSlot:
    """All that happens at a slot. The networks stand: acting seeds, seeds in TRAINING, no seed; each by blueprint."""

    order: Tensor | None  # [N] network at each position; None: each at its own number
    inverse: Tensor | None  # [N] position of each network
    cells: list[PlannedCell]  # by blueprint
    gates: PlannedCell | None  # of the seeds under GATE
    num_live: int
    num_training: int
    alpha: Tensor  # [num_live * C] amplitude of every channel


# Working parameters of the first members of a cell: leaves or views.
ParametersOf = Callable[[Part, Cell, int], Sequence[Tensor]]


def make_plan(
    networks: Networks, alpha: FloatArray, parameters_of: ParametersOf, with_training: bool
) -> list[PlannedSlot | None]:
    """Plan every slot, None where nothing runs. Sorts the networks' cells.

    Args:
        networks: Hosts and seeds.
        alpha: Amplitudes ``[N, S]``.
        parameters_of: Where parameters come from.
        with_training: Whether seeds in TRAINING run; in evaluation they change nothing.
    """
    networks.sort_cells()
    runs = networks.has_seed if with_training else networks.has_seed & ~networks.in_training
    slots = range(networks.setting.num_slots)
    return [_plan_slot(networks, slot, runs[:, slot], alpha[:, slot], parameters_of) for slot in slots]


def _parts(networks: Networks, slot: int, runs: BoolArray) -> list[Part]:
    """The slot's blueprints with seeds that run, by name."""
    parts = (part for part in networks.cells if part.slot == slot and part.name != GATE)
    return sorted(part for part in parts if runs[networks.cells[part].rows].any())


def _slot_order(networks: Networks, slot: int, runs: BoolArray) -> IntArray:
    rows = np.concatenate([networks.cells[part].rows for part in _parts(networks, slot, runs)])
    rows = rows[runs[rows]]
    is_training = networks.in_training[rows, slot]
    return np.concatenate([rows[~is_training], rows[is_training], np.flatnonzero(~runs)])


def _plan_slot(
    networks: Networks, slot: int, runs: BoolArray, alpha: FloatArray, parameters_of: ParametersOf
) -> PlannedSlot | None:
    if not runs.any():
        return None
    setting, gates = networks.setting, Part(slot, GATE)
    cells = [_plan_cell(networks, part, runs, parameters_of) for part in _parts(networks, slot, runs)]
    has_gates = gates in networks.cells and runs[networks.cells[gates].rows].any()
    num_live, num_training = (sum(sum(getattr(cell, kind)) for cell in cells) for kind in ("live", "training"))
    order = _slot_order(networks, slot, runs)
    is_sorted = np.array_equal(order, np.arange(len(order)))
    amplitudes = setting.column(alpha[order[:num_live]]).expand(-1, setting.host.slots[slot].channels)
    return PlannedSlot(
        order=None if is_sorted else setting.index(order),
        inverse=None if is_sorted else setting.index(np.argsort(order)),
        cells=cells,
        gates=_plan_cell(networks, gates, runs, parameters_of) if has_gates else None,
        num_live=num_live,
        num_training=num_training,
        alpha=amplitudes.flatten(),
    )


def _plan_cell(networks: Networks, part: Part, runs: BoolArray, parameters_of: ParametersOf) -> PlannedCell:
    cell = networks.cells[part]
    rows = cell.rows[runs[cell.rows]]  # the first ones, if any is left out: those in TRAINING are last
    operators, is_training = networks.operator[rows, part.slot], networks.in_training[rows, part.slot]
    live, training = (
        tuple(int((operators[chosen] == operator).sum()) for operator in Operator)
        for chosen in (~is_training, is_training)
    )
    return PlannedCell(networks.setting.template(part), parameters_of(part, cell, len(rows)), live, training)
