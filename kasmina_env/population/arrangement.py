"""Arrangement of a step: the seeds that run in each slot, their networks, and the order of networks on the wide axis.

Structure changes only between steps, so it is made once. Seeds of one blueprint in one slot run together whatever
their operator and stage: on small networks a launch costs as much as its arithmetic (64 networks with random seeds
make 65 groups by blueprint, operator and stage, and 15 by blueprint).

In a slot the networks stand in the slot's own order: by stage and operator, which is how terms are made, and within
those by blueprint, so that every group is a slice and a cell is a few of them. Features are moved into that order once,
and back once. Between slots every network stands at its own number, so that its bits do not depend on what others grow.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from torch import Tensor

from kasmina_env.lifecycle.arrays import BoolArray, FloatArray
from kasmina_env.population.stack import Template
from kasmina_env.population.state import GATE, Cell, Networks, Part
from kasmina_env.population.wide_features import Lanes, Regroup, Stretch
from kasmina_env.settings.config import Operator


@dataclass(frozen=True)
class ArrangedCell:
    """Seeds of one blueprint, or gates, ready to run: first those that act, then those in TRAINING."""

    template: Template
    parameters: Sequence[Tensor]  # each [R, *shape]
    sizes: tuple[int, ...]  # [2 * operators] how many of each kind, acting before in TRAINING

    def call(self, inputs: Tensor) -> Tensor:
        """Deltas of the seeds, or values of the gates, from the wide features of their networks."""
        return self.template.call(self.parameters, inputs)

    @property
    def size(self) -> int:
        return sum(self.sizes)

    @property
    def has_live(self) -> bool:
        """Whether any seed acts."""
        return any(self.sizes[: len(Operator)])


@dataclass(frozen=True)
class Kind:
    """A run of adjacent networks in a slot whose seeds share operator and stage."""

    operator: Operator
    in_training: bool
    start: int
    size: int


@dataclass(frozen=True)
class Piece:
    """A run of networks that are adjacent both in a slot and in a cell."""

    cell: int
    kind: int  # index into the kinds that there are
    in_slot: int  # first of them in the slot
    in_cell: int
    in_kind: int
    size: int


@dataclass(frozen=True)
class ArrangedSlot:
    """All that happens at a slot. The networks stand: acting seeds, seeds in TRAINING, no seed."""

    lanes: Lanes
    order: Tensor | None  # [N] network at each position; None: each at its own number
    inverse: Tensor | None  # [N] position of each network
    cells: list[ArrangedCell]  # by blueprint
    gates: ArrangedCell | None  # of the seeds under GATE
    kinds: list[Kind]
    pieces: list[Piece]
    alpha: Tensor  # amplitudes of the acting seeds (`Lanes.spread`)

    @property
    def structure(self) -> Hashable:
        """Everything that its kernels depend on, besides the blueprints that live here and what stands in tensors."""
        return tuple(cell.sizes for cell in self.cells), self.gates and self.gates.sizes, self.order is None

    @property
    def numbers(self) -> list[Tensor]:
        """Tensors that differ from step to step where the structure does not."""
        return [self.alpha, *(tensor for tensor in (self.order, self.inverse) if tensor is not None)]

    @cached_property
    def slot_to_cells(self) -> Regroup:
        """Map from the slot's features to the inputs of each cell."""
        targets = [[Stretch(0, p.in_slot, p.size) for p in self.pieces if p.cell == c] for c in range(len(self.cells))]
        return Regroup(self.lanes, [sum(kind.size for kind in self.kinds)], targets)

    @cached_property
    def cells_to_kinds(self) -> Regroup:
        """Map from the deltas of each cell to those of each kind."""
        targets = [
            [Stretch(p.cell, p.in_cell, p.size) for p in self.pieces if p.kind == k] for k in range(len(self.kinds))
        ]
        return Regroup(self.lanes, [cell.size for cell in self.cells], targets)

    @cached_property
    def kinds_to_cells(self) -> Regroup:
        """Map from the gradients of each kind to those of each cell."""
        targets = [
            [Stretch(p.kind, p.in_kind, p.size) for p in self.pieces if p.cell == c] for c in range(len(self.cells))
        ]
        return Regroup(self.lanes, [kind.size for kind in self.kinds], targets)

    @cached_property
    def cells_to_slot(self) -> Regroup:
        """Gradients of what cells with acting seeds read, to the features of these seeds, which come first."""
        live = [number for number, cell in enumerate(self.cells) if cell.has_live]
        acting = [p for p in self.pieces if not self.kinds[p.kind].in_training]
        target = [Stretch(live.index(p.cell), p.in_cell, p.size) for p in acting]
        return Regroup(self.lanes, [self.cells[number].size for number in live], [target])


# Working parameters of the first members of a cell: leaves or views.
ParametersOf = Callable[[Part, Cell, int], Sequence[Tensor]]


def arrange(
    networks: Networks, alpha: FloatArray, parameters_of: ParametersOf, with_training: bool
) -> list[ArrangedSlot | None]:
    """Arrange every slot, None where nothing runs. Sorts the networks' cells.

    Args:
        networks: Hosts and seeds.
        alpha: Amplitudes ``[N, S]``.
        parameters_of: Function that returns the parameters of a cell's first members.
        with_training: Whether seeds in TRAINING run; in evaluation they change nothing.
    """
    networks.sort_cells()
    runs = networks.has_seed if with_training else networks.has_seed & ~networks.in_training
    slots = range(networks.setting.num_slots)
    return [_arrange_slot(networks, slot, runs[:, slot], alpha[:, slot], parameters_of) for slot in slots]


def _parts(networks: Networks, slot: int, runs: BoolArray) -> list[Part]:
    """The slot's blueprints with seeds that run, by name."""
    parts = (part for part in networks.cells if part.slot == slot and part.name != GATE)
    return sorted(part for part in parts if runs[networks.cells[part].rows].any())


def _arrange_slot(
    networks: Networks, slot: int, runs: BoolArray, alpha: FloatArray, parameters_of: ParametersOf
) -> ArrangedSlot | None:
    if not runs.any():
        return None
    setting, gates = networks.setting, Part(slot, GATE)
    parts = _parts(networks, slot, runs)
    cells = [_arrange_cell(networks, part, runs, parameters_of) for part in parts]
    has_gates = gates in networks.cells and runs[networks.cells[gates].rows].any()
    kinds, pieces = _by_kind([cell.sizes for cell in cells])
    rows = [networks.cells[parts[p.cell]].rows[p.in_cell : p.in_cell + p.size] for p in pieces]
    order = np.concatenate([*rows, np.flatnonzero(~runs)])
    is_sorted = np.array_equal(order, np.arange(len(order)))
    num_live = sum(kind.size for kind in kinds if not kind.in_training)
    lanes = setting.lanes[slot]
    return ArrangedSlot(
        lanes=lanes,
        order=None if is_sorted else setting.index(order),
        inverse=None if is_sorted else setting.index(np.argsort(order)),
        cells=cells,
        gates=_arrange_cell(networks, gates, runs, parameters_of) if has_gates else None,
        kinds=kinds,
        pieces=pieces,
        alpha=lanes.spread(setting.column(alpha[order[:num_live]])),
    )


def _by_kind(sizes: Sequence[tuple[int, ...]]) -> tuple[list[Kind], list[Piece]]:
    """Put the seeds of some cells, whose kinds have these sizes, next to each other by kind."""
    kinds: list[Kind] = []
    pieces: list[Piece] = []
    total = 0
    for number, (in_training, operator) in enumerate(product((False, True), Operator)):
        start = total
        for cell, of_cell in enumerate(sizes):
            if of_cell[number]:
                in_cell = sum(of_cell[:number])
                pieces.append(Piece(cell, len(kinds), total, in_cell, total - start, of_cell[number]))
                total += of_cell[number]
        if total > start:
            kinds.append(Kind(operator, in_training, start, total - start))
    return kinds, pieces


def _arrange_cell(networks: Networks, part: Part, runs: BoolArray, parameters_of: ParametersOf) -> ArrangedCell:
    cell = networks.cells[part]
    rows = cell.rows[runs[cell.rows]]  # the first ones, if any is left out: those in TRAINING are last
    number = networks.in_training[rows, part.slot] * len(Operator) + networks.operator[rows, part.slot]
    sizes = tuple(np.bincount(number, minlength=2 * len(Operator)).tolist())
    return ArrangedCell(networks.setting.template(part), parameters_of(part, cell, len(rows)), sizes)
