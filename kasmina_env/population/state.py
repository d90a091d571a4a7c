"""The state of a population: which networks there are, what grows in them, and their private random streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from kasmina_env.blend import Gate
from kasmina_env.blueprints import BLUEPRINTS, build_seed
from kasmina_env.config import Operator
from kasmina_env.hosts import Host, SegmentedNetwork
from kasmina_env.population.optim import Optimizer
from kasmina_env.population.stack import (
    RandomStream,
    Stack,
    Template,
    concatenate,
    make_template,
    new_stack,
)

IntArray = NDArray[np.int64]


class Kind(NamedTuple):
    """What the seeds of one cell have in common."""

    slot: int
    blueprint: str
    operator: Operator
    in_training: bool  # behind the straight-through estimator


@dataclass(frozen=True)
class Cell:
    """Seeds of one kind, in ascending order of the networks that hold them."""

    rows: IntArray  # [R]
    weights: Stack
    device_rows: torch.Tensor  # [R] the same rows, where the weights are


@dataclass
class Streams:
    """Random streams of one network: growing does not disturb the order of its data."""

    data: RandomStream
    growth: RandomStream

    @classmethod
    def from_seed(cls, rng_seed: int) -> Streams:
        data, growth = np.random.SeedSequence(rng_seed).spawn(2)
        return cls(np.random.default_rng(data), np.random.default_rng(growth))


@dataclass(frozen=True)
class Setting:
    """What every network of a population shares and no step changes."""

    host: Host
    optimizer: Optimizer
    num_networks: int
    device: torch.device
    dtype: torch.dtype
    host_template: Template
    seed_templates: dict[tuple[int, str, Operator], Template] = field(default_factory=dict)

    @property
    def num_slots(self) -> int:
        return len(self.host.slots)

    def seed_template(self, slot: int, blueprint: str, operator: Operator) -> Template:
        """The architecture of a seed, built when it is first needed."""
        key = (slot, blueprint, operator)
        if key not in self.seed_templates:
            self.seed_templates[key] = self._make_seed_template(*key)
        return self.seed_templates[key]

    def _make_seed_template(self, slot: int, name: str, operator: Operator) -> Template:
        info, channels = BLUEPRINTS.get(name), self.host.slots[slot].channels
        if self.host.topology not in info.topologies:
            raise ValueError(
                f"`blueprint` must accept {self.host.topology} features, got {name!r}, which accepts "
                f"{', '.join(info.topologies)}. Choose a blueprint for this host."
            )
        initial = {f"delta.{key}": value for key, value in info.initial.items()}
        if operator is Operator.GATE:
            initial |= {f"gate.{key}": value for key, value in Gate.INITIAL.items()}
        return make_template(partial(build_seed, blueprint=name, operator=operator, channels=channels), initial)

    def draw_stack(self, template: Template, streams: Sequence[RandomStream]) -> Stack:
        """Freshly initialised networks, one from each random stream."""
        values = np.stack([template.draw(stream) for stream in streams])
        parameters = torch.from_numpy(values).to(self.device, self.dtype)
        return new_stack(parameters, self.optimizer.num_moments)

    def index(self, rows: IntArray | Sequence[int]) -> torch.Tensor:
        """Row numbers as an index tensor on the population's device."""
        return torch.as_tensor(np.asarray(rows, dtype=np.int64), device=self.device)


def make_setting(
    host: Host, num_networks: int, optimizer: Optimizer, device: torch.device, dtype: torch.dtype
) -> Setting:
    """Check and assemble the shared settings of a population."""
    if num_networks < 1:
        raise ValueError(f"`num_networks` must be at least 1, got {num_networks}. Ask for one.")
    template = make_template(lambda nn: SegmentedNetwork(host.build(nn)))
    return Setting(host, optimizer, num_networks, device, dtype, template)


Cells = dict[Kind, Cell]


def insert_seeds(setting: Setting, cells: Cells, kind: Kind, rows: IntArray, weights: Stack) -> None:
    """File seeds under their kind, keeping the rows of the cell in ascending order."""
    if kind in cells:
        old = cells[kind]
        rows = np.concatenate([old.rows, rows])
        weights = concatenate([old.weights, weights])
    order = np.argsort(rows)
    if (np.diff(order) != 1).any():
        rows, weights = rows[order], weights.take(setting.index(order))
    cells[kind] = Cell(rows, weights, setting.index(rows))


def extract_seeds(setting: Setting, cells: Cells, kind: Kind, rows: IntArray) -> tuple[IntArray, Stack]:
    """Take the seeds of the given networks out of a cell; an empty cell disappears. Returns rows found and seeds."""
    cell = cells[kind]
    is_taken = np.isin(cell.rows, rows)
    taken = cell.weights.take(setting.index(np.flatnonzero(is_taken)))
    if is_taken.all():
        del cells[kind]
    elif is_taken.any():
        keep = np.flatnonzero(~is_taken)
        kept_rows = cell.rows[keep]
        weights = cell.weights.take(setting.index(keep))
        cells[kind] = Cell(kept_rows, weights, setting.index(kept_rows))
    return cell.rows[is_taken], taken
