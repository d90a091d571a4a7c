"""The memory of one network, and the operations that work on it.

A host is lowered segment by segment, a slot seed by seed. Each such fragment is lowered once, whatever networks it
will be part of, and so has its places for good: a slot's seeds, of which a network has one, all lie in the same memory,
which stays in the processor's cache from network to network. A network's program is a few fragments behind each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from kasmina_env.networks.blend import Gate
from kasmina_env.networks.blueprints import BLUEPRINTS
from kasmina_env.networks.hosts import execution_order, make_network
from kasmina_env.population.fused.criteria import LossPlaces, label_shape, trace_loss
from kasmina_env.population.fused.kernels import MAX_NUMBERS, MAX_REALS, Operation
from kasmina_env.population.fused.layers.blend import trace_blend
from kasmina_env.population.fused.tracer import META, Space, Tracer, Window, empty
from kasmina_env.population.fused.updates import UPDATES, mask, sum_squares
from kasmina_env.population.stack import Template
from kasmina_env.population.state import GATE, Part, Setting
from kasmina_env.settings.config import Operator

Stretch = tuple[int, int]  # first operation, and the one behind the last
Constants = tuple[tuple[int, np.ndarray[Any, Any]], ...]  # places, and the numbers there


class Block(NamedTuple):
    """Where the numbers of a host, a seed or a gate are. P parameters in T tensors."""

    weights: int
    moments: tuple[int, ...]
    steps: int
    rate: int
    gradient: int  # cleared before a step, with all that follows
    squares: int  # [T] sums over the minibatches of a step
    norm: int
    present: int  # [P] 0 where a weight is absent; only if there are variants
    end: int
    sizes: tuple[int, ...]  # of the T tensors


def make_block(start: int, template: Template, num_moments: int) -> Block:
    """Lay out a block from a place on."""
    space, size = Space(start), template.num_parameters
    weights, moments = space.take(size), tuple(space.take(size) for _ in range(num_moments))
    steps, rate, gradient = space.take(1), space.take(1), space.take(size)
    squares, norm = space.take(len(template.sizes)), space.take(1)
    present = space.take(size)
    return Block(weights, moments, steps, rate, gradient, squares, norm, present, space.end, template.sizes)


class Seed(NamedTuple):
    """What grows in a slot."""

    slot: int
    blueprint: str
    operator: Operator
    in_training: bool


@dataclass(frozen=True, eq=False)
class Fragment:
    """Operations of a segment or a seed, and the numbers they need in memory."""

    forward: Stretch
    backward: Stretch
    constants: Constants


@dataclass(frozen=True, eq=False)
class Features:
    """Features in front of a slot."""

    shape: tuple[int, ...]  # of one sample
    strides: tuple[int, ...]
    raw: int  # what the segment gives
    grown: int  # what the slot's seed makes of it
    gradient: int  # of the grown features, then of the raw ones


class OperationTable:
    """All operations, as rows of numbers that a compiled loop reads."""

    def __init__(self) -> None:
        self.numbers = np.zeros((256, 1 + MAX_NUMBERS), dtype=np.int64)
        self.reals = np.zeros((256, MAX_REALS), dtype=np.float64)
        self.size = 0

    def add(self, operations: list[Operation]) -> Stretch:
        """Append operations."""
        start = self.size
        self.size += len(operations)
        while self.size > len(self.numbers):
            self.numbers = np.concatenate([self.numbers, np.zeros_like(self.numbers)])
            self.reals = np.concatenate([self.reals, np.zeros_like(self.reals)])
        for row, operation in enumerate(operations, start=start):
            self.numbers[row, 0] = operation.kernel.address
            self.numbers[row, 1 : 1 + len(operation.numbers)] = operation.numbers
            self.reals[row, : len(operation.reals)] = operation.reals
        return start, self.size


class Layout:
    """Memory and operations of networks of one setting, for minibatches of up to `lanes` samples.

    Args:
        setting: Setting of the networks.
        lanes: Samples computed together.

    Raises:
        UnsupportedError: If the host or the criterion has something without kernel.
    """

    def __init__(self, setting: Setting, lanes: int) -> None:
        self.setting, self.lanes, self.table = setting, lanes, OperationTable()
        self.order = execution_order(setting.host.slots)
        shape = setting.host.input_shape
        space = Space(0)
        self.x, self.x_size = space.take(lanes * prod(shape)), lanes * prod(shape)
        self.y_size = lanes * prod(label_shape(setting.host, setting.criterion))
        self.loss = LossPlaces(*(space.take(size) for size in (self.y_size, lanes, lanes, lanes)))
        self.alpha = space.take(setting.num_slots)
        self.host = make_block(space.end, setting.host_template, setting.optimizer.num_moments)
        self._input = Features(shape, tuple(empty(lanes, shape).stride()), self.x, self.x, -1)
        self._segments: dict[tuple[int, int, bool], Fragment] = {}
        self._features: list[Features] = []
        self._starts: list[int] = []
        self.end = self.host.end
        with torch.device("meta"):
            self._network = make_network(setting.host, nn).eval()
        for index in range(setting.num_slots + 1):
            self._starts.append(self.end)
            self.segment(index, 0, is_grown=False)
        self.host_updates = self.table.add(self._update(self.host, setting.scales is not None))
        self._regions = [(self.end, 0)] * setting.num_slots  # of each slot: start and size
        self._seeds: dict[Seed, Fragment] = {}
        self._updates: dict[Part, Stretch] = {}
        self.num_moves = 0  # how often places of seeds have changed
        self._blocks: dict[Part, Block] = {}

    # ── the host ─────────────────────────────────────────────────────────────────────────────

    def segment(self, index: int, variant: int, is_grown: bool) -> Fragment:
        """A segment of the host, the loss behind the last.

        Args:
            index: Which.
            variant: Variant of the host.
            is_grown: Whether it reads what a seed made of the features in front, or these as they are.
        """
        key = (index, variant, is_grown)
        if key not in self._segments:
            self._segments[key] = self._lower_segment(*key)
        return self._segments[key]

    def _lower_segment(self, index: int, variant: int, is_grown: bool) -> Fragment:
        # Whatever it reads, and whichever variant it is of, it takes the same memory in the same order.
        tracer = Tracer(self.lanes, self._starts[index], self.loss.weights, self._windows(variant))
        names = self.setting.host_template.names
        tracer.add_parameters(self._network, names, self.host.weights, self.host.gradient)
        front = self._features[index - 1] if index else self._input
        place = front.grown if is_grown else front.raw
        x = torch.empty_strided((self.lanes, *front.shape), front.strides, device=META)
        tracer.put(x, place, wants_gradient=index > 0, gradient=front.gradient)
        with tracer:
            out = self._network.segments[index](x)
        if index < self.setting.num_slots:
            buffer = tracer.buffer(out)
            grown, gradient = tracer.space.take(buffer.size), tracer.space.take(buffer.size)
            if index == len(self._features):
                shape, raw = tuple(out.shape[1:]), tracer.place(out)
                self._features.append(Features(shape, tuple(out.stride()), raw, grown, gradient))
            buffer.gradient, buffer.is_filled = gradient, True
        else:
            trace_loss(tracer, out, self.setting.criterion, self.loss)
        return self._finish(tracer)

    def _windows(self, variant: int) -> dict[str, Window]:
        """The part of each kernel of the host that a variant has."""
        template, scales = self.setting.host_template, self.setting.scales
        windows: dict[str, Window] = {}
        if scales is None:
            return windows
        parts = np.split(scales[variant] != 0, np.cumsum(template.sizes)[:-1])
        for name, shape, part in zip(template.names, template.shapes, parts, strict=True):
            if len(shape) == 4:
                rows = np.flatnonzero(part.reshape(shape).any(axis=(0, 1, 3)))
                windows[name] = Window(int(rows[0]), int(rows[-1] - rows[0] + 1))
        return windows

    def _finish(self, tracer: Tracer) -> Fragment:
        tracer.emit_all_backward()
        self.end = max(self.end, tracer.space.end)
        forward, backward = self.table.add(tracer.forward), self.table.add(tracer.backward)
        return Fragment(forward, backward, tuple(tracer.constants))

    def _update(self, block: Block, is_masked: bool = False) -> list[Operation]:
        optimizer, place, operations = self.setting.optimizer, block.gradient, []
        total = sum(block.sizes)
        if is_masked:
            operations.append(Operation(mask, (block.gradient, block.present, total)))
        for number, size in enumerate(block.sizes):
            operations.append(Operation(sum_squares, (place, size, block.squares + number, block.norm)))
            place += size
        moments = (*block.moments, 0)[:2]
        numbers = (block.weights, block.gradient, *moments, total, block.norm, block.rate, block.steps)
        reals = (optimizer.momentum, optimizer.beta2, optimizer.eps, optimizer.clip_norm)
        return [*operations, Operation(UPDATES[optimizer.name], numbers, reals)]

    # ── seeds ────────────────────────────────────────────────────────────────────────────────

    def lower(self, seeds: set[Seed]) -> None:
        """Lower seeds; only then are their places known for good."""
        while missing := seeds - self._seeds.keys():
            for seed in sorted(missing):
                self.seed(seed)

    def seed(self, seed: Seed) -> Fragment:
        """A seed; the `UnsupportedError` says what of it has no kernel."""
        if seed not in self._seeds:
            self._seeds[seed] = self._lower_seed(seed)
        return self._seeds[seed]

    def block(self, part: Part) -> Block:
        """Where the numbers of a seed or a gate are; gates stand in front."""
        if part not in self._blocks:
            start = self._regions[part.slot][0]
            if part.name != GATE:
                start = self.block(Part(part.slot, GATE)).end
            self._blocks[part] = make_block(start, self.setting.template(part), self.setting.optimizer.num_moments)
        return self._blocks[part]

    def updates(self, part: Part) -> Stretch:
        """Clip and update a seed or a gate."""
        if part not in self._updates:
            self._updates[part] = self.table.add(self._update(self.block(part)))
        return self._updates[part]

    def _lower_seed(self, seed: Seed) -> Fragment:
        tracer = self._trace_seed(seed)
        start, size = self._regions[seed.slot]
        needed = tracer.space.end - start
        if needed > size:
            # A larger region behind everything else; what knows the old one is lowered anew.
            self._regions[seed.slot] = (self.end, needed)
            self.end += needed
            self.num_moves += 1
            self._seeds = {known: each for known, each in self._seeds.items() if known.slot != seed.slot}
            for cache in (self._updates, self._blocks):
                for part in [part for part in cache if part.slot == seed.slot]:
                    del cache[part]
            tracer = self._trace_seed(seed)
        forward, backward = self.table.add(tracer.forward), self.table.add(tracer.backward)
        return Fragment(forward, backward, tuple(tracer.constants))

    def _trace_seed(self, seed: Seed) -> Tracer:
        host, slot = self.setting.host, seed.slot
        channels, features = host.slots[slot].channels, self._features[self.order.index(slot)]
        block, of_gate = self.block(Part(slot, seed.blueprint)), self.block(Part(slot, GATE))
        with torch.device("meta"):
            module = BLUEPRINTS.get(seed.blueprint).builder(host.topology).build(nn, channels)
            gate_module = Gate(nn, host.topology, channels)
        tracer = Tracer(self.lanes, block.end, self.loss.weights)
        parts = [(seed.blueprint, module.eval(), block)]
        if seed.operator is Operator.GATE:
            parts.append((GATE, gate_module, of_gate))
        for name, built, own in parts:
            tracer.add_parameters(built, self.setting.template(Part(slot, name)).names, own.weights, own.gradient)
        h = torch.empty_strided((self.lanes, *features.shape), features.strides, device=META)
        tracer.put(h, features.raw, wants_gradient=not seed.in_training, gradient=features.gradient)
        tracer.buffer(h).is_filled = True
        with tracer:
            change = module(h)
            gate = gate_module(h) if seed.operator is Operator.GATE else None
        alpha = -1 if seed.in_training else self.alpha + slot
        trace_blend(tracer, seed.operator, h, change, gate, features.grown, alpha)
        tracer.emit_all_backward()
        return tracer
