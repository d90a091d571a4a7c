"""Networks that have diverged go back to their last good state (see `kasmina_env.episode.governor`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from kasmina_env.episode.governor import Guess, Record, Signs, has_diverged, is_good, next_record, suspicion
from kasmina_env.episode.state import EpisodeState, Measurement
from kasmina_env.lifecycle.arrays import BoolArray, IntArray, put_rows, take_rows
from kasmina_env.lifecycle.execution import uproot
from kasmina_env.lifecycle.state import NONE, LifecycleState, Stage
from kasmina_env.population import Networks, Population, Snapshot
from kasmina_env.population.state import join_networks
from kasmina_env.settings.config import EnvConfig

# (rows [R], lifecycle of all networks) -> measurements of these rows without training
Measure = Callable[[IntArray, LifecycleState], Measurement]


@dataclass(frozen=True, eq=False)
class GoodStates:
    """Last good states of N networks, optimiser state included. Only `put` changes them."""

    networks: Networks
    born: IntArray  # [N, S] step before which the seed in a slot germinated, NONE where there is no seed

    def take(self, rows: IntArray) -> GoodStates:
        """Copies of some rows, in the given order."""
        return GoodStates(self.networks.take(rows), self.born[rows])

    def to(self, device: torch.device) -> GoodStates:
        """The same states on a device."""
        return GoodStates(self.networks.to(device), self.born)

    def put(self, rows: IntArray, source: GoodStates) -> None:
        """Overwrite distinct rows."""
        self.networks.put(rows, source.networks.to(self.networks.hosts.parameters.device))
        self.born[rows] = source.born

    @classmethod
    def of(cls, population: Population, rows: IntArray, lifecycle: LifecycleState, step: IntArray) -> GoodStates:
        """Present states of some rows.

        Args:
            population: N networks.
            rows: R rows.
            lifecycle: Their slots, and those of the others.
            step: Steps taken ``[N]``.
        """
        return cls(population.copies(rows), birth_steps(lifecycle, step)[rows])

    @classmethod
    def join(cls, parts: Sequence[GoodStates]) -> GoodStates:
        """States of several networks, in order."""
        return cls(join_networks([part.networks for part in parts]), np.concatenate([part.born for part in parts]))


def birth_steps(lifecycle: LifecycleState, step: IntArray) -> IntArray:
    """Step before which each seed germinated ``[N, S]``, NONE where there is none; tells seeds of a slot apart."""
    return np.where(lifecycle.has_seed, step[:, None] - lifecycle.age, NONE)


@dataclass(frozen=True, eq=False)
class Outcome:
    """A step after the governor has looked at it. N networks."""

    lifecycle: LifecycleState
    measured: Measurement
    record: Record


def govern(
    population: Population,
    good: GoodStates,
    *,
    before: EpisodeState,
    lifecycle: LifecycleState,
    measured: Measurement,
    guess: Guess,
    config: EnvConfig,
    measure: Measure,
) -> Outcome:
    """Take networks that have diverged in this step back, and keep the states of good ones in `good`.

    A network gets the weights and optimiser state of its last good state. Its seeds are pruned, but for those that are
    FOSSILIZED and were there then. Random streams and the step count go on, so it does not meet the same minibatches
    again. Its learning rate is multiplied by `rollback_factor`: the same one mostly leads to the same end. Its
    measurements are those of the network that it is now; of its training there are none.

    Args:
        population: Networks after the step; changed where one goes back.
        good: Last good states; changed where a network is good.
        before: State before the step.
        lifecycle: Lifecycle after the step.
        measured: Measurements of the step.
        guess: Figures of a guess.
        config: Settings of the problem.
        measure: Function that measures some networks.
    """
    step, is_finite = before.step + 1, _are_finite(population, lifecycle, measured)
    signs = Signs(measured.inner_loss, measured.inner_accuracy, is_finite, before.record)
    suspected = np.where(before.is_dead | before.is_over, 0, suspicion(signs, guess, config))
    goes_back = np.zeros(len(suspected), dtype=bool)
    rows = np.flatnonzero(suspected)
    if len(rows):
        is_same = (lifecycle.stage == Stage.FOSSILIZED) & (birth_steps(lifecycle, step) == good.born)
        pruned = lifecycle.has_seed & ~is_same & (suspected > 0)[:, None]
        here = population.snapshot(rows)
        _go_back(population, good, rows, here, is_same)
        there = measure(rows, uproot(lifecycle, pruned))
        is_back = has_diverged(suspected[rows], measured.inner_loss[rows], there.inner_loss)
        population.restore(here.take(np.flatnonzero(~is_back)), rows[~is_back])
        goes_back[rows] = is_back
        population.learning_rate[goes_back] *= config.rollback_factor
        lifecycle = uproot(lifecycle, pruned & goes_back[:, None])
        measured = put_rows(measured, goes_back, take_rows(there, is_back))
    loss = measured.inner_loss
    fossilized = ((lifecycle.stage == Stage.FOSSILIZED) & (before.lifecycle.stage != Stage.FOSSILIZED)).any(axis=1)
    # What is suspected and stays is the best there is; and what a controller has fossilized must not be pruned.
    is_kept = ~goes_back & ((suspected > 0) | fossilized | is_good(signs, loss, guess))
    kept = np.flatnonzero(is_kept)
    good.put(kept, GoodStates.of(population, kept, lifecycle, step))
    return Outcome(lifecycle, measured, next_record(signs, suspected, goes_back, loss))


def _are_finite(population: Population, lifecycle: LifecycleState, measured: Measurement) -> BoolArray:
    """Whether losses, and gradients and weights of what acts, are finite ``[N]``. A seed in TRAINING does not."""
    acts = lifecycle.is_live & (lifecycle.alpha.value > 0)
    seeds = np.isfinite(measured.seed_gradient_norm) | ~acts
    weights = population.are_finite(acts).cpu().numpy()
    return np.asarray(measured.is_finite & np.isfinite(measured.host_gradient_norm) & seeds.all(axis=1) & weights)


def _go_back(population: Population, good: GoodStates, rows: IntArray, here: Snapshot, kept: BoolArray) -> None:
    """Put last good states into some rows, with the random streams and conditions they have now.

    Args:
        population: N networks.
        good: Last good states of all.
        rows: R rows.
        here: Their present states.
        kept: Mask of slots whose seeds stay ``[N, S]``.
    """
    population.restore(replace(here, networks=good.networks.take(rows)), rows)
    population.conditions.put_(rows, here.networks.conditions)
    for slot in range(population.num_slots):
        population.remove(rows[~kept[rows, slot]], slot)
        population.connect(rows, slot)
