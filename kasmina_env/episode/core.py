"""Episodes of one problem in this process, reset and stepped together.

Environments use `kasmina_env.episode.episodes`, which spreads episodes over one or several of these cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from kasmina_env.episode.data import load_data
from kasmina_env.episode.governor import Guess, measure_guess
from kasmina_env.episode.measuring import measure_as_is, measure_committed, measure_trained, uncommitted
from kasmina_env.episode.problem import Problem
from kasmina_env.episode.report import Ending, Report, make_report
from kasmina_env.episode.reward import Step
from kasmina_env.episode.rollback import GoodStates, Outcome, govern
from kasmina_env.episode.state import Decision, EpisodeState, Measurement, first_state, next_state, score_from, worth
from kasmina_env.lifecycle.arrays import FloatArray, IntArray, join_rows, put_rows, take_rows
from kasmina_env.lifecycle.execution import apply, tick
from kasmina_env.lifecycle.state import LifecycleState, Stage
from kasmina_env.networks.grown import GrownNetwork
from kasmina_env.population import ENGINES, Conditions, GradientHealth, Optimizer, Population, Snapshot
from kasmina_env.population.device import own_modes
from kasmina_env.population.initial_weights import load_initial_weights
from kasmina_env.settings.config import Operator
from kasmina_env.tasks import Split

ThingT = TypeVar("ThingT")


@dataclass(frozen=True, eq=False)
class CoreSnapshot:
    """Episodes with everything their future depends on, except the random streams they will be reset from."""

    networks: Snapshot
    state: EpisodeState
    report: Report
    good: GoodStates | None  # None without a governor

    def __len__(self) -> int:
        return len(self.networks)

    def take(self, rows: IntArray) -> CoreSnapshot:
        """Copy of some episodes, in the given order."""
        good = self.good and self.good.take(rows)
        return CoreSnapshot(self.networks.take(rows), take_rows(self.state, rows), take_rows(self.report, rows), good)

    @classmethod
    def join(cls, parts: Sequence[CoreSnapshot]) -> CoreSnapshot:
        """Episodes of several snapshots, in order."""
        return cls(
            Snapshot.join([part.networks for part in parts]),
            join_rows([part.state for part in parts]),
            join_rows([part.report for part in parts]),
            GoodStates.join([part.good for part in parts if part.good]) if parts[0].good else None,
        )


def initial_weights_of(problem: Problem) -> FloatArray | None:
    """Weights that every episode starts from; None if they are drawn at random."""
    weights = problem.config.initial_weights
    return load_initial_weights(Path(weights), problem.host) if weights else None


class EpisodeCore:
    """N episodes of one problem.

    Args:
        problem: Names, menus and costs.
        num_networks: N.
        device: Device of the networks.
        dtype: Floating-point type of the networks.
        has_neighbours: Whether other cores train in threads of this process; CUDA graphs are recorded only if not.
        engine: Engine of the networks, a name in `kasmina_env.population.ENGINES`; by default that of the environment
            variable KASMINA_ENGINE, and without one "auto".
    """

    def __init__(
        self,
        problem: Problem,
        num_networks: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        has_neighbours: bool = False,
        engine: str | None = None,
    ) -> None:
        self.problem, self.num_networks, self.device, self.dtype = problem, num_networks, device, dtype
        self.has_neighbours, self.engine = has_neighbours, engine
        self.data = load_data(problem, device, dtype)
        self._initial_weights = initial_weights_of(problem)
        self._population: Population | None = None
        self._state: EpisodeState | None = None
        self._report: Report | None = None
        self._good: GoodStates | None = None  # with a governor, from the first reset on

    @property
    def population(self) -> Population:
        """The networks; a ``RuntimeError`` before the first reset."""
        return _existing(self._population)

    @property
    def report(self) -> Report:
        """The latest report; a ``RuntimeError`` before the first reset."""
        return _existing(self._report)

    def state(self, rows: IntArray | None = None) -> EpisodeState:
        """Everything known about the networks of some rows, or of all; a ``RuntimeError`` before the first reset."""
        state = _existing(self._state)
        return state if rows is None else take_rows(state, rows)

    # ── episodes ─────────────────────────────────────────────────────────────────────────────

    def reset(self, rows: IntArray, rng_seeds: IntArray, instances: IntArray, planted: IntArray) -> Report:
        """Start new episodes.

        Args:
            rows: R different rows; all of them the first time.
            rng_seeds: Seeds of the networks' random streams ``[R]``.
            instances: Numbers of the instances ``[R]``.
            planted: P flat GERMINATE actions, carried out in all of these rows before the first step. The first step
                pays for them. One that is not legal changes nothing.
        """
        with own_modes(self.device):
            conditions = self._conditions(instances)
            if self._population is None:
                self._population = self._make_population(rng_seeds, conditions, self.engine)
            else:
                self.population.reset_rows(rows, rng_seeds.tolist(), conditions)
            fresh = self._first_state(rows, instances)
            self._state = fresh if self._state is None else put_rows(self.state(), rows, fresh)
            for action in planted.tolist():
                self._plant(rows, action)
            if self.problem.config.governor:
                self._keep_good(rows)
        no_terms = {name: np.zeros(self.num_networks) for name in self.problem.reward.terms}
        started = make_report(
            self.problem, self.state(), no_terms, Ending.none(self.num_networks), self.population.engine
        )
        self._report = started if self._report is None else put_rows(self.report, rows, take_rows(started, rows))
        return self.report

    def step(self, actions: IntArray, limit: int | None = None) -> Report:
        """Carry out one action for every network, train, measure and compute the reward.

        Args:
            actions: Flat actions ``[N]``. One that is not legal, or -1, counts as WAIT and is reported as not legal.
            limit: Step at which a time limit cuts episodes off; their final figures are measured then.
        """
        before, problem = self.state(), self.problem
        commands = take_rows(problem.actions.commands, np.maximum(actions, 0))
        lifecycle, is_legal = apply(before.lifecycle, commands, before.now.seeds, problem.config.thresholds)
        lifecycle = tick(lifecycle, problem.config.thresholds)
        with own_modes(self.device):
            self._grow(before.lifecycle, lifecycle)
            train_loss, health = self._train(before, lifecycle)
            trained = measure_trained(self.population, self.data, lifecycle, train_loss, health)
            outcome = self._govern(before, lifecycle, trained)
            lifecycle, measured, record = outcome.lifecycle, outcome.measured, outcome.record
            is_over = before.ends_with(measured, record, problem.config)
            ended = np.flatnonzero(is_over)
            quality, test_accuracy = measure_committed(self.population, self.data, lifecycle, ended, measured.quality)
        measured = replace(measured, quality=quality)
        decision = Decision(actions, commands.op, is_legal & (actions >= 0))
        prices = problem.instances.numbers["param_price"][before.instance]
        self._state = after = next_state(
            before, lifecycle, decision, measured, record, problem.costs, problem.config, prices
        )
        step = Step(before, after, is_over, problem.costs, problem.config, problem.instances)
        terms = {name: term.value(step) for name, term in problem.reward.terms.items()}
        ending = self._ending(after, np.where(is_over, after.score, 0.0), test_accuracy)
        is_cut = ~is_over & (after.step == limit)
        if is_cut.any():
            ending = put_rows(ending, is_cut, self.ending(np.flatnonzero(is_cut)))
        self._report = make_report(problem, after, terms, ending, self.population.engine)
        return self._report

    def ending(self, rows: IntArray) -> Ending:
        """Final figures ``[R]`` of episodes that are cut off now, as if the committed network served all steps left."""
        state, problem = self.state(), self.problem
        with own_modes(self.device):
            quality, test_accuracy = measure_committed(self.population, self.data, state.lifecycle, rows, state.quality)
        prices = problem.instances.numbers["param_price"][state.instance]
        kept = worth(quality, problem.costs.fossil_growth(state.lifecycle), prices)
        score = np.where(state.is_over, state.score, score_from(state, kept, problem.config))
        return take_rows(self._ending(state, score, test_accuracy), rows)

    def _ending(self, state: EpisodeState, score: FloatArray, test_accuracy: FloatArray) -> Ending:
        return Ending(score, test_accuracy, ~state.is_dead & (score >= self.problem.config.success_score))

    def _conditions(self, instances: IntArray) -> Conditions:
        numbers = self.problem.instances.numbers
        return Conditions(
            learning_rate=numbers["learning_rate"][instances],
            label_noise=numbers["label_noise"][instances],
            pixel_noise=numbers["pixel_noise"][instances],
            variant=self.problem.variant_of[instances],
            change=self.problem.change_at[instances, 0],
        )

    def _make_population(self, rng_seeds: IntArray, conditions: Conditions, engine: str | None) -> Population:
        config = self.problem.config
        optimizer = Optimizer(
            config.optimizer,  # type: ignore[arg-type]
            learning_rate=config.learning_rate,
            clip_norm=config.clip_norm,
            host_factor=config.host_factor,
        )
        population = Population(
            self.problem.host,
            rng_seeds.tolist(),
            optimizer,
            self.device,
            self.dtype,
            criterion=self.data.criterion,
            variants=self.problem.variants,
            conditions=conditions,
            birth_gain=config.birth_gain,
            initial_weights=self._initial_weights,
            engine=engine,
        )
        population.setting.recordings.is_on = not self.has_neighbours
        return population

    def _first_state(self, rows: IntArray, instances: IntArray) -> EpisodeState:
        """State after the warm-up. Its gradients are observed; without a warm-up they are 0."""
        config, health = self.problem.config, None
        if config.warmup_batches:
            health = self.population.warm_up(
                self.data.warmup, config.warmup_batches, config.batch_size, config.warmup_learning_rate, rows
            )
        alpha = np.zeros((self.num_networks, self.problem.num_slots))
        measured = measure_as_is(
            self.population, self.data.watched, self.data.splits["outer_valid"], rows, alpha, health
        )
        return first_state(instances, config.horizon, measured, self.problem.costs)

    def _plant(self, rows: IntArray, action: int) -> None:
        """Carry out an action in some rows between two steps."""
        before = self.state()
        actions = np.zeros(self.num_networks, dtype=np.int64)
        actions[rows] = action
        commands = take_rows(self.problem.actions.commands, actions)
        lifecycle, _ = apply(before.lifecycle, commands, before.now.seeds, self.problem.config.thresholds)
        self._grow(before.lifecycle, lifecycle)
        self._state = replace(before, lifecycle=lifecycle)

    def _grow(self, before: LifecycleState, after: LifecycleState) -> None:
        """Remove, connect and germinate seeds in the networks, as the lifecycle changed."""
        removed = before.has_seed & ~after.has_seed
        connected = (before.stage == Stage.TRAINING) & after.is_live
        for slot in range(self.problem.num_slots):
            if removed[:, slot].any():
                self.population.remove(np.flatnonzero(removed[:, slot]), slot)
            if connected[:, slot].any():
                self.population.connect(np.flatnonzero(connected[:, slot]), slot)
        born = ~before.has_seed & after.has_seed
        kinds: dict[tuple[int, int, int, bool], list[int]] = {}
        for row, slot in np.argwhere(born):
            blueprint, operator = after.blueprint[row, slot], after.operator[row, slot]
            in_training = bool(after.stage[row, slot] == Stage.TRAINING)
            key = (int(slot), int(blueprint), int(operator), in_training)
            kinds.setdefault(key, []).append(int(row))
        for (slot, blueprint, operator, in_training), rows in kinds.items():
            name = self.problem.config.blueprints[blueprint]
            self.population.germinate(rows, slot, name, Operator(operator), in_training)

    # ── training ─────────────────────────────────────────────────────────────────────────────

    def _train(self, before: EpisodeState, lifecycle: LifecycleState) -> tuple[torch.Tensor, GradientHealth]:
        """Train on the minibatches of one step, of the data as they are now: mean loss ``[N]``, and gradient health."""
        config = self.problem.config
        step = np.minimum(before.step, self.problem.horizon)
        self.population.conditions.change[:] = self.problem.change_at[before.instance, step]
        x, y = self.population.draw_minibatches(
            self.data.splits["train"], config.batches_per_step, config.batch_size, config.augment
        )
        return self.population.train(x, y, lifecycle.alpha.value, self._pace(before.step))

    def _pace(self, step: IntArray) -> FloatArray:
        """Learning-rate factors of the coming step ``[N]``."""
        lost = np.minimum(step / self.problem.horizon, 1.0)
        return np.asarray(1.0 - lost * (self.problem.config.decay == "linear"))

    # ── the governor ─────────────────────────────────────────────────────────────────────────

    @cached_property
    def _guess(self) -> Guess:
        return measure_guess(self.data.watched, self.problem.host.num_classes, self.data.criterion)

    def _keep_good(self, rows: IntArray) -> None:
        """Keep the states of some networks as good ones, the first time those of all."""
        state = self.state()
        fresh = GoodStates.of(self.population, rows, state.lifecycle, state.step)
        if self._good is None:
            self._good = fresh
        else:
            self._good.put(rows, fresh)

    def _govern(self, before: EpisodeState, lifecycle: LifecycleState, measured: Measurement) -> Outcome:
        """Take networks that diverged in this step back, if there is a governor."""
        if self._good is None:
            return Outcome(lifecycle, measured, before.record)
        return govern(
            self.population,
            self._good,
            before=before,
            lifecycle=lifecycle,
            measured=measured,
            guess=self._guess,
            config=self.problem.config,
            measure=lambda rows, now: measure_as_is(
                self.population, self.data.watched, self.data.scored, rows, now.alpha.value
            ),
        )

    # ── whole episodes as values ─────────────────────────────────────────────────────────────

    def snapshot(self, rows: IntArray) -> CoreSnapshot:
        """Copies of episodes."""
        with own_modes(self.device):
            networks, good = self.population.snapshot(rows), self._good and self._good.take(rows)
        return CoreSnapshot(networks, take_rows(self.state(), rows), take_rows(self.report, rows), good)

    def restore(self, saved: CoreSnapshot, rows: IntArray) -> Report:
        """Overwrite episodes with those of a snapshot of an equal problem, in order; the first time, all of them."""
        if self._population is None:
            return self._begin(saved)
        state, report = put_rows(self.state(), rows, saved.state), put_rows(self.report, rows, saved.report)
        with own_modes(self.device):
            self.population.restore(saved.networks, rows)
            if self._good and saved.good:
                self._good.put(rows, saved.good)
        self._state, self._report = state, report
        return report

    def _begin(self, saved: CoreSnapshot) -> Report:
        """Make the population from a snapshot, where there is none yet.

        Under "auto" the engine that trained the episodes goes on. It may be "torch" because of a seed that has gone
        since; a fresh choice would then be "fused".
        """
        engine = self.engine
        if engine in (None, "auto") and ENGINES[saved.report.engine[0]] == "torch":
            engine = "torch"
        with own_modes(self.device):
            conditions = saved.networks.networks.conditions.take(np.arange(len(saved)))
            population = self._make_population(np.zeros(len(saved), dtype=np.int64), conditions, engine)
            population.restore(saved.networks)
            self._good = saved.good and saved.good.to(self.device).take(np.arange(len(saved)))
        self._population, self._state, self._report = population, saved.state, saved.report
        return saved.report

    def reseed(self, rows: IntArray, rng_seeds: IntArray) -> None:
        """Give networks new random streams from here on."""
        self.population.reseed(rows, rng_seeds.tolist())

    def network(self, row: int, committed: bool = False) -> GrownNetwork:
        """One network as an ordinary module, with all its seeds or only those it keeps."""
        lifecycle = self.state().lifecycle
        keep = ~uncommitted(lifecycle)[row] if committed else None
        with own_modes(self.device):
            return self.population.network(row, lifecycle.alpha.value[row], keep)

    def engine_reason(self) -> str:
        """Why the networks train with "torch" where "auto" would rather have "fused"; empty elsewhere."""
        return self.population.engine_reason

    def test_data(self, row: int) -> Split:
        """The test split with the noise and changes that one network sees."""
        return self.population.seen_by(row, self.data.splits["test"])


def _existing(thing: ThingT | None) -> ThingT:
    if thing is None:
        raise RuntimeError("There are no episodes yet. Call `reset()` first.")
    return thing
