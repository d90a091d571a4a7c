"""N networks that train and grow side by side. No reinforcement learning in here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from kasmina_env.config import Operator
from kasmina_env.hosts import Host
from kasmina_env.layers import widen
from kasmina_env.population import evaluate as evaluation
from kasmina_env.population import rows as row_operations
from kasmina_env.population import train as training
from kasmina_env.population.export import GrownNetwork, GrownSeed, build_network
from kasmina_env.population.optim import Optimizer
from kasmina_env.population.rows import Snapshot
from kasmina_env.population.state import (
    Cells,
    IntArray,
    Kind,
    Streams,
    extract_seeds,
    insert_seeds,
    make_setting,
)
from kasmina_env.population.train import GradientHealth
from kasmina_env.tasks import Split

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Rows = Sequence[int] | IntArray


class Population:
    """N networks of one host, each with its own seeds, optimiser state and random streams.

    Args:
        host: Recipe of the host network.
        rng_seeds: One integer for each network: row i draws the same initial weights and minibatches whatever N is.
        optimizer: Settings of the optimiser.
        device: Where the networks live.
        dtype: Floating-point type of parameters and data.
    """

    def __init__(
        self,
        host: Host,
        rng_seeds: Sequence[int],
        optimizer: Optimizer | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.setting = make_setting(host, len(rng_seeds), optimizer or Optimizer(), torch.device(device), dtype)
        self._streams = [Streams.from_seed(seed) for seed in rng_seeds]
        draws = [streams.growth for streams in self._streams]
        self._hosts = self.setting.draw_stack(self.setting.host_template, draws)
        self._cells: Cells = {}
        self.learning_rate = np.full(len(rng_seeds), self.setting.optimizer.learning_rate)  # [N]

    @property
    def num_networks(self) -> int:
        return self.setting.num_networks

    @property
    def num_slots(self) -> int:
        return self.setting.num_slots

    # ── training and evaluation ──────────────────────────────────────────────────────────────

    def draw_minibatches(
        self, data: Split, num_batches: int, batch_size: int
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Every network draws samples, with replacement, from its own stream.

        Returns:
            Wide inputs, `num_batches` times ``[B, N*C, ...]``, and labels, `num_batches` times ``[B, N]``.
        """
        shape = (num_batches, batch_size)
        draws = [streams.data.integers(len(data), size=shape) for streams in self._streams]
        index = torch.from_numpy(np.stack(draws, axis=2)).to(self.setting.device)  # [K, B, N]
        return [widen(data.x[i]) for i in index], [data.y[i] for i in index]

    def train(
        self, x: Sequence[torch.Tensor], y: Sequence[torch.Tensor], alpha: FloatArray
    ) -> tuple[torch.Tensor, GradientHealth]:
        """Train on wide minibatches (see `draw_minibatches`) with every seed at its alpha ``[N, S]``.

        Returns:
            Mean loss ``[N]`` and gradient health, on the device.
        """
        learning_rate = self._tensor(self.learning_rate).unsqueeze(1)
        with torch.inference_mode(False), torch.enable_grad():
            return training.train(self.setting, self._hosts, self._cells, x, y, self._tensor(alpha), learning_rate)

    def evaluate(
        self,
        data: Split,
        alpha: FloatArray,
        off: BoolArray | None = None,
        rows: Rows | None = None,
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
        networks = (self.setting, self._hosts, self._cells)
        chosen = self._check_rows(rows)
        if not np.array_equal(chosen, np.arange(self.num_networks)):
            networks = row_operations.narrow(*networks, chosen)
            alpha, off = alpha[chosen], off[:, chosen]
        return evaluation.evaluate(*networks, data, self._tensor(alpha), off)

    def _check_rows(self, rows: Rows | None) -> IntArray:
        """Row numbers as an array; all by default."""
        if rows is None:
            return np.arange(self.num_networks)
        numbers = np.asarray(rows, dtype=np.int64)
        if ((numbers < 0) | (numbers >= self.num_networks)).any():
            last = self.num_networks - 1
            raise ValueError(f"`rows` must lie between 0 and {last}, got {numbers.tolist()}. Name rows that exist.")
        return numbers

    def _tensor(self, values: FloatArray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.setting.device, self.setting.dtype)

    # ── growing ──────────────────────────────────────────────────────────────────────────────

    def germinate(
        self,
        rows: Rows,
        slot: int,
        blueprint: str,
        operator: Operator,
        in_training: bool = True,
    ) -> None:
        """Grow a fresh seed in the same slot of the given networks, which must be empty there.

        Args:
            rows: Networks.
            slot: Index of the slot.
            blueprint: Registered name.
            operator: How the seed will be blended in.
            in_training: Start behind the straight-through estimator (the output of the network does not change).
        """
        rows = self._check_rows(rows)
        if len(np.unique(rows)) != len(rows):
            raise ValueError(f"`rows` must be different networks, got {rows.tolist()}. Name each once.")
        taken = np.intersect1d(rows, self._rows_with_seed(slot))
        if len(taken):
            raise ValueError(
                f"`rows` must have no seed in slot {slot}, got {taken.tolist()}, which do. Remove theirs first."
            )
        template = self.setting.seed_template(slot, blueprint, operator)
        seeds = self.setting.draw_stack(template, [self._streams[row].growth for row in rows])
        kind = Kind(slot, blueprint, operator, in_training)
        insert_seeds(self.setting, self._cells, kind, rows, seeds)

    def connect(self, rows: Rows, slot: int) -> None:
        """End TRAINING in a slot of the given networks: from now on their seeds act at their alpha.

        Weights and optimiser state stay as they are.
        """
        rows = self._check_rows(rows)
        for kind in [k for k in self._cells if k.slot == slot and k.in_training]:
            found, seeds = extract_seeds(self.setting, self._cells, kind, rows)
            if len(found):
                live = kind._replace(in_training=False)
                insert_seeds(self.setting, self._cells, live, found, seeds)

    def remove(self, rows: Rows, slot: int) -> None:
        """Drop the seeds in a slot of the given networks, with their optimiser state."""
        rows = self._check_rows(rows)
        for kind in [k for k in self._cells if k.slot == slot]:
            extract_seeds(self.setting, self._cells, kind, rows)

    def _rows_with_seed(self, slot: int) -> IntArray:
        rows = [cell.rows for kind, cell in self._cells.items() if kind.slot == slot]
        return np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)

    # ── whole networks ───────────────────────────────────────────────────────────────────────

    def reset_rows(self, rows: Rows, rng_seeds: Sequence[int]) -> None:
        """Replace networks by fresh hosts without seeds, drawn from new random streams."""
        rows = self._check_rows(rows)
        row_operations.remove_networks(self.setting, self._cells, rows)
        self.reseed(rows, rng_seeds)
        draws = [self._streams[row].growth for row in rows]
        fresh = self.setting.draw_stack(self.setting.host_template, draws)
        self._hosts.put_(self.setting.index(rows), fresh)

    def reseed(self, rows: Rows, rng_seeds: Sequence[int]) -> None:
        """Give networks new random streams; nothing else changes."""
        for row, seed in zip(self._check_rows(rows), rng_seeds, strict=True):
            self._streams[row] = Streams.from_seed(seed)

    def snapshot(self, rows: Rows | None = None) -> Snapshot:
        """Copy networks (all by default) with everything their future depends on."""
        rows, learning_rate = self._check_rows(rows), self.learning_rate
        return row_operations.snapshot(self.setting, self._hosts, self._cells, self._streams, learning_rate, rows)

    def restore(self, saved: Snapshot, rows: Rows | None = None) -> None:
        """Overwrite networks (all by default) by those of a snapshot, in order."""
        rows = self._check_rows(rows)
        row_operations.restore(self.setting, self._hosts, self._cells, self._streams, rows, saved)
        self.learning_rate[rows] = saved.learning_rate

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
        index = self.setting.index(self._check_rows([row]))
        template = self.setting.host_template
        host = template.unflatten(self._hosts.parameters[index])
        parameters = {name: p[0] for name, p in zip(template.names, host, strict=True)}
        seeds = {}
        for kind, cell in self._cells.items():
            is_kept = keep is None or keep[kind.slot]
            member = np.flatnonzero(cell.rows == row)
            if len(member) == 0 or kind.in_training or not is_kept:
                continue
            template = self.setting.seed_template(kind.slot, kind.blueprint, kind.operator)
            flat = cell.weights.parameters[self.setting.index(member)]
            named = {name: p[0] for name, p in zip(template.names, template.unflatten(flat), strict=True)}
            amplitude = float(alpha[kind.slot])
            seeds[kind.slot] = GrownSeed(kind.blueprint, kind.operator, amplitude, named)
        return build_network(self.setting.host, parameters, seeds)
