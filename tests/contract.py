"""What the tests of the engine share: populations in which no two rows are alike, and their plain networks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kasmina_env.networks.blueprints import BLUEPRINTS
from kasmina_env.networks.grown import GrownNetwork
from kasmina_env.networks.hosts import HOSTS, CNNHost, Host, TransformerHost, make_network
from kasmina_env.population import Optimizer, Population, Snapshot
from kasmina_env.population.stack import Stack
from kasmina_env.population.state import GATE, Part
from kasmina_env.settings.config import Operator
from kasmina_env.tasks import Split

HOSTS_UNDER_TEST = {name: HOSTS.get(name)() for name in HOSTS}
HOSTS_UNDER_TEST["transformer"] = TransformerHost(num_classes=7, context=5, width=8)
HOSTS_UNDER_TEST["transformer_without_heads"] = TransformerHost(num_classes=5, context=4, width=6, num_heads=0)
HOSTS_UNDER_TEST["cnn_3x3"] = CNNHost(in_channels=2, num_classes=3, width=4, kernels=(3, 1, 3))
HOSTS_UNDER_TEST["cnn_batch_norm"] = CNNHost(width=4, kernels=(3, 3, 3), norm="batch")
# its slots act in another order than they are listed in
HOSTS_UNDER_TEST["cnn_both"] = CNNHost(
    num_classes=8, width=16, image_size=12, kernels=(3, 1), pools=(0,), stem=2, pooling="average", slots_at="both"
)
IMAGE_HOSTS = {name: host for name, host in HOSTS_UNDER_TEST.items() if host.topology == "image"}
TRAINING = "TRAINING"
STAGES = (None, TRAINING, 0.2, 0.7, 1.0)  # no seed, behind the straight-through estimator, or live at this alpha
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
# Without clipping and momentum, the moments left by the first step are the gradient itself.
BARE_SGD = Optimizer("sgd", learning_rate=0.1, momentum=0.0, clip_norm=0.0)

BoolArray = np.ndarray
FloatArray = np.ndarray


every_host = pytest.mark.parametrize("host", HOSTS_UNDER_TEST.values(), ids=HOSTS_UNDER_TEST)
every_seed = pytest.mark.parametrize(
    "name, operator, topology",
    [
        pytest.param(name, operator, topology, id=f"{name}-{operator.name}-{topology}")
        for name in BLUEPRINTS
        for operator in Operator
        for topology in BLUEPRINTS.get(name).topologies
    ],
)


def blueprints_for(topology: str) -> list[str]:
    return [name for name in BLUEPRINTS if topology in BLUEPRINTS.get(name).topologies]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def features(topology: str, channels: int, batch: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal features of one network."""
    shape = {"image": (channels, 8, 8), "vector": (channels,), "tokens": (5, channels)}[topology]
    return normal(batch, *shape, seed=seed, dtype=dtype)


def minibatch(host: Host, num_networks: int, batch: int = 5, seed: int = 0, dtype: torch.dtype = torch.float32):
    """Inputs ``[B, N, ...]`` and labels ``[B, N]``; tokens ``[B, N, T]`` both."""
    rng, size = np.random.default_rng(seed), (batch, num_networks)
    if host.topology == "tokens":
        tokens = rng.integers(host.num_classes, size=(2, *size, *host.input_shape))
        return tuple(torch.from_numpy(tokens))
    labels = rng.integers(host.num_classes, size=size)
    return normal(*size, *host.input_shape, seed=seed, dtype=dtype), torch.from_numpy(labels)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over samples, and over the tokens of each, of a plain network's loss."""
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten())


def samples(host: Host, size: int = 110, dtype: torch.dtype = torch.float32) -> Split:
    """Data that all networks share."""
    x, y = minibatch(host, 1, batch=size, seed=3, dtype=dtype)
    return Split(x[:, 0], y[:, 0])


# ── populations ─────────────────────────────────────────────────────────────────────────────────


def mixed_population(
    host: Host,
    dtype: torch.dtype = torch.float32,
    optimizer: Optimizer | None = None,
    num_networks: int | None = None,
    device: str = "cpu",
    engine: str | None = None,
) -> tuple[Population, FloatArray]:
    """A population with its alpha ``[N, S]`` whose slots hold every blueprint under every operator in every stage.

    With `num_networks` it is cut short, and holds a sample of them.
    """
    places = list(product(blueprints_for(host.topology), Operator, STAGES))
    np.random.default_rng(0).shuffle(places)
    num_slots = len(host.slots)
    num_networks = num_networks or -(-len(places) // num_slots)
    population = Population(host, range(num_networks), optimizer, device, dtype, engine=engine)
    alpha = np.full((num_networks, num_slots), 0.5)  # of a slot without seed or in TRAINING: to be ignored
    for (row, slot), (blueprint, operator, stage) in zip(np.ndindex(*alpha.shape), places, strict=False):
        if stage is not None:
            population.germinate([row], slot, blueprint, operator, in_training=stage == TRAINING)
        if isinstance(stage, float):
            alpha[row, slot] = stage
    shake(population)
    return population, alpha


def crowded_population(
    host: Host,
    dtype: torch.dtype = torch.float32,
    optimizer: Optimizer | None = None,
    engine: str | None = None,
) -> tuple[Population, FloatArray]:
    """A population with its alpha ``[N, S]`` in which every cell has each operator both in TRAINING and live."""
    places = list(product(blueprints_for(host.topology), Operator, (True, False)))
    population = Population(host, range(len(places)), optimizer, dtype=dtype, engine=engine)
    for slot, (i, place) in product(range(population.num_slots), enumerate(places)):
        population.germinate([(i + 7 * slot) % len(places)], slot, *place)
    shake(population)
    return population, np.random.default_rng(0).uniform(0.1, 1.0, (len(places), population.num_slots))


class Kind(NamedTuple):
    """What grows in a slot of a row."""

    row: int
    slot: int
    blueprint: str
    operator: Operator
    in_training: bool


def kinds(population: Population, rows: Sequence[int] | None = None) -> list[Kind]:
    """All seeds, or those of some rows."""
    rows = range(population.num_networks) if rows is None else rows
    networks = population.snapshot(rows).networks
    places = [(i, *part) for part, cell in networks.cells.items() if part.name != GATE for i in cell.rows.tolist()]
    return [
        Kind(rows[i], slot, name, Operator(networks.operator[i, slot]), bool(networks.in_training[i, slot]))
        for i, slot, name in places
    ]


def shake(population: Population) -> None:
    """Move all seeds away from their special values at birth."""
    saved = population.snapshot()
    for i, cell in enumerate(saved.networks.cells.values()):
        flat = cell.weights.parameters
        flat.add_(0.1 * normal(*flat.shape, seed=i, dtype=flat.dtype).to(flat.device))
    population.restore(saved)


def plant(population: Population, row: int, value: float, in_host: bool = False, slots: Sequence[int] = ()) -> None:
    """Overwrite all weights of a row's host, or of its seeds in the given slots."""
    saved = population.snapshot([row])
    if in_host:
        saved.networks.hosts.parameters.fill_(value)
    for part, cell in saved.networks.cells.items():
        if part.slot in slots:
            cell.weights.parameters.fill_(value)
    population.restore(saved, [row])


def stacks(population: Population, rows: list[int] | None = None) -> list[Tensor]:
    """Every number in the networks of the given rows, in a fixed order."""
    return stacks_of(population.snapshot(rows))


def stacks_of(saved: Snapshot) -> list[Tensor]:
    """Every number in the networks of a snapshot, in a fixed order."""
    networks = saved.networks
    cells = [networks.cells[part] for part in sorted(networks.cells)]
    stages = [networks.operator, networks.in_training, *(cell.rows for cell in cells)]
    weights = [networks.hosts, *(cell.weights for cell in cells)]
    return [*(torch.from_numpy(array) for array in stages), *numbers(weights)]


def seed_stacks(population: Population, row: int, slot: int) -> list[Tensor]:
    """Weights, moments and steps of the seed in a slot, behind those of its gate; nothing where no seed grows."""
    cells = population.snapshot([row]).networks.cells
    return numbers([cells[part].weights for part in sorted(cells) if part.slot == slot])


def numbers(weights: list[Stack]) -> list[Tensor]:
    """Weights, moments and steps of some stacks."""
    return [tensor for stack in weights for tensor in (stack.parameters, stack.moments, stack.steps)]


def are_identical(left: list[Tensor], right: list[Tensor]) -> bool:
    """Bit for bit; NaN equals NaN."""
    return len(left) == len(right) and all(
        torch.equal(a.nan_to_num(nan=12345.0), b.nan_to_num(nan=12345.0)) for a, b in zip(left, right, strict=True)
    )


# ── plain networks ──────────────────────────────────────────────────────────────────────────────


class PlainSlot(nn.Module):
    """The definition of a slot, written out for one network: ``s = x + delta(x)``, and each operator as its formula."""

    def __init__(self, kind: Kind, topology: str, channels: int, alpha: float) -> None:
        super().__init__()
        self.delta = BLUEPRINTS.get(kind.blueprint).builder(topology).build(nn, channels)
        self.operator, self.alpha, self.in_training = kind.operator, alpha, kind.in_training
        if kind.operator is Operator.GATE:
            hidden = max(8, channels // 4)
            self.gate = nn.ModuleDict({"hidden": nn.Linear(channels, hidden), "score": nn.Linear(hidden, 1)})

    def gate_value(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1) if x.ndim == 4 else x
        value = torch.sigmoid(self.gate["score"](F.relu(self.gate["hidden"](pooled))))
        return value.view(*value.shape, 1, 1) if x.ndim == 4 else value

    def term(self, x: Tensor) -> Tensor:
        s = x + self.delta(x)
        if self.operator is Operator.MULTIPLY:
            return x * torch.tanh(s - x)
        return self.gate_value(x) * (s - x) if self.operator is Operator.GATE else s - x

    def forward(self, h: Tensor) -> Tensor:
        if self.in_training:
            term = self.term(h.detach())
            return h + (term - term.detach())
        return h + self.alpha * self.term(h)


def row_state(population: Population, row: int, moment: int | None = None) -> dict[str, Tensor]:
    """Parameters of a row by their names in its plain network, or one of their moments."""
    networks, setting = population.snapshot([row]).networks, population.setting

    def flat(stack: Stack) -> Tensor:
        return stack.parameters if moment is None else stack.moments[moment]

    state = setting.host_template.named(flat(networks.hosts), "network.")
    for part, cell in networks.cells.items():
        state |= setting.template(part).named(flat(cell.weights), prefix_of(part))
    return state


def prefix_of(part: Part) -> str:
    """Where a blueprint or a gate is in the plain network."""
    return f"slots.{part.slot}.gate." if part.name == GATE else f"slots.{part.slot}.delta."


def plain_network(population: Population, alpha: FloatArray, row: int) -> GrownNetwork:
    """A row as `torch.nn` layers, with its seeds in TRAINING."""
    setting = population.setting
    slots: list[nn.Module] = [nn.Identity() for _ in setting.host.slots]
    for kind in kinds(population, [row]):
        channels = setting.host.slots[kind.slot].channels
        amplitude = float(alpha[row, kind.slot])
        slots[kind.slot] = PlainSlot(kind, setting.host.topology, channels, amplitude)
    plain = GrownNetwork(make_network(setting.host, nn), slots).to(setting.dtype)
    load(plain, row_state(population, row))
    return plain


@torch.no_grad()
def load(plain: nn.Module, state: dict[str, Tensor]) -> None:
    """Set all parameters and running statistics, by name."""
    own = state_of(plain)
    assert own.keys() == state.keys()
    for name, p in own.items():
        p.copy_(state[name])


def without(plain: GrownNetwork, off: BoolArray) -> GrownNetwork:
    """The same network without the seeds that are off ``[S]``."""
    slots = [nn.Identity() if is_off else slot for is_off, slot in zip(off, plain.slots, strict=True)]
    return GrownNetwork(plain.network, slots)


def state_of(plain: nn.Module) -> dict[str, Tensor]:
    """Parameters, a tied one once, and running statistics; torch's counter of minibatches is none of a population's."""
    buffers = {name: b for name, b in plain.named_buffers() if not name.endswith("num_batches_tracked")}
    return dict(plain.named_parameters()) | buffers


def deviation(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Largest difference between two sets of tensors, which must have the same names."""
    assert found.keys() == wanted.keys()
    return max((found[name] - wanted[name]).abs().max().item() for name in wanted)


@contextmanager
def sync_debug_mode(mode: str) -> Iterator[None]:
    """What PyTorch does where the host waits for a GPU: "warn" or "error"."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
