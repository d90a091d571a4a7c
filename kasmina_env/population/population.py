"""N networks that train and grow side by side. No reinforcement learning in here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray
from kasmina_env.networks.grown import GrownNetwork, GrownSeed, NetworkSpec, build_network
from kasmina_env.networks.hosts import Host
from kasmina_env.networks.layers import widen
from kasmina_env.population.augment import draw_moves, gather_moved
from kasmina_env.population.engine import TorchEngine, choose_engine
from kasmina_env.population.noise import noisy_inputs, noisy_labels, seen_by_all
from kasmina_env.population.optim import Optimizer
from kasmina_env.population.state import (
    GATE,
    NO_SEED,
    Conditions,
    Networks,
    Part,
    Streams,
    join_networks,
    make_setting,
)
from kasmina_env.population.train import GradientHealth
from kasmina_env.settings.config import Operator
from kasmina_env.tasks import Criterion, Split, classify

Rows = Sequence[int] | IntArray


@dataclass(frozen=True)
class Snapshot:
    """Copies of networks and their random streams. A population never changes a snapshot."""

    networks: Networks
    streams: tuple[Streams, ...]

    def __len__(self) -> int:
        return len(self.streams)

    def take(self, rows: IntArray) -> Snapshot:
        """Copies of some networks, in the given order; `rows` may repeat."""
        return Snapshot(self.networks.take(rows), tuple(deepcopy(self.streams[row]) for row in rows))

    @classmethod
    def join(cls, parts: Sequence[Snapshot]) -> Snapshot:
        """Networks of several snapshots of one setting, in order."""
        networks = join_networks([part.networks for part in parts])
        return cls(networks, tuple(streams for part in parts for streams in part.streams))


class Population:
    """N networks of one host, each with its own seeds, optimiser state and random streams.

    Args:
        host: Specification of the host network.
        rng_seeds: Seeds of the random streams, one integer per network. The draws of row i do not depend on N.
        optimizer: Settings of the optimiser.
        device: Device of the networks.
        dtype: Floating-point type of weights and features; optimiser state, losses and qualities are at least in
            float32. In bfloat16 a step smaller than a 512th of a weight does not move it.
        criterion: Function of logits and labels that returns loss and quality, from the task.
        variants: Smaller versions of `host`; `conditions` names each network's. By default all are whole.
        conditions: Learning rate, noise and variant of each network; by default the optimiser's rate and no noise.
        birth_gain: Factor of the constants that keep newborn seeds near identity. With a large gain a seed
            disturbs its network at once.
        initial_weights: Parameters of every fresh host ``[P]`` (see `load_initial_weights`); random by default.
        engine: Name in `kasmina_env.population.ENGINES`; default: the environment variable KASMINA_ENGINE, or "auto" if
            that is unset. "auto" is "fused" where the setting and all seeds grown allow it, otherwise "torch".
    """

    def __init__(
        self,
        host: Host,
        rng_seeds: Sequence[int],
        optimizer: Optimizer | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        criterion: Criterion = classify,
        variants: Sequence[Host] = (),
        conditions: Conditions | None = None,
        birth_gain: float = 1.0,
        initial_weights: FloatArray | None = None,
        engine: str | None = None,
    ) -> None:
        if not len(rng_seeds):
            raise ValueError("`rng_seeds` must hold one integer for each network, got none. Give at least one.")
        where, optimizer = torch.device(device), optimizer or Optimizer()
        self._make_setting = partial(
            make_setting, host, optimizer, where, dtype, criterion, variants, birth_gain, initial_weights
        )
        self.setting = self._make_setting()
        self._engine, self._engine_reason = choose_engine(engine, self.setting)
        self._engine_asked = engine
        self._streams = [Streams.from_seed(seed) for seed in rng_seeds]
        conditions = conditions or Conditions.plain(len(rng_seeds), self.setting.optimizer.learning_rate)
        hosts = self.setting.draw_hosts([s.growth for s in self._streams], conditions.variant)
        shape = (len(rng_seeds), self.setting.num_slots)
        state = (np.full(shape, NO_SEED), np.zeros(shape, dtype=bool), conditions)
        self._networks = Networks(self.setting, hosts, {}, *state)

    def __getstate__(self) -> dict[str, Any]:
        # Leave the setting out: its modules hold the weights of the latest call, its recordings belong to this process.
        state = {name: value for name, value in vars(self).items() if name not in ("setting", "_engine")}
        return {**state, "is_recording": self.setting.recordings.is_on}

    def __setstate__(self, state: dict[str, Any]) -> None:
        is_recording = state.pop("is_recording")
        vars(self).update(state)
        self.setting = self._networks.setting = self._make_setting()
        self.setting.recordings.is_on = is_recording
        is_fused_no_more = self._engine_reason and self._engine_asked != "fused"
        self._engine, _ = choose_engine("torch" if is_fused_no_more else self._engine_asked, self.setting)

    @property
    def num_networks(self) -> int:
        return len(self._networks)

    @property
    def num_slots(self) -> int:
        return self.setting.num_slots

    @property
    def learning_rate(self) -> FloatArray:
        """Learning rate of each network ``[N]``; may be changed in place."""
        return self._networks.conditions.learning_rate

    @property
    def conditions(self) -> Conditions:
        """Conditions of the networks. All but the variants may be changed in place."""
        return self._networks.conditions

    @property
    def engine(self) -> str:
        """Name of the engine that trains and evaluates."""
        return self._engine.name

    @property
    def engine_reason(self) -> str:
        """Reason why "auto" chose "torch"; empty otherwise."""
        return self._engine_reason

    # ── training and evaluation ──────────────────────────────────────────────────────────────

    def draw_minibatches(
        self, data: Split, num_batches: int, batch_size: int, augment: str = "none", rows: Rows | None = None
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Draw samples (with replacement) and their augmentation for each network from its own stream.

        Args:
            data: Samples to draw from.
            num_batches, batch_size: Number K of minibatches, and their size B.
            augment: A name in `kasmina_env.settings.config.AUGMENTATIONS`.
            rows: R networks that draw; all by default.

        Returns:
            Wide inputs, `num_batches` times (see `widen`), and labels, `num_batches` times ``[B, R]``
            (tokens: ``[B, R, T]``).
        """
        chosen, shape = self._check_rows(rows), (num_batches, batch_size)
        streams = [self._streams[row].data for row in chosen]
        draws = [stream.integers(len(data), size=shape) for stream in streams]
        index = self.setting.index(np.stack(draws, axis=2))  # [K, B, R]
        if data.changed is not None:
            version = self.setting.index(self._networks.conditions.change[chosen])
            x = [data.changed[version, i] for i in index]
        elif augment == "none":
            x = [data.x[i] for i in index]
        else:
            draws = [draw_moves(stream, shape, data.x.shape[-1], augment) for stream in streams]
            moves = self.setting.index(np.stack(draws, axis=2))  # [K, B, R, 3]
            x = [gather_moved(data.x, i, of_batch) for i, of_batch in zip(index, moves, strict=True)]
        if data.noise is None:
            return [widen(batch) for batch in x], [data.y[i] for i in index]
        conditions = self._networks.conditions.take(chosen)
        seen = [noisy_inputs(self.setting, conditions, data.noise, *pair) for pair in zip(x, index, strict=True)]
        return [widen(batch) for batch in seen], [noisy_labels(self.setting, conditions, data, i) for i in index]

    def train(
        self, x: Sequence[torch.Tensor], y: Sequence[torch.Tensor], alpha: FloatArray, pace: FloatArray | float = 1.0
    ) -> tuple[torch.Tensor, GradientHealth]:
        """Train on wide minibatches (see `draw_minibatches`) with every seed at its alpha ``[N, S]``.

        Args:
            x, y: Inputs and labels of K minibatches.
            alpha: Amplitudes ``[N, S]``.
            pace: Factor of the learning rates, ``[N]`` or a number.

        Returns:
            Mean loss ``[N]`` and gradient health, on the device.
        """
        with torch.inference_mode(False), torch.enable_grad():
            seed_rate = self.learning_rate * pace
            host_rate = self.setting.optimizer.host_factor * seed_rate
            return self._engine.train(self._networks, x, y, alpha, host_rate, seed_rate)

    def warm_up(
        self, data: Split, num_batches: int, batch_size: int, learning_rate: float, rows: Rows
    ) -> GradientHealth:
        """Train the given networks, which must have no seeds, on `num_batches` minibatches at `learning_rate`."""
        rows = self._check_different(rows)
        chosen = self._networks.take(rows)
        x, y = self.draw_minibatches(data, num_batches, batch_size, rows=rows)
        with torch.inference_mode(False), torch.enable_grad():
            alpha, rates = np.zeros((len(rows), self.num_slots)), np.full(len(rows), learning_rate)
            _, health = self._engine.train(chosen, x, y, alpha, rates, rates)
        self._networks.put(rows, chosen)
        return health

    def evaluate(
        self, data: Split, alpha: FloatArray, off: BoolArray | None = None, rows: Rows | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and quality on shared data, for M choices of seeds to switch off.

        Args:
            data: Samples.
            alpha: Amplitudes ``[N, S]``.
            off: Seeds to switch off ``[M, N, S]``; by default M is 1 and all seeds are on.
            rows: R networks to evaluate; all by default.

        Returns:
            Mean loss ``[M, R]`` and quality ``[M, R]``, on the device.
        """
        ((loss, quality),) = self.evaluate_together([data], alpha, [off], rows)
        return loss, quality

    def evaluate_together(
        self, data: Sequence[Split], alpha: FloatArray, off: Sequence[BoolArray | None], rows: Rows | None = None
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """`evaluate` on several splits, each with its own `off`. Splits of equal length share one forward."""
        everything_on = np.zeros((1, self.num_networks, self.num_slots), dtype=bool)
        choices = [everything_on if o is None else o for o in off]
        networks, chosen = self._networks, self._check_rows(rows)
        if not np.array_equal(chosen, np.arange(self.num_networks)):
            networks, alpha, choices = networks.take(chosen), alpha[chosen], [o[:, chosen] for o in choices]
        if len({len(split) for split in data}) == 1:
            return self._engine.evaluate(networks, data, alpha, choices)
        pairs = zip(data, choices, strict=True)
        return [self._engine.evaluate(networks, [split], alpha, [o])[0] for split, o in pairs]

    def _check_rows(self, rows: Rows | None) -> IntArray:
        """Row numbers as an array; all by default."""
        if rows is None:
            return np.arange(self.num_networks)
        numbers = np.asarray(rows, dtype=np.int64)
        if ((numbers < 0) | (numbers >= self.num_networks)).any():
            last = self.num_networks - 1
            raise ValueError(f"`rows` must lie between 0 and {last}, got {numbers.tolist()}. Name rows that exist.")
        return numbers

    def _check_different(self, rows: Rows | None) -> IntArray:
        numbers = self._check_rows(rows)
        if len(np.unique(numbers)) != len(numbers):
            raise ValueError(f"`rows` must be different networks, got {numbers.tolist()}. Name each once.")
        return numbers

    def seen_by(self, row: int, data: Split) -> Split:
        """Data as one network sees it in evaluation, with its noise and change already applied."""
        one = self._networks.take(self._check_rows([row]))
        return Split(seen_by_all(one, data, 0, len(data))[:, 0], data.y)

    # ── growing ──────────────────────────────────────────────────────────────────────────────

    def germinate(self, rows: Rows, slot: int, blueprint: str, operator: Operator, in_training: bool = True) -> None:
        """Grow a fresh seed in the same slot of the given networks, which must be empty there.

        Args:
            rows: Different networks.
            slot: Index of the slot.
            blueprint: Registered name.
            operator: Blend operator of the seed.
            in_training: Whether the seed starts behind a straight-through estimator, which keeps the output unchanged.
        """
        rows, networks = self._check_different(rows), self._networks
        taken = rows[networks.has_seed[rows, slot]]
        if len(taken):
            raise ValueError(
                f"`rows` must have no seed in slot {slot}, got {taken.tolist()}, which do. Remove theirs first."
            )
        self._admit([(slot, blueprint, operator, in_training)])
        draws = [self._streams[row].growth for row in rows]
        for name in (blueprint, GATE) if operator is Operator.GATE else (blueprint,):
            part = Part(slot, name)
            networks.insert(part, rows, self.setting.draw_stack(self.setting.template(part), draws))
        networks.operator[rows, slot], networks.in_training[rows, slot] = operator, in_training

    def _admit(self, seeds: Iterable[tuple[int, str, Operator, bool]]) -> None:
        """Change to the torch engine for good if the present one cannot grow these seeds; raise under "fused"."""
        for slot, blueprint, operator, in_training in seeds:
            reason = self._engine.why_not(slot, blueprint, operator, in_training)
            if reason and self._engine_asked == "fused":
                raise ValueError(
                    f"`blueprint` must be one that the fused engine knows, got {blueprint!r}: {reason}. Use engine "
                    "'auto'."
                )
            if reason:
                self._engine, self._engine_reason = TorchEngine(), f"{reason}, which {blueprint!r} needs"

    def connect(self, rows: Rows, slot: int) -> None:
        """End TRAINING in a slot of the given networks: from now on their seeds act at their alpha.

        Weights and optimiser state stay as they are.
        """
        self._networks.in_training[self._check_rows(rows), slot] = False

    def remove(self, rows: Rows, slot: int) -> None:
        """Drop the seeds in a slot of the given networks, with their optimiser state."""
        self._networks.remove(self._check_rows(rows), [slot])

    # ── whole networks ───────────────────────────────────────────────────────────────────────

    def reset_rows(self, rows: Rows, rng_seeds: Sequence[int], conditions: Conditions | None = None) -> None:
        """Replace networks by fresh hosts without seeds, drawn from new random streams.

        Args:
            rows: R different networks.
            rng_seeds: Seeds of the new random streams ``[R]``.
            conditions: Conditions of the R networks; unchanged by default.
        """
        rows = self._check_different(rows)
        self._networks.remove(rows, range(self.num_slots))
        self.reseed(rows, rng_seeds)
        if conditions is not None:
            self.conditions.put_(rows, conditions)
        draws = [self._streams[row].growth for row in rows]
        fresh = self.setting.draw_hosts(draws, self.conditions.variant[rows])
        self._networks.hosts.put_(self.setting.index(rows), fresh)

    def reseed(self, rows: Rows, rng_seeds: Sequence[int]) -> None:
        """Give networks new random streams; nothing else changes."""
        for row, seed in zip(self._check_rows(rows), rng_seeds, strict=True):
            self._streams[row] = Streams.from_seed(seed)

    def copies(self, rows: Rows | None = None) -> Networks:
        """Copy networks (all by default) without their random streams."""
        return self._networks.take(self._check_rows(rows))

    def are_finite(self, acts: BoolArray) -> torch.Tensor:
        """Whether all weights of hosts and of the seeds that act ``[N, S]`` are finite ``[N]``, on the device."""
        return self._networks.are_finite(acts)

    def snapshot(self, rows: Rows | None = None) -> Snapshot:
        """Copy networks (all by default) and their random streams."""
        rows = self._check_rows(rows)
        streams = tuple(deepcopy(self._streams[row]) for row in rows)
        return Snapshot(self._networks.take(rows), streams)

    def restore(self, saved: Snapshot, rows: Rows | None = None) -> None:
        """Overwrite networks (all by default) by those of a snapshot, in order."""
        rows = self._check_different(rows)
        if len(rows) != len(saved):
            raise ValueError(
                f"`rows` must be {len(saved)} networks, got {rows.tolist()}. Give one for each network of the snapshot."
            )
        self._admit(saved.networks.seeds())
        self._networks.put(rows, saved.networks.to(self.setting.device))
        for row, streams in zip(rows, saved.streams, strict=True):
            self._streams[row] = deepcopy(streams)

    def copy_rows(self, source: Rows, target: Rows) -> None:
        """Fork training runs: network target[i] becomes a copy of source[i], random streams included."""
        self.restore(self.snapshot(source), target)

    def network(self, row: int, alpha: FloatArray, keep: BoolArray | None = None) -> GrownNetwork:
        """One network as an ordinary module with its own copy of the weights.

        Args:
            row: Number of the network.
            alpha: Amplitudes of its seeds ``[S]``. Seeds in TRAINING change nothing and are left out.
            keep: Mask of the slots whose seeds to keep ``[S]``; all by default.
        """
        one = self._networks.take(self._check_rows([row]))
        is_kept = one.has_seed[0] & ~one.in_training[0] & (True if keep is None else keep)
        tensors = self.setting.host_template.named(one.hosts.parameters, "network.")
        seeds: dict[int, GrownSeed] = {}
        for part, cell in one.cells.items():
            if not is_kept[part.slot]:
                continue
            child = "gate" if part.name == GATE else "delta"
            weights = cell.weights.parameters
            tensors |= self.setting.template(part).named(weights, f"slots.{part.slot}.seed.{child}.")
            if part.name != GATE:
                operator = Operator(int(one.operator[0, part.slot]))
                seeds[part.slot] = GrownSeed(part.name, operator, float(alpha[part.slot]))
        return build_network(NetworkSpec(self.setting.host, seeds), tensors)
