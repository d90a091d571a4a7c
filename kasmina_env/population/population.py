"""N networks that train and grow side by side. No reinforcement learning in here."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch

from kasmina_env.config import Operator
from kasmina_env.hosts import Host
from kasmina_env.layers import widen
from kasmina_env.population import evaluate as evaluation
from kasmina_env.population import train as training
from kasmina_env.population.augment import draw_changes, gather_changed
from kasmina_env.population.export import GrownNetwork, GrownSeed, Recipe, build_network
from kasmina_env.population.optim import Optimizer
from kasmina_env.population.state import (
    GATE,
    NO_SEED,
    BoolArray,
    FloatArray,
    IntArray,
    Networks,
    Part,
    Streams,
    make_setting,
)
from kasmina_env.population.train import GradientHealth
from kasmina_env.tasks import Measure, Split, classify

Rows = Sequence[int] | IntArray


@dataclass(frozen=True)
class Snapshot:
    """Networks with everything their future depends on; a population never changes it."""

    networks: Networks
    streams: tuple[Streams, ...]
    learning_rate: FloatArray  # [N]

    def __len__(self) -> int:
        return len(self.streams)


class Population:
    """N networks of one host, each with its own seeds, optimiser state and random streams.

    Args:
        host: Recipe of the host network.
        rng_seeds: One integer for each network: row i draws the same initial weights and minibatches whatever N is.
        optimizer: Settings of the optimiser.
        device: Where the networks live.
        dtype: Floating-point type of parameters and data.
        measure: Loss and quality of the networks' logits, as a task gives it.
    """

    def __init__(
        self,
        host: Host,
        rng_seeds: Sequence[int],
        optimizer: Optimizer | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        measure: Measure = classify,
    ) -> None:
        if not len(rng_seeds):
            raise ValueError("`rng_seeds` must hold one integer for each network, got none. Give at least one.")
        self.setting = make_setting(host, optimizer or Optimizer(), torch.device(device), dtype, measure)
        self._streams = [Streams.from_seed(seed) for seed in rng_seeds]
        hosts = self.setting.draw_stack(self.setting.host_template, [s.growth for s in self._streams])
        shape = (len(rng_seeds), self.setting.num_slots)
        self._networks = Networks(self.setting, hosts, {}, np.full(shape, NO_SEED), np.zeros(shape, dtype=bool))
        self.learning_rate = np.full(len(rng_seeds), self.setting.optimizer.learning_rate)  # [N]

    @property
    def num_networks(self) -> int:
        return len(self._networks)

    @property
    def num_slots(self) -> int:
        return self.setting.num_slots

    # ── training and evaluation ──────────────────────────────────────────────────────────────

    def draw_minibatches(
        self, data: Split, num_batches: int, batch_size: int, augment: str = "none"
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Every network draws samples, with replacement, from its own stream, and how they are changed.

        Args:
            data: To draw from.
            num_batches, batch_size: K and B.
            augment: A name in `kasmina_env.config.AUGMENTATIONS`.

        Returns:
            Wide inputs, `num_batches` times ``[B, N*C, ...]``, and labels, `num_batches` times ``[B, N]`` (tokens:
            ``[B, N*T]`` and ``[B, N, T]``).
        """
        shape = (num_batches, batch_size)
        draws = [streams.data.integers(len(data), size=shape) for streams in self._streams]
        index = self.setting.index(np.stack(draws, axis=2))  # [K, B, N]
        labels = [data.y[i] for i in index]
        if augment == "none":
            return [widen(data.x[i]) for i in index], labels
        size = data.x.shape[-1]
        draws = [draw_changes(streams.data, shape, size, augment) for streams in self._streams]
        changes = self.setting.index(np.stack(draws, axis=2))  # [K, B, N, 3]
        return [widen(gather_changed(data.x, i, change)) for i, change in zip(index, changes, strict=True)], labels

    def train(
        self, x: Sequence[torch.Tensor], y: Sequence[torch.Tensor], alpha: FloatArray
    ) -> tuple[torch.Tensor, GradientHealth]:
        """Train on wide minibatches (see `draw_minibatches`) with every seed at its alpha ``[N, S]``.

        Returns:
            Mean loss ``[N]`` and gradient health, on the device.
        """
        with torch.inference_mode(False), torch.enable_grad():
            return training.train(self._networks, x, y, alpha, self.learning_rate)

    def evaluate(
        self, data: Split, alpha: FloatArray, off: BoolArray | None = None, rows: Rows | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and quality on shared data, under one or more settings of seeds switched off.

        Args:
            data: n samples.
            alpha: Amplitudes ``[N, S]``.
            off: ``[M, N, S]``; left out: one setting with everything on.
            rows: R networks to evaluate; all by default.

        Returns:
            Mean loss ``[M, R]`` and quality ``[M, R]``, on the device.
        """
        if off is None:
            off = np.zeros((1, self.num_networks, self.num_slots), dtype=bool)
        chosen = self._check_rows(rows)
        if np.array_equal(chosen, np.arange(self.num_networks)):
            return evaluation.evaluate(self._networks, data, alpha, off)
        return evaluation.evaluate(self._networks.take(chosen), data, alpha[chosen], off[:, chosen])

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

    # ── growing ──────────────────────────────────────────────────────────────────────────────

    def germinate(self, rows: Rows, slot: int, blueprint: str, operator: Operator, in_training: bool = True) -> None:
        """Grow a fresh seed in the same slot of the given networks, which must be empty there.

        Args:
            rows: Different networks.
            slot: Index of the slot.
            blueprint: Registered name.
            operator: How the seed will be blended in.
            in_training: Start behind the straight-through estimator (the output of the network does not change).
        """
        rows, networks = self._check_different(rows), self._networks
        taken = rows[networks.has_seed[rows, slot]]
        if len(taken):
            raise ValueError(
                f"`rows` must have no seed in slot {slot}, got {taken.tolist()}, which do. Remove theirs first."
            )
        draws = [self._streams[row].growth for row in rows]
        for name in (blueprint, GATE) if operator is Operator.GATE else (blueprint,):
            part = Part(slot, name)
            networks.insert(part, rows, self.setting.draw_stack(self.setting.template(part), draws))
        networks.operator[rows, slot], networks.in_training[rows, slot] = operator, in_training

    def connect(self, rows: Rows, slot: int) -> None:
        """End TRAINING in a slot of the given networks: from now on their seeds act at their alpha.

        Weights and optimiser state stay as they are.
        """
        self._networks.in_training[self._check_rows(rows), slot] = False

    def remove(self, rows: Rows, slot: int) -> None:
        """Drop the seeds in a slot of the given networks, with their optimiser state."""
        self._networks.remove(self._check_rows(rows), [slot])

    # ── whole networks ───────────────────────────────────────────────────────────────────────

    def reset_rows(self, rows: Rows, rng_seeds: Sequence[int]) -> None:
        """Replace networks by fresh hosts without seeds, drawn from new random streams."""
        rows = self._check_different(rows)
        self._networks.remove(rows, range(self.num_slots))
        self.reseed(rows, rng_seeds)
        draws = [self._streams[row].growth for row in rows]
        fresh = self.setting.draw_stack(self.setting.host_template, draws)
        self._networks.hosts.put_(self.setting.index(rows), fresh)

    def reseed(self, rows: Rows, rng_seeds: Sequence[int]) -> None:
        """Give networks new random streams; nothing else changes."""
        for row, seed in zip(self._check_rows(rows), rng_seeds, strict=True):
            self._streams[row] = Streams.from_seed(seed)

    def snapshot(self, rows: Rows | None = None) -> Snapshot:
        """Copy networks (all by default) with everything their future depends on."""
        rows = self._check_rows(rows)
        streams = tuple(deepcopy(self._streams[row]) for row in rows)
        return Snapshot(self._networks.take(rows), streams, self.learning_rate[rows])

    def restore(self, saved: Snapshot, rows: Rows | None = None) -> None:
        """Overwrite networks (all by default) by those of a snapshot, in order."""
        rows = self._check_different(rows)
        if len(rows) != len(saved):
            raise ValueError(
                f"`rows` must be {len(saved)} networks, got {rows.tolist()}. Give one for each network of the snapshot."
            )
        self._networks.put(rows, saved.networks)
        self.learning_rate[rows] = saved.learning_rate
        for row, streams in zip(rows, saved.streams, strict=True):
            self._streams[row] = deepcopy(streams)

    def copy_rows(self, source: Rows, target: Rows) -> None:
        """Fork training runs: network target[i] becomes a copy of source[i], random streams included."""
        self.restore(self.snapshot(source), target)

    def network(self, row: int, alpha: FloatArray, keep: BoolArray | None = None) -> GrownNetwork:
        """One network as an ordinary module with its own copy of the weights.

        Args:
            row: Which.
            alpha: Its amplitudes ``[S]``; a seed in TRAINING changes nothing and is left out.
            keep: Slots ``[S]`` whose seeds come along; all by default.
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
        return build_network(Recipe(self.setting.host, seeds), tensors)
