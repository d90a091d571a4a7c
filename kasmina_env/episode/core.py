"""The decision problem without any interface: N episodes side by side, reset and stepped together.

`kasmina_env.envs.env` and `kasmina_env.envs.vector_env` only translate this to Gymnasium; one environment is N = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from kasmina_env.episode.actions import ActionTable, factored_mask, flat_mask, make_action_table
from kasmina_env.episode.features import Scene
from kasmina_env.episode.observation import make_observation_table, observe
from kasmina_env.episode.problem import initial_weights, make_data, make_host, make_variants
from kasmina_env.episode.reward import REWARDS, Step, compute_growth, fossil_growth, paid_growth, score, value
from kasmina_env.episode.state import Measurement, View, first_view, next_view, with_score
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, FloatArray, IntArray, put_rows, take_rows
from kasmina_env.lifecycle.transitions import LifecycleState, Stage, apply, tick
from kasmina_env.networks.costs import measure_costs
from kasmina_env.networks.grown import GrownNetwork
from kasmina_env.population import (
    AnyPopulation,
    Conditions,
    Optimizer,
    Population,
    ShardedPopulation,
    ShardedSnapshot,
    Snapshot,
    place_population,
)
from kasmina_env.population.device import own_modes, to_numpy
from kasmina_env.settings.config import EnvConfig, Operator
from kasmina_env.settings.instances import SPLIT_NAMES, make_instances
from kasmina_env.tasks import Split

MAX_SEED = 2**31
CONDITIONS = ("learning_rate", "label_noise", "pixel_noise")  # numbers of an instance that networks train under
_NO_RESET = "`reset` must be called before anything else, got no reset yet. Call it."


@dataclass(frozen=True, eq=False)
class StepResult:
    """What one step gave. N networks."""

    reward: FloatArray  # [N]
    terms: dict[str, FloatArray]  # each [N], their sum is the reward
    is_over: BoolArray  # [N]


@dataclass(frozen=True, eq=False)
class CoreSnapshot:
    """Episodes with everything their future depends on."""

    networks: Snapshot | ShardedSnapshot
    view: View
    test_accuracy: FloatArray
    is_test: BoolArray
    seeders: tuple[np.random.Generator, ...]
    config: EnvConfig

    def check(self, core: Core, rows: Sequence[int] | IntArray) -> None:
        """Raise one clear sentence where these episodes cannot be those of some rows."""
        if self.config != core.config:
            differs = [name for name, value in vars(core.config).items() if value != getattr(self.config, name)]
            raise ValueError(f"`saved` must be of an equal problem, got one with another {', '.join(differs)}.")
        if len(self.seeders) != len(rows):
            raise ValueError(f"`saved` must hold {len(rows)} episodes, got {len(self.seeders)}. Name as many rows.")
        if isinstance(self.networks, ShardedSnapshot) != isinstance(core.population, ShardedPopulation):
            raise ValueError("`saved` must be of a population that is spread in the same way, got another kind.")


class Core:
    """N episodes of one problem.

    Args:
        config: The problem.
        num_networks: N.
        device: Where the networks train.
        devices: Several over which to spread them instead, each a thread of its own.
        num_workers: Processes over which to spread them, if more than one; they need no device of their own.
        dtype: Floating-point type of the networks.
    """

    def __init__(
        self,
        config: EnvConfig,
        num_networks: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        devices: Sequence[torch.device | str] = (),
        num_workers: int = 1,
    ) -> None:
        self.config = config
        self.has_workers = num_workers > 1
        self.devices = tuple(map(torch.device, devices or (device,) * num_workers))
        self.num_networks = num_networks
        self.device, self.dtype = self.devices[0], dtype
        self.host = make_host(config)
        self._initial_weights = initial_weights(config, self.host)
        self.instances = make_instances(config)
        self.variants, self._variant_of = make_variants(config, self.instances)
        self._data = make_data(config, self.host, self.instances, self.device, dtype)
        self.slot_names = tuple(slot.name for slot in self.host.slots)
        self.num_slots = len(self.slot_names)
        self.actions: ActionTable = make_action_table(config, self.slot_names)
        self.observations = make_observation_table(config, self.instances, self.slot_names)
        self.costs = measure_costs(self.host, config.blueprints, tuple(Operator))
        self.reward = REWARDS.get(config.reward)
        self._optimizer = Optimizer(
            config.optimizer,  # type: ignore[arg-type]
            learning_rate=config.learning_rate,
            clip_norm=config.clip_norm,
            host_factor=config.host_factor,
        )
        self.seeders = [np.random.default_rng(i) for i in range(num_networks)]
        self._population: AnyPopulation | None = None
        self._view: View | None = None
        self.test_accuracy = np.zeros(num_networks)  # [N] of the committed network, at the end
        self.is_test = np.zeros(num_networks, dtype=bool)  # [N] which draw their instances from those to test on

    @property
    def data(self) -> Mapping[str, Split]:
        """Samples by split."""
        return self._data.splits

    @property
    def is_reset(self) -> bool:
        """Whether there are episodes."""
        return self._view is not None

    @property
    def population(self) -> AnyPopulation:
        """The networks; a ``RuntimeError`` before the first reset."""
        if self._population is None:
            raise RuntimeError(_NO_RESET)
        return self._population

    @property
    def view(self) -> View:
        """Everything known about the networks; a ``RuntimeError`` before the first reset."""
        if self._view is None:
            raise RuntimeError(_NO_RESET)
        return self._view

    # ── episodes ─────────────────────────────────────────────────────────────────────────────

    def reset(self, rows: IntArray, instances: IntArray | None = None) -> None:
        """Start a new episode in the given rows, from a seed each row's seeder draws.

        Args:
            rows: R different rows.
            instances: Number of each one's instance ``[R]``; if left out, or where -1, drawn from the row's split.
        """
        rng_seeds = np.array([self.seeders[row].integers(MAX_SEED) for row in rows])
        drawn = self._draw_instances(rows)
        numbers = drawn if instances is None else np.where(instances < 0, drawn, instances)
        with own_modes(self.device):
            if self._population is None:
                spread = np.zeros((2, self.num_networks), dtype=np.int64)
                spread[:, rows] = rng_seeds, numbers
                rows, (rng_seeds, numbers) = np.arange(self.num_networks), spread
                self._population = self._first_population(rng_seeds, numbers)
            else:
                self.population.reset_rows(rows, rng_seeds.tolist(), self._conditions(numbers))
            fresh = self._first_view(rows, numbers)
        self._view = fresh if self._view is None else put_rows(self.view, rows, fresh)
        self.test_accuracy[rows] = 0.0

    def _draw_instances(self, rows: IntArray) -> IntArray:
        """An instance for each row from its own stream, which a problem with just one does not touch."""
        if len(self.instances) == 1:
            return np.zeros(len(rows), dtype=np.int64)
        pools = [self.instances.split(SPLIT_NAMES[int(is_test)]) for is_test in self.is_test[rows]]
        return np.array([self.seeders[row].choice(pool) for row, pool in zip(rows, pools, strict=True)])

    def _conditions(self, numbers: IntArray) -> Conditions:
        settled = {name: self.instances.numbers[name][numbers] for name in CONDITIONS}
        return Conditions(**settled, variant=self._variant_of[numbers])

    def _first_population(self, rng_seeds: IntArray, numbers: IntArray) -> AnyPopulation:
        def recipe(rows: IntArray, device: torch.device) -> Callable[[], Population]:
            who = (self.host, rng_seeds[rows].tolist(), self._optimizer, device, self.dtype, self._data.measure)
            what = (*who, self.variants, self._conditions(numbers[rows]), self.config.birth_gain, self._initial_weights)
            return partial(Population, *what)

        return place_population(self.devices, self.num_networks, recipe, self.has_workers)

    def close(self) -> None:
        """End the processes of a sharded population."""
        if isinstance(self._population, ShardedPopulation):
            self._population.close()

    def _first_view(self, rows: IntArray, numbers: IntArray) -> View:
        """After the warm-up, whose gradients a controller sees; without one none are known."""
        alpha, config = np.zeros((self.num_networks, self.num_slots)), self.config
        gradients = [torch.zeros(len(rows), n, dtype=self.dtype, device=self.device) for n in (1, self.num_slots)]
        if config.warmup_batches:
            how = (config.warmup_batches, config.batch_size, config.warmup_learning_rate)
            health = self.population.warm_up(self._data.warmup, *how, rows)
            gradients = [health.host_norm.unsqueeze(1), health.segment_norm]
        inner = self.population.evaluate(self._data.watched, alpha, rows=rows)
        outer = self.population.evaluate(self.data["outer_valid"], alpha, rows=rows)
        inner_loss, accuracy, _, quality, *norms = to_numpy([*(t[0] for t in (*inner, *outer)), *gradients])
        return first_view(numbers, config.horizon, inner_loss, accuracy, quality, *norms)

    def step(self, actions: IntArray) -> StepResult:
        """One decision for every network: carry it out, train, measure, pay.

        Args:
            actions: Flat actions ``[N]``; one that is not legal, or -1, counts as WAIT and is reported.
        """
        before, config = self.view, self.config
        commands = take_rows(self.actions.commands, np.maximum(actions, 0))
        lifecycle, is_legal = apply(before.lifecycle, commands, before.facts, config.rules)
        lifecycle = tick(lifecycle, config.rules)
        with own_modes(self.device):
            self._grow(before.lifecycle, lifecycle)
            measured = self._train_and_measure(lifecycle)
            after = next_view(
                before,
                lifecycle,
                measured,
                self.costs,
                actions=actions,
                op=commands.op,
                is_legal=is_legal & (actions >= 0),
            )
            is_over = after.is_over
            quality = self._final_quality(after, is_over)
        prices = self.instances.numbers["param_price"][after.instance]
        worth = value(quality, paid_growth(after, self.costs, config), prices)
        after = with_score(after, quality, worth, score(after, worth, config), compute_growth(after, self.costs))
        self._view = after
        step = Step(before, after, is_over, self.costs, config, self.instances)
        terms = {name: term.value(step) for name, term in self.reward.terms.items()}
        return StepResult(np.sum(list(terms.values()), axis=0), terms, is_over)

    def plant(self, actions: IntArray) -> None:
        """Carry out one more decision before the next step, which then pays for it; what is not legal changes nothing.

        Not for controllers, who have one decision a step: it gives a network an architecture to begin with.

        Args:
            actions: Flat actions ``[N]``.
        """
        before = self.view
        commands = take_rows(self.actions.commands, np.maximum(actions, 0))
        lifecycle, _ = apply(before.lifecycle, commands, before.facts, self.config.rules)
        with own_modes(self.device):
            self._grow(before.lifecycle, lifecycle)
        self._view = replace(before, lifecycle=lifecycle)

    def _grow(self, before: LifecycleState, after: LifecycleState) -> None:
        """Make the networks follow the lifecycle."""
        removed = before.has_seed & ~after.has_seed
        connected = (before.stage == Stage.TRAINING) & after.is_live
        for slot in range(self.num_slots):
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
            name = self.config.blueprints[blueprint]
            self.population.germinate(rows, slot, name, Operator(operator), in_training)

    def _pace(self) -> FloatArray:
        """What learning rates are multiplied by in the coming step, ``[N]``."""
        lost = np.minimum(self.view.step / self.config.horizon, 1.0)
        return np.asarray(1.0 - lost * (self.config.decay == "linear"))

    def _train_and_measure(self, lifecycle: LifecycleState) -> Measurement:
        config, alpha = self.config, lifecycle.alpha.value
        how = (config.batches_per_step, config.batch_size, config.augment)
        batches = self.population.draw_minibatches(self.data["train"], *how)
        train_loss, health = self.population.train(*batches, alpha, self._pace())
        can_switch_off = lifecycle.is_live & (alpha > 0)  # [N, S]
        slots = np.flatnonzero(can_switch_off.any(axis=0))
        off = np.zeros((1 + len(slots), *alpha.shape), dtype=bool)
        off[1 + np.arange(len(slots)), :, slots] = can_switch_off[:, slots].T
        (inner_loss, inner_accuracy), (outer_loss, quality) = self.population.evaluate_together(
            (self._data.watched, self._data.scored), alpha, (off, None)
        )
        figures = {
            "train_loss": train_loss,
            "host_gradient_norm": health.host_norm,
            "segment_gradient_norm": health.segment_norm,
            "seed_gradient_norm": health.seed_norm,
            "vanishing": health.vanishing,
            "exploding": health.exploding,
            "inner_loss": inner_loss[0],
            "inner_accuracy": inner_accuracy,
            "outer_loss": outer_loss[0],
            "quality": quality[0],
        }
        measured = dict(zip(figures, to_numpy(list(figures.values())), strict=True))
        accuracy = measured.pop("inner_accuracy")  # [1 + slots, N]
        contribution = np.zeros(alpha.shape)
        contribution[:, slots] = (accuracy[0] - accuracy[1:]).T
        return Measurement(
            **measured,
            inner_accuracy=accuracy[0],
            contribution=np.where(can_switch_off, contribution, 0.0),
            has_contribution=can_switch_off,
        )

    def _final_quality(self, view: View, is_over: BoolArray) -> FloatArray:
        """Quality, where an episode is over that of the committed network on all of outer_valid."""
        quality = view.quality.copy()
        rows = np.flatnonzero(is_over)
        if len(rows):
            off = self._uncommitted(view)[None]
            alpha = view.lifecycle.alpha.value
            scored, tested = (
                self.population.evaluate(self.data[name], alpha, off, rows)[1][0] for name in ("outer_valid", "test")
            )
            quality[rows], self.test_accuracy[rows] = to_numpy([scored, tested])
        return quality

    @staticmethod
    def _uncommitted(view: View) -> BoolArray:
        return np.asarray(view.lifecycle.has_seed & (view.lifecycle.stage != Stage.FOSSILIZED))

    def committed_growth(self) -> FloatArray:
        """Parameters of fossilized seeds over those of the host, ``[N]``."""
        return fossil_growth(self.view, self.costs)

    def operator_name(self, row: int, slot: int) -> str:
        """Name of the blend operator of a seed."""
        return Operator(int(self.view.lifecycle.operator[row, slot])).name

    # ── what is seen ─────────────────────────────────────────────────────────────────────────

    def observe(self) -> Float32Array:
        """Observations ``[N, F]``."""
        return observe(self.observations, Scene(self.view, self.costs, self.config, self.instances))

    def action_masks(self) -> BoolArray:
        """Exact masks of the flat actions ``[N, A]``."""
        view = self.view
        return flat_mask(self.actions, view.lifecycle, view.facts, self.config)

    def factored_masks(self) -> BoolArray:
        """Marginal masks of the factored actions' heads ``[N, sum(num_choices)]``."""
        return factored_mask(self.actions, self.action_masks())

    # ── whole episodes as values ─────────────────────────────────────────────────────────────

    def snapshot(self, rows: Sequence[int] | IntArray) -> CoreSnapshot:
        """Copy episodes with everything their future depends on."""
        with own_modes(self.device):
            networks = self.population.snapshot(rows)
        return CoreSnapshot(
            networks,
            take_rows(self.view, rows),
            self.test_accuracy[np.asarray(rows)],
            self.is_test[np.asarray(rows)],
            tuple(deepcopy(self.seeders[row]) for row in rows),
            self.config,
        )

    def restore(self, saved: CoreSnapshot, rows: Sequence[int] | IntArray) -> None:
        """Overwrite episodes by those of a snapshot, in order; nothing is changed if it does not fit."""
        saved.check(self, rows)
        view = put_rows(self.view, rows, saved.view)
        with own_modes(self.device):
            self.population.restore(saved.networks, rows)
        self._view = view
        self.test_accuracy[np.asarray(rows)] = saved.test_accuracy
        self.is_test[np.asarray(rows)] = saved.is_test
        for row, seeder in zip(rows, saved.seeders, strict=True):
            # in place: a shell may hold the same generator
            self.seeders[row].bit_generator.state = seeder.bit_generator.state

    def reseed(self, rows: IntArray, rng_seeds: Sequence[int]) -> None:
        """Give episodes new random streams from here on."""
        self.population.reseed(rows, rng_seeds)
        for row, seed in zip(rows, rng_seeds, strict=True):
            self.seeders[row] = np.random.default_rng(seed)

    def network(self, row: int, committed: bool = False) -> GrownNetwork:
        """One network as an ordinary module, with all its seeds or only those it keeps."""
        lifecycle = self.view.lifecycle
        keep = ~self._uncommitted(self.view)[row] if committed else None
        with own_modes(self.device):
            return self.population.network(row, lifecycle.alpha.value[row], keep)
