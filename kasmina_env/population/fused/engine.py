"""The fused engine: what `kasmina_env.population.train` and `.evaluate` do, network by network in compiled kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray
from kasmina_env.population.fused import driver
from kasmina_env.population.fused.driver import READ
from kasmina_env.population.fused.layout import Layout, Seed, Stretch
from kasmina_env.population.fused.program import Program
from kasmina_env.population.fused.samples import Chunks, addresses, inputs_of, labels_of
from kasmina_env.population.fused.tracer import UnsupportedError
from kasmina_env.population.fused.transfers import Float32Array, Transfers
from kasmina_env.population.fused.warm_up import warm_up
from kasmina_env.population.state import GATE, Networks, Setting
from kasmina_env.population.train import GradientHealth, measure_health
from kasmina_env.settings.config import Operator
from kasmina_env.tasks import Split

LANES = 16  # samples are filled up to a multiple of it
CHUNK = 32  # samples that are evaluated together
MAX_PROGRAMS = 20_000  # that are kept


class FusedEngine:
    """Trains and evaluates networks of one setting.

    Args:
        setting: Setting of the networks.

    Raises:
        UnsupportedError: If the host or the criterion has something without kernel.
    """

    name = "fused"

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._layouts: dict[int, Layout] = {}
        self._programs: dict[Any, Any] = {}
        self._memories: list[Float32Array] = []
        warm_up()
        self._layout(CHUNK)

    def __reduce__(self) -> tuple[type[FusedEngine], tuple[Setting]]:
        """Copies begin without what cannot leave this process."""
        return FusedEngine, (self.setting,)

    def _layout(self, lanes: int) -> Layout:
        if lanes not in self._layouts:
            self._layouts[lanes] = Layout(self.setting, lanes)
        return self._layouts[lanes]

    def why_not(self, slot: int, blueprint: str, operator: Operator, in_training: bool) -> str:
        """Why a seed cannot be fused, in one sentence; empty if it can."""
        try:
            self._layout(CHUNK).lower({Seed(slot, blueprint, operator, in_training)})
        except UnsupportedError as error:
            return str(error)
        return ""

    # ── training ─────────────────────────────────────────────────────────────────────────────

    def train(
        self,
        networks: Networks,
        x: Sequence[Tensor],
        y: Sequence[Tensor],
        alpha: FloatArray,
        host_rate: FloatArray,
        seed_rate: FloatArray,
    ) -> tuple[Tensor, GradientHealth]:
        """See `kasmina_env.population.train.train`."""
        num_networks, num_samples = len(networks), len(y[0])
        layout = self._layout(-(-num_samples // LANES) * LANES)
        programs = self._lower(layout, networks)
        tapes = [self._cached(program, "training", program.training) for program in programs]
        tape, tape_of = _flatten(tapes)
        transfers = Transfers(num_networks)
        self._add_shared(transfers, layout, networks, programs, alpha)
        everyone = np.arange(num_networks)
        host_squares = transfers.add_stack(everyone, networks.hosts, layout.host, host_rate.astype(np.float32))
        seed_squares = {}
        for part, cell in networks.cells.items():
            rate = seed_rate[cell.rows].astype(np.float32)
            seed_squares[part] = transfers.add_stack(cell.rows, cell.weights, layout.block(part), rate)
        moves, moves_of = transfers.finish()
        inputs = [inputs_of(batch, num_networks, layout.lanes) for batch in x]
        labels = [labels_of(batch, layout.lanes) for batch in y]
        losses = np.zeros((len(x), num_networks))
        weights = np.zeros(layout.lanes, dtype=np.float32)
        weights[:num_samples] = 1 / num_samples
        places = (layout.x, layout.loss.labels, layout.loss.loss, layout.x_size, layout.y_size, num_samples)
        table = layout.table

        def run(first: int, step: int, memory: Float32Array) -> None:
            memory[layout.loss.weights : layout.loss.weights + layout.lanes] = weights
            driver.train(
                first, step, memory.ctypes.data, table.numbers, table.reals, tape, tape_of, moves, moves_of,
                addresses(inputs), addresses(labels), places, losses,
            )  # fmt: skip

        self._spread(run, num_networks, layout)
        sums = {part: torch.from_numpy(squares) for part, squares in seed_squares.items()}
        health = measure_health(networks, torch.from_numpy(host_squares), sums, len(x))
        return torch.from_numpy(losses.mean(axis=0).astype(np.float32)), health

    # ── evaluation ───────────────────────────────────────────────────────────────────────────

    def evaluate(
        self, networks: Networks, data: Sequence[Split], alpha: FloatArray, off: Sequence[BoolArray]
    ) -> list[tuple[Tensor, Tensor]]:
        """See `kasmina_env.population.evaluate.evaluate`."""
        layout, num_networks = self._layout(CHUNK), len(networks)
        programs = self._lower(layout, networks)
        transfers = Transfers(num_networks)
        self._add_shared(transfers, layout, networks, programs, alpha)
        everyone = np.arange(num_networks)
        transfers.add(everyone, networks.hosts.parameters, layout.host.weights, sum(layout.host.sizes), READ)
        for part, cell in networks.cells.items():
            block = layout.block(part)
            transfers.add(cell.rows, cell.weights.parameters, block.weights, sum(block.sizes), READ)
        moves, moves_of = transfers.finish()
        acts = networks.has_seed & ~networks.in_training
        # at alpha = 0 a seed is off as it is
        is_on = [acts & ~(settings & (alpha > 0)) for settings in off]
        tape, ways, ways_of, rows = self._ways(programs, is_on)
        results = np.zeros((rows[-1].max() + 1, 2))
        chunks = [Chunks(split, layout.lanes) for split in data]
        lengths = np.array([len(split) for split in data])
        sizes = (layout.x_size, layout.y_size, layout.lanes)
        places = (layout.x, layout.loss.labels, layout.loss.loss, layout.loss.quality, *sizes)
        inputs = np.stack([each.inputs_of(networks.conditions.change) for each in chunks])  # [D, N]
        noise, labels = addresses([each.noise for each in chunks]), addresses([each.y for each in chunks])
        width = networks.conditions.pixel_noise.astype(np.float32)
        table = layout.table

        def run(first: int, step: int, memory: Float32Array) -> None:
            memory[layout.loss.weights : layout.loss.weights + layout.lanes] = 0.0
            driver.evaluate(
                first, step, memory.ctypes.data, table.numbers, table.reals, tape, moves, moves_of, ways, ways_of,
                inputs, noise, width, labels, lengths, places, results,
            )  # fmt: skip

        self._spread(run, num_networks, layout)
        means = [torch.from_numpy((results[r] / n).astype(np.float32)) for r, n in zip(rows, lengths, strict=True)]
        return [(found[..., 0], found[..., 1].clamp(0, 1)) for found in means]

    def _ways(
        self, programs: Sequence[Program], is_on: Sequence[BoolArray]
    ) -> tuple[IntArray, IntArray, IntArray, list[IntArray]]:
        """Ways through all networks on all data.

        Args:
            programs: Programs of N networks.
            is_on: Which seeds act, for D data ``[M, N, S]``.

        Returns:
            Stretches; ways and the first of each network on each data, as `driver.evaluate` reads them; and for each
            data the row of the results of every setting ``[M, N]``.
        """
        stretches: list[Stretch] = []
        ways: list[tuple[int, int, int]] = []
        first, rows = [0], [np.empty(on.shape[:2], dtype=np.int64) for on in is_on]
        for n, program in enumerate(programs):
            for on, row in zip(is_on, rows, strict=True):
                asked = on[:, n]
                found, which = self._cached(program, asked.tobytes(), partial(program.ways, asked.tolist()))
                row[:, n] = which + len(ways)
                for way in found:
                    ways.append((len(stretches), len(stretches) + len(way), len(ways)))
                    stretches += way
                first.append(len(ways))
        return np.array(stretches), np.array(ways), np.array(first), rows

    # ── both ─────────────────────────────────────────────────────────────────────────────────

    def _lower(self, layout: Layout, networks: Networks) -> list[Program]:
        """The program of each network."""
        num_slots = networks.setting.num_slots
        seeds: list[list[Seed | None]] = [[None] * num_slots for _ in range(len(networks))]
        for part, cell in networks.cells.items():
            if part.name == GATE:
                continue
            operators = networks.operator[cell.rows, part.slot].tolist()
            stages = networks.in_training[cell.rows, part.slot].tolist()
            for row, operator, in_training in zip(cell.rows.tolist(), operators, stages, strict=True):
                seeds[row][part.slot] = Seed(part.slot, part.name, Operator(operator), in_training)
        layout.lower({seed for of_row in seeds for seed in of_row if seed is not None})
        if len(self._programs) > MAX_PROGRAMS:
            self._programs.clear()
        variants = networks.conditions.variant.tolist()
        if self.setting.scales is None:
            variants = [0] * len(networks)
        return [Program(layout, variant, tuple(own)) for variant, own in zip(variants, seeds, strict=True)]

    def _cached(self, program: Program, key: Any, make: Callable[[], Any]) -> Any:
        key = (program.layout.lanes, program.layout.num_moves, program.variant, program.seeds, key)
        if key not in self._programs:
            self._programs[key] = make()
        return self._programs[key]

    def _add_shared(
        self, transfers: Transfers, layout: Layout, networks: Networks, programs: Sequence[Program], alpha: FloatArray
    ) -> None:
        """Amplitudes, constants, and which weights of its host a network has."""
        everyone, amplitudes = np.arange(len(networks)), np.ascontiguousarray(alpha, dtype=np.float32)
        transfers.add(everyone, amplitudes, layout.alpha, amplitudes.shape[1], READ)
        for row, program in enumerate(programs):
            for place, values in self._cached(program, "constants", program.constants):
                transfers.add(np.array([row]), values, place, len(values), READ)
        if self.setting.scales is not None:
            present = (self.setting.scales[networks.conditions.variant] != 0).astype(np.float32)
            transfers.add(everyone, present, layout.host.present, present.shape[1], READ)

    def _spread(self, run: Callable[[int, int, Float32Array], None], num_networks: int, layout: Layout) -> None:
        """Call ``run(first, step, memory)`` in as many threads as PyTorch may use."""
        num_threads = min(torch.get_num_threads(), num_networks)
        self._memories = [memory for memory in self._memories if len(memory) >= layout.end]
        while len(self._memories) < num_threads:
            self._memories.append(_aligned(layout.end))
        if num_threads == 1:
            run(0, 1, self._memories[0])
            return
        with ThreadPoolExecutor(num_threads) as pool:
            done = [pool.submit(run, i, num_threads, self._memories[i]) for i in range(num_threads)]
            for each in done:
                each.result()


def _aligned(size: int) -> Float32Array:
    """Zeros that begin with a line of the cache: vectors that lie across two take longer."""
    whole = np.zeros(size + 16, dtype=np.float32)
    start = -whole.ctypes.data % 64 // 4
    return whole[start : start + size]


def _flatten(tapes: Sequence[list[Stretch]]) -> tuple[IntArray, IntArray]:
    """Stretches behind each other, and where those of each network begin ``[N + 1]``."""
    return np.array([s for tape in tapes for s in tape]), np.cumsum([0, *map(len, tapes)])
