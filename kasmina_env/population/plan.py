"""The plan of a step: for every slot, the cells to run, over which networks, at which alpha."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from kasmina_env.layers import split_networks
from kasmina_env.population.stack import Template
from kasmina_env.population.state import Cell, Cells, Kind, Setting


@dataclass(frozen=True)
class PlannedCell:
    """Seeds of one kind in one slot, ready to run."""

    template: Template
    parameters: Sequence[Tensor]  # each [R, *shape]
    rows: Tensor  # [R] networks that hold them
    alpha: Tensor | None  # [R, 1]; None: in TRAINING, behind the straight-through estimator

    def term(self, inputs: Tensor) -> Tensor:
        """Features of the cell's networks ``[B, R*C, ...]`` to the split term ``[..., R, C]``."""
        return split_networks(self.template.call(self.parameters, inputs), len(self.rows))


Plan = list[list[PlannedCell]]  # [S]


def make_plan(
    setting: Setting,
    cells: Cells,
    alpha: Tensor,
    parameters_of: Callable[[Kind, Cell], Sequence[Tensor]],
    with_training: bool,
) -> Plan:
    """Sort cells into slots, live ones first.

    Args:
        setting: Of the population.
        cells: All seeds.
        alpha: Amplitudes ``[N, S]`` on the device.
        parameters_of: Working parameters of a cell, leaves or views.
        with_training: Whether seeds in TRAINING run; in evaluation they change nothing.
    """
    plan: Plan = [[] for _ in range(setting.num_slots)]
    for kind, cell in sorted(cells.items(), key=lambda item: item[0].in_training):
        if kind.in_training and not with_training:
            continue
        rows = cell.device_rows
        amplitude = None if kind.in_training else alpha[rows, kind.slot].unsqueeze(1)
        template = setting.seed_template(kind.slot, kind.blueprint, kind.operator)
        planned = PlannedCell(template, parameters_of(kind, cell), rows, amplitude)
        plan[kind.slot].append(planned)
    return plan
