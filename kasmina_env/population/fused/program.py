"""What runs for one network: fragments of a layout behind each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kasmina_env.lifecycle.arrays import IntArray
from kasmina_env.population.fused.layout import Constants, Fragment, Layout, Seed, Stretch
from kasmina_env.population.state import GATE, Part
from kasmina_env.settings.config import Operator

Seeds = tuple[Seed | None, ...]  # of a network, by slot


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

    def constants(self) -> Constants:
        """What memory must hold for all this, and where."""
        numbers = range(self.layout.setting.num_slots + 1)
        segments = [self.layout.segment(i, self.variant, is_grown=False) for i in numbers]
        fragments = [*segments, *filter(None, (self._seed(slot) for slot in self.layout.order))]
        return tuple(constant for fragment in fragments for constant in fragment.constants)

    def _segments(self, is_on: Sequence[bool]) -> list[Fragment]:
        is_grown = [False, *(is_on[slot] for slot in self.layout.order)]
        return [self.layout.segment(i, self.variant, grown) for i, grown in enumerate(is_grown)]

    def _seed(self, slot: int) -> Fragment | None:
        seed = self.seeds[slot]
        return None if seed is None else self.layout.seed(seed)
