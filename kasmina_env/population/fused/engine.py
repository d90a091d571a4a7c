"""The fused engine: what `kasmina_env.population.train` and `.evaluate` do, network by network in compiled kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray
from kasmina_env.population.fused import driver
from kasmina_env.population.fused.driver import FLOAT, READ, WRITE
from kasmina_env.population.fused.layout import Block, Layout, Seed, Stretch
from kasmina_env.population.fused.recorder import UnsupportedError
from kasmina_env.population.fused.warm_up import warm_up
from kasmina_env.population.stack import Stack
from kasmina_env.population.state import GATE, Networks, Part, Setting
from kasmina_env.population.train import GradientHealth, measure_health
from kasmina_env.settings.config import Operator
from kasmina_env.tasks import Split

Float32Array = NDArray[np.float32]
Seeds = tuple[Seed | None, ...]  # of a network, by slot
LANES = 16  # samples are filled up to a multiple of it
CHUNK = 32  # samples that are evaluated together
MAX_PROGRAMS = 20_000  # that are kept


@dataclass(frozen=True)
class Program:
    """What runs for a network of some variant with some seeds."""

    layout: Layout
    variant: int
    seeds: Seeds

    def training(self) -> list[Stretch]:
        """Forward, backward and update."""
        layout, order = self.layout, self.layout.order
        is_acting = [seed is not None and not seed.in_training for seed in self.seeds]
        segments, seeds = self._segments(is_acting), [self._seed(slot) for slot in order]
        stretches = [segments[0].forward]
        for seed, segment in zip(seeds, segments[1:], strict=True):
            stretches += [seed.forward] if seed else []
            stretches.append(segment.forward)
        for seed, segment in zip(reversed(seeds), reversed(segments[1:]), strict=True):
            stretches.append(segment.backward)
            stretches += [seed.backward] if seed else []
        stretches += [segments[0].backward, layout.host_updates]
        return stretches + [layout.updates(part) for part in self.parts()]

    def parts(self) -> list[Part]:
        """Seeds and gates."""
        grown = [seed for seed in self.seeds if seed is not None]
        gates = [Part(seed.slot, GATE) for seed in grown if seed.operator is Operator.GATE]
        return [Part(seed.slot, seed.blueprint) for seed in grown] + gates

    def ways(self, settings: Sequence[Sequence[bool]]) -> tuple[list[list[Stretch]], IntArray]:
        """Forwards under settings of acting seeds, each different one once, and which of them each setting ``[M]`` is.

        They are sorted, and each begins where it differs from the one before, whose features are in memory still.
        """
        order = self.layout.order
        asked = [tuple(is_on[slot] for slot in order) for is_on in settings]
        different = sorted(set(asked), reverse=True)
        before: tuple[bool, ...] | None = None
        found = []
        for here in different:
            segments = self._segments([here[order.index(slot)] for slot in range(len(order))])
            stretches = [] if before else [segments[0].forward]
            start = next(i for i in range(len(order)) if here[i] != before[i]) if before else 0
            for i in range(start, len(order)):
                seed = self._seed(order[i]) if here[i] else None
                stretches += [seed.forward] if seed else []
                stretches.append(segments[i + 1].forward)
            before = here
            found.append(stretches)
        return found, np.array([different.index(setting) for setting in asked])

    def constants(self) -> list[tuple[int, NDArray[Any]]]:
        """What memory must hold for all this, and where."""
        numbers = range(self.layout.setting.num_slots + 1)
        segments = [self.layout.segment(i, self.variant, is_grown=False) for i in numbers]
        fragments = [*segments, *filter(None, (self._seed(slot) for slot in self.layout.order))]
        return [constant for fragment in fragments for constant in fragment.constants]

    def _segments(self, is_on: Sequence[bool]) -> list[Any]:
        is_grown = [False, *(is_on[slot] for slot in self.layout.order)]
        return [self.layout.segment(i, self.variant, grown) for i, grown in enumerate(is_grown)]

    def _seed(self, slot: int) -> Any:
        seed = self.seeds[slot]
        return None if seed is None else self.layout.seed(seed)


class Transfers:
    """What is copied between networks and the memory they are computed in: ``[address, place, size, directions]``."""

    def __init__(self, num_networks: int) -> None:
        self._num_networks = num_networks
        self._rows: list[IntArray] = []
        self._moves: list[IntArray] = []
        self._kept: list[Any] = []  # what addresses point to

    def add(self, rows: IntArray, values: Tensor | NDArray[Any], place: int, size: int, directions: int) -> None:
        """Rows of contiguous values belong to networks."""
        address = values.data_ptr() if isinstance(values, Tensor) else values.ctypes.data
        assert values.is_contiguous() if isinstance(values, Tensor) else values.flags.c_contiguous
        self._kept.append(values)
        self.add_addresses(rows, address + FLOAT * size * np.arange(len(rows)), place, size, directions)

    def add_addresses(self, rows: IntArray, addresses: IntArray, place: int, size: int, directions: int) -> None:
        moves = np.empty((len(rows), 4), dtype=np.int64)
        moves[:, 0], moves[:, 1:] = addresses, (place, size, directions)
        self._rows.append(rows)
        self._moves.append(moves)

    def add_stack(self, rows: IntArray, stack: Stack, block: Block, rate: Float32Array) -> Float32Array:
        """All of a stack that is trained; returns where the sums of squared gradients ``[R, T]`` will be."""
        size, squares = sum(block.sizes), np.zeros((len(rows), len(block.sizes)), dtype=np.float32)
        self.add(rows, stack.parameters, block.weights, size, READ | WRITE)
        for moment, place in zip(stack.moments, block.moments, strict=True):
            self.add(rows, moment, place, size, READ | WRITE)
        self.add(rows, stack.steps, block.steps, 1, READ | WRITE)
        self.add(rows, rate, block.rate, 1, READ)
        self.add_addresses(
            rows, np.zeros(len(rows), dtype=np.int64), block.gradient, block.norm + 1 - block.gradient, 0
        )
        self.add(rows, squares, block.squares, len(block.sizes), WRITE)
        return squares

    def finish(self) -> tuple[IntArray, IntArray]:
        """All of them, network by network, and where those of each begin ``[N + 1]``."""
        rows = np.concatenate(self._rows)
        moves = np.concatenate(self._moves)[np.argsort(rows, kind="stable")]
        return moves, np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=self._num_networks))])


class FusedEngine:
    """Trains and evaluates networks of one setting.

    Args:
        setting: Of the networks.

    Raises:
        UnsupportedError: If the host or the measure has something without kernel.
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
        inputs = [_samples_last(batch, num_networks, layout.lanes) for batch in x]
        labels = [_filled(batch.movedim(0, -1).to(torch.float32), layout.lanes) for batch in y]
        losses = np.zeros((len(x), num_networks))
        weights = np.zeros(layout.lanes, dtype=np.float32)
        weights[:num_samples] = 1 / num_samples
        places = (layout.x, layout.loss.labels, layout.loss.loss, layout.x_size, layout.y_size, num_samples)
        table = layout.table

        def run(first: int, step: int, memory: Float32Array) -> None:
            memory[layout.loss.weights : layout.loss.weights + layout.lanes] = weights
            driver.train(
                first, step, memory.ctypes.data, table.numbers, table.reals, tape, tape_of, moves, moves_of,
                _addresses(inputs), _addresses(labels), places, losses,
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
        chunks = [_Chunks(split, layout.lanes) for split in data]
        lengths = np.array([len(split) for split in data])
        sizes = (layout.x_size, layout.y_size, layout.lanes)
        places = (layout.x, layout.loss.labels, layout.loss.loss, layout.loss.quality, *sizes)
        inputs, noise, labels = (
            _addresses(found) for found in zip(*((c.x, c.noise, c.y) for c in chunks), strict=True)
        )
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
        return [(found[..., 0], found[..., 1]) for found in means]

    def _ways(
        self, programs: Sequence[Program], is_on: Sequence[BoolArray]
    ) -> tuple[IntArray, IntArray, IntArray, list[IntArray]]:
        """Ways through all networks on all data.

        Args:
            programs: Of N networks.
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
        moves = layout.num_moves
        layout.lower({seed for of_row in seeds for seed in of_row if seed is not None})
        if layout.num_moves != moves or len(self._programs) > MAX_PROGRAMS:
            self._programs.clear()
        variants = networks.conditions.variant.tolist()
        if self.setting.scales is None:
            variants = [0] * len(networks)
        return [Program(layout, variant, tuple(own)) for variant, own in zip(variants, seeds, strict=True)]

    def _cached(self, program: Program, key: Any, make: Callable[[], Any]) -> Any:
        key = (program.layout.lanes, program.variant, program.seeds, key)
        if key not in self._programs:
            self._programs[key] = make()
        return self._programs[key]

    def _add_shared(
        self, transfers: Transfers, layout: Layout, networks: Networks, programs: Sequence[Program], alpha: FloatArray
    ) -> None:
        """Amplitudes, constants, and which weights of its host a network has."""
        everyone = np.arange(len(networks))
        transfers.add(everyone, alpha.astype(np.float32), layout.alpha, networks.setting.num_slots, READ)
        for row, program in enumerate(programs):
            for place, values in self._cached(program, "constants", program.constants):
                transfers.add(np.array([row]), values, place, len(values), READ)
        if self.setting.scales is not None:
            present = (self.setting.scales[networks.conditions.variant] != 0).astype(np.float32)
            transfers.add(everyone, present, layout.host.present, present.shape[1], READ)

    def _spread(self, run: Callable[[int, int, Float32Array], None], num_networks: int, layout: Layout) -> None:
        """Call ``run(first, step, memory)`` in as many threads as PyTorch may use."""
        num_threads = min(torch.get_num_threads(), num_networks)
        while len(self._memories) < num_threads or len(self._memories[0]) < layout.end:
            if self._memories and len(self._memories[0]) < layout.end:
                self._memories.clear()
            self._memories.append(np.zeros(layout.end, dtype=np.float32))
        if num_threads == 1:
            run(0, 1, self._memories[0])
            return
        with ThreadPoolExecutor(num_threads) as pool:
            done = [pool.submit(run, i, num_threads, self._memories[i]) for i in range(num_threads)]
            for each in done:
                each.result()


def _flatten(tapes: Sequence[list[Stretch]]) -> tuple[IntArray, IntArray]:
    """Stretches behind each other, and where those of each network begin ``[N + 1]``."""
    return np.array([s for tape in tapes for s in tape]), np.cumsum([0, *map(len, tapes)])


def _filled(x: Tensor, lanes: int) -> Tensor:
    """Samples, the last axis, filled up by the last one: it does nothing that a real sample does not."""
    missing = lanes - x.shape[-1]
    if missing:
        x = torch.cat([x, x[..., -1:].expand(*x.shape[:-1], missing)], dim=-1)
    return x.contiguous()


def _samples_last(x: Tensor, num_networks: int, lanes: int) -> Tensor:
    """Wide inputs (`kasmina_env.networks.layers.widen`) network by network, ``[N, ..., B]``."""
    x = x.unflatten(1, (num_networks, -1)).movedim(0, -1) if x.ndim == 4 else x.movedim(1, -1)
    return _filled(x.to(torch.float32), lanes)


def _addresses(tensors: Sequence[Tensor | None]) -> IntArray:
    return np.array([0 if tensor is None else tensor.data_ptr() for tensor in tensors])


class _Chunks:
    """Data in chunks of samples, ``[chunks, ..., B]``."""

    def __init__(self, split: Split, lanes: int) -> None:
        self.x, self.y = self._cut(split.x, lanes), self._cut(split.y, lanes)
        self.noise = None if split.noise is None else self._cut(split.noise.inputs, lanes)

    @staticmethod
    def _cut(values: Tensor, lanes: int) -> Tensor:
        missing = -len(values) % lanes
        if missing:
            values = torch.cat([values, values[-1:].expand(missing, *values.shape[1:])])
        chunks: Tensor = values.unflatten(0, (-1, lanes))
        return chunks.movedim(1, -1).to(torch.float32).contiguous()
