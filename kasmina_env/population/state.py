"""The state of a population: its networks, what grows in them, and their private random streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch

from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray, join_rows
from kasmina_env.networks.blend import Gate
from kasmina_env.networks.blueprints import BLUEPRINTS
from kasmina_env.networks.hosts import Host, make_network
from kasmina_env.networks.layers import split_logits
from kasmina_env.population.cuda_graph import CudaGraphs
from kasmina_env.population.optim import Optimizer
from kasmina_env.population.recordings import Recordings
from kasmina_env.population.stack import (
    RandomStream,
    Stack,
    Template,
    at_least_float32,
    concatenate,
    make_template,
    new_stack,
)
from kasmina_env.population.variants import weight_scales
from kasmina_env.population.wide_features import Lanes
from kasmina_env.settings.config import Operator
from kasmina_env.tasks import Criterion

GATE = "(gate)"  # no blueprint can have this name
NO_SEED = -1


class Part(NamedTuple):
    """Key of a cell: a slot, and a blueprint or `GATE`."""

    slot: int
    name: str


@dataclass(frozen=True)
class Cell:
    """Seeds of one blueprint in one slot, or all gates of one slot."""

    rows: IntArray  # [R] network of each member
    weights: Stack


@dataclass
class Streams:
    """Random streams of one network. Data has its own, so that growing does not change the minibatches."""

    data: RandomStream
    growth: RandomStream

    @classmethod
    def from_seed(cls, rng_seed: int) -> Streams:
        data, growth = np.random.SeedSequence(rng_seed).spawn(2)
        return cls(np.random.default_rng(data), np.random.default_rng(growth))


@dataclass(frozen=True, eq=False)
class Conditions:
    """Conditions that each of N networks trains under; training does not change them."""

    learning_rate: FloatArray  # [N]
    label_noise: FloatArray  # [N] share of wrong training labels
    pixel_noise: FloatArray  # [N] standard deviation of the noise on inputs
    variant: IntArray  # [N] index of the host among the setting's variants
    change: IntArray  # [N] index of the present change of the data; 0 is unchanged

    @classmethod
    def plain(cls, num_networks: int, learning_rate: float) -> Conditions:
        """Conditions without noise or change, for whole hosts."""
        zero = np.zeros(num_networks)
        whole = np.zeros(num_networks, dtype=np.int64)
        return cls(np.full(num_networks, learning_rate), zero, zero.copy(), whole, whole.copy())

    def take(self, rows: IntArray) -> Conditions:
        """Copies of some rows, in the given order."""
        return Conditions(*(values[rows] for values in vars(self).values()))

    def put_(self, rows: IntArray, source: Conditions) -> None:
        """Overwrite rows."""
        for name, values in vars(self).items():
            values[rows] = getattr(source, name)


@dataclass(frozen=True)
class Setting:
    """Settings that all networks of a population share; training does not change them."""

    host: Host
    optimizer: Optimizer
    device: torch.device
    dtype: torch.dtype
    host_template: Template
    criterion: Criterion
    scales: FloatArray | None  # [V, P] factor of initial weights by variant, 0 for absent ones; None: all whole
    birth_gain: float = 1.0  # factor of a blueprint's constant initial values
    part_templates: dict[Part, Template] = field(default_factory=dict)
    recordings: Recordings = field(default_factory=Recordings)

    @property
    def num_slots(self) -> int:
        return len(self.host.slots)

    @cached_property
    def lanes(self) -> list[Lanes]:
        """Lanes of each slot."""
        return [Lanes(self.host.topology, slot.channels) for slot in self.host.slots]

    def template(self, part: Part) -> Template:
        """The architecture of a blueprint or gate in a slot; built at first use."""
        if part not in self.part_templates:
            self.part_templates[part] = self._make_template(part)
        return self.part_templates[part]

    def _make_template(self, part: Part) -> Template:
        channels = self.host.slots[part.slot].channels
        if part.name == GATE:
            return make_template(partial(Gate, topology=self.host.topology, channels=channels), Gate.INITIAL)
        builder = BLUEPRINTS.get(part.name).builder(self.host.topology)
        initial = {name: self.birth_gain * value for name, value in builder.initial.items()}
        return make_template(lambda nn: builder.build(nn, channels), initial)

    def draw_stack(self, template: Template, streams: Sequence[RandomStream], scale: FloatArray | float = 1.0) -> Stack:
        """Freshly initialised networks, one from each random stream, their weights multiplied by `scale`."""
        values = np.stack([template.draw(stream) for stream in streams]) * scale
        parameters = torch.from_numpy(values).to(self.device, self.dtype)
        return new_stack(parameters, self.optimizer.num_moments)

    def draw_hosts(self, streams: Sequence[RandomStream], variant: IntArray) -> Stack:
        """R fresh hosts, one from each random stream, of the given variants ``[R]``."""
        return self.draw_stack(self.host_template, streams, 1.0 if self.scales is None else self.scales[variant])

    def absent(self, variant: IntArray) -> torch.Tensor | None:
        """Mask ``[R, P]`` of weights that hosts of the given variants ``[R]`` lack; None if all are whole."""
        if self.scales is None:
            return None
        return torch.from_numpy(self.scales[variant] == 0).to(self.device, non_blocking=True)

    def loss_and_quality(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and quality ``[B, N]`` of a wide host's logits, at least in float32."""
        return self.criterion(split_logits(logits, labels.shape[1]).to(at_least_float32(self.dtype)), labels)

    def column(self, values: FloatArray) -> torch.Tensor:
        """Numbers ``[R]`` as a tensor ``[R, 1]`` on the population's device."""
        return torch.from_numpy(values).to(self.device, self.dtype, non_blocking=True).unsqueeze(1)

    def index(self, rows: IntArray | Sequence[int]) -> torch.Tensor:
        """Row numbers as an index tensor on the population's device."""
        return torch.from_numpy(np.asarray(rows, dtype=np.int64)).to(self.device, non_blocking=True)


def make_setting(
    host: Host,
    optimizer: Optimizer,
    device: torch.device,
    dtype: torch.dtype,
    criterion: Criterion,
    variants: Sequence[Host] = (),
    birth_gain: float = 1.0,
    initial_weights: FloatArray | None = None,
) -> Setting:
    """Assemble the shared settings of a population."""
    template = make_template(partial(make_network, host))
    if initial_weights is not None:
        template = replace(template, low=initial_weights, high=initial_weights)  # a uniform range of width 0
    parts = [make_template(partial(make_network, variant)) for variant in variants]
    scales = weight_scales(template, parts) if parts else None
    recordings = Recordings(CudaGraphs(device) if device.type == "cuda" else None)
    return Setting(host, optimizer, device, dtype, template, criterion, scales, birth_gain, recordings=recordings)


@dataclass
class Networks:
    """N hosts side by side and the seeds in their S slots."""

    setting: Setting
    hosts: Stack  # of N
    cells: dict[Part, Cell]
    operator: IntArray  # [N, S] blend operator of the seed, NO_SEED where there is none
    in_training: BoolArray  # [N, S] the seed is behind the straight-through estimator
    conditions: Conditions  # of N

    def __len__(self) -> int:
        return len(self.hosts)

    def __getstate__(self) -> dict[str, Any]:
        # Leave the setting out: the population that networks are copied or sent to has its own.
        return {name: value for name, value in vars(self).items() if name != "setting"}

    def _with(self, **fields: Any) -> Networks:
        """A copy with some fields replaced. `dataclasses.replace` would fail where the setting is missing."""
        changed = object.__new__(Networks)
        vars(changed).update(vars(self), **fields)
        return changed

    @property
    def has_seed(self) -> BoolArray:
        """Mask of slots that hold a seed ``[N, S]``."""
        return np.asarray(self.operator != NO_SEED)

    def are_finite(self, acts: BoolArray) -> torch.Tensor:
        """Whether all weights of each network that act are finite ``[N]``, on the device.

        Args:
            acts: Seeds whose weights count ``[N, S]``.
        """
        are_finite = self.hosts.parameters.isfinite().all(dim=1)
        for part, cell in self.cells.items():
            members = np.flatnonzero(acts[cell.rows, part.slot])
            rows = self._index(cell.rows[members])
            are_finite[rows] &= cell.weights.parameters[self._index(members)].isfinite().all(dim=1)
        return are_finite

    def seeds(self) -> set[tuple[int, str, Operator, bool]]:
        """All kinds of seeds that grow here: slot, blueprint, operator, whether in TRAINING."""
        found = set()
        for part, cell in self.cells.items():
            if part.name != GATE:
                operators, stages = (of_all[cell.rows, part.slot] for of_all in (self.operator, self.in_training))
                pairs = set(zip(operators.tolist(), stages.tolist(), strict=True))
                found |= {(*part, Operator(operator), in_training) for operator, in_training in pairs}
        return found

    def insert(self, part: Part, rows: IntArray, weights: Stack) -> None:
        """Add weights to the cell of their part."""
        if part in self.cells:
            old = self.cells[part]
            rows = np.concatenate([old.rows, rows])
            weights = concatenate([old.weights, weights])
        self.cells[part] = Cell(rows, weights)

    def sort_cells(self) -> None:
        """Sort the members of every cell: acting seeds before those in TRAINING, then by operator, then by network.

        Gates all have one operator: they are sorted by the blueprint of their seed instead.
        """
        for part, cell in self.cells.items():
            kind = self.operator[:, part.slot]
            if part.name == GATE:
                kind = np.zeros(len(self), dtype=np.int64)
                for rank, seeds in enumerate(sorted(p for p in self.cells if p.slot == part.slot and p.name != GATE)):
                    kind[self.cells[seeds].rows] = rank
            order = np.lexsort((cell.rows, kind[cell.rows], self.in_training[cell.rows, part.slot]))
            if (np.diff(order) != 1).any():
                self.cells[part] = Cell(cell.rows[order], cell.weights.take(self._index(order)))

    def remove(self, rows: IntArray, slots: Sequence[int]) -> None:
        """Drop the seeds of the given networks in the given slots; an empty cell disappears."""
        for part in [part for part in self.cells if part.slot in slots]:
            cell = self.cells[part]
            is_kept = ~np.isin(cell.rows, rows)
            if not is_kept.any():
                del self.cells[part]
            elif not is_kept.all():
                kept = self._index(np.flatnonzero(is_kept))
                self.cells[part] = Cell(cell.rows[is_kept], cell.weights.take(kept))
        for slot in slots:
            self.operator[rows, slot], self.in_training[rows, slot] = NO_SEED, False

    def take(self, rows: IntArray) -> Networks:
        """Independent copies of the given networks, in the given order; `rows` may repeat."""
        cells = {}
        for part, cell in self.cells.items():
            positions, members = np.nonzero(rows[:, None] == cell.rows[None, :])  # of [len(rows), R]
            if len(positions):
                cells[part] = Cell(positions, cell.weights.take(self._index(members)))
        hosts = self.hosts.take(self._index(rows))
        return self._with(
            hosts=hosts,
            cells=cells,
            operator=self.operator[rows],
            in_training=self.in_training[rows],
            conditions=self.conditions.take(rows),
        )

    def put(self, rows: IntArray, source: Networks) -> None:
        """Overwrite the given distinct networks with copies of others."""
        self.remove(rows, range(self.operator.shape[1]))
        self.hosts.put_(self._index(rows), source.hosts)
        for part, cell in source.cells.items():
            everything = self._index(np.arange(len(cell.rows)))
            self.insert(part, rows[cell.rows], cell.weights.take(everything))
        self.operator[rows], self.in_training[rows] = source.operator, source.in_training
        self.conditions.put_(rows, source.conditions)

    def to(self, device: torch.device) -> Networks:
        """The same networks with their weights on a device."""
        cells = {part: Cell(cell.rows, cell.weights.to(device)) for part, cell in self.cells.items()}
        return self._with(hosts=self.hosts.to(device), cells=cells)

    def _index(self, rows: IntArray) -> torch.Tensor:
        """Row numbers as an index tensor on the device of the weights."""
        device = self.hosts.parameters.device
        return torch.from_numpy(np.asarray(rows, dtype=np.int64)).to(device, non_blocking=True)


def join_networks(parts: Sequence[Networks]) -> Networks:
    """Join networks of one setting, in order, on the device of the first ones."""
    device = parts[0].hosts.parameters.device
    starts = np.cumsum([0, *(len(part) for part in parts)])
    cells: dict[Part, list[Cell]] = {}
    for start, networks in zip(starts[:-1], (part.to(device) for part in parts), strict=True):
        for part, cell in networks.cells.items():
            cells.setdefault(part, []).append(Cell(cell.rows + start, cell.weights))
    return parts[0]._with(
        hosts=concatenate([part.hosts.to(device) for part in parts]),
        cells={
            part: Cell(np.concatenate([c.rows for c in found]), concatenate([c.weights for c in found]))
            for part, found in cells.items()
        },
        operator=np.concatenate([part.operator for part in parts]),
        in_training=np.concatenate([part.in_training for part in parts]),
        conditions=join_rows([part.conditions for part in parts]),
    )
