"""The state of N episodes in plain numbers: observations, rewards and infos read this and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray
from kasmina_env.lifecycle.transitions import LifecycleState, SeedMeasurements, Stage
from kasmina_env.networks.costs import Costs
from kasmina_env.settings.config import EnvConfig, Operator

LOSS_CEILING = 1e3  # a loss that is not finite, or absurd, counts as this
RATIO_CEILING = 10.0  # of seed to host gradients
NO_ACTION = -1  # in the log of actions: none was taken, or one that is in no table


@dataclass(frozen=True, eq=False)
class Measurement:
    """Figures of one step as they came from the device; may hold NaN. N networks, S slots."""

    train_loss: FloatArray  # [N] mean over the step's minibatches
    host_gradient_norm: FloatArray  # [N]
    segment_gradient_norm: FloatArray  # [N, S] of the host's segment that each slot stands behind
    seed_gradient_norm: FloatArray  # [N, S] NaN where there is no seed
    vanishing: FloatArray  # [N, S] share of tensors, NaN where there is no seed
    exploding: FloatArray  # [N, S]
    inner_loss: FloatArray  # [N]
    inner_accuracy: FloatArray  # [N]
    contribution: FloatArray  # [N, S] inner accuracy lost when this seed is switched off
    has_contribution: BoolArray  # [N, S]
    outer_loss: FloatArray  # [N]
    quality: FloatArray  # [N] on the scored slice of outer_valid

    @property
    def is_finite(self) -> BoolArray:
        """Whether the network still is, ``[N]``."""
        return np.isfinite(self.train_loss + self.inner_loss + self.outer_loss)


@dataclass(frozen=True, eq=False)
class Signals:
    """Figures of one step, all finite. N networks, S slots."""

    train_loss: FloatArray  # [N]
    inner_loss: FloatArray  # [N]
    accuracy: FloatArray  # [N] on inner_valid
    gradient_norm: FloatArray  # [N] of the host; 0 until measured
    gradient_share: FloatArray  # [N, S] of the host's gradient norm, of the segment before a slot; 0 until measured
    gradient_ratio: FloatArray  # [N, S] seed to host, per parameter; 0 until measured
    vanishing: FloatArray  # [N, S] share of the seed's tensors
    exploding: FloatArray  # [N, S]
    has_gradients: BoolArray  # [N, S] the three above were measured
    seeds: SeedMeasurements

    @classmethod
    def of(cls, measured: Measurement, lifecycle: LifecycleState, costs: Costs) -> Signals:
        """Signals of a step's figures."""
        ratio, has_gradients = _gradient_ratio(lifecycle, measured, costs)
        return cls(
            train_loss=finite_loss(measured.train_loss),
            inner_loss=finite_loss(measured.inner_loss),
            accuracy=measured.inner_accuracy,
            gradient_norm=_finite_norm(measured.host_gradient_norm),
            gradient_share=_gradient_share(measured.segment_gradient_norm, measured.host_gradient_norm[:, None]),
            gradient_ratio=ratio,
            vanishing=np.nan_to_num(measured.vanishing),
            exploding=np.nan_to_num(measured.exploding),
            has_gradients=has_gradients,
            seeds=SeedMeasurements(
                has_finite_gradients=has_gradients & np.isfinite(measured.seed_gradient_norm),
                contribution=measured.contribution,
                has_contribution=measured.has_contribution,
            ),
        )


@dataclass(frozen=True, eq=False)
class History:
    """The course of episodes, entry t after t steps. N networks, S slots, T steps."""

    accuracy: FloatArray  # [N, T + 1] on inner_valid
    score: FloatArray  # [N, T + 1]
    stage: IntArray  # [N, T + 1, S]
    alpha: FloatArray  # [N, T + 1, S]
    actions: IntArray  # [N, T] taken, `NO_ACTION` beyond

    def accuracy_before(self, step: IntArray, ago: int) -> FloatArray:
        """Accuracy so many steps ago, at the earliest that of the start, ``[N]``."""
        last = self.accuracy.shape[1] - 1
        return np.asarray(self.accuracy[np.arange(len(step)), np.clip(step - ago, 0, last)])


@dataclass(frozen=True, eq=False)
class EpisodeState:
    """Everything known about N networks in the middle of their episodes. N networks, S slots, T steps."""

    lifecycle: LifecycleState
    now: Signals
    previous: Signals  # one step before; at the start the same
    history: History
    instance: IntArray  # [N] number of the instance the episode is about
    step: IntArray  # [N] steps taken
    best_accuracy: FloatArray  # [N]
    steps_since_best: IntArray  # [N]
    quality: FloatArray  # [N] on outer_valid; at the end of the episode, of the committed network on all of it
    value: FloatArray  # [N] quality minus the price of parameters, summed over the steps so far
    score: FloatArray  # [N]
    first_score: FloatArray  # [N] of the untrained host
    compute_spent: FloatArray  # [N] compute of seeds over that of the host, mean over the whole horizon so far
    last_op: IntArray  # [N]
    is_legal: BoolArray  # [N] the last action was
    is_dead: BoolArray  # [N] the network is not finite any more

    @property
    def num_networks(self) -> int:
        """N."""
        return len(self.step)

    @property
    def horizon(self) -> int:
        """T."""
        return int(self.history.actions.shape[1])

    @property
    def is_over(self) -> BoolArray:
        """Whether episodes have ended, because the horizon is reached or the network died, ``[N]``.

        One that died in its warm-up is over after its first step, which tells of it.
        """
        return _is_over(self.step, self.is_dead, self.horizon)

    @property
    def num_fossilized(self) -> IntArray:
        """Seeds that are kept, ``[N]``."""
        return np.asarray((self.lifecycle.stage == Stage.FOSSILIZED).sum(axis=1))

    @property
    def num_alive(self) -> IntArray:
        """Seeds that may still be pruned, ``[N]``."""
        return np.asarray(self.lifecycle.has_seed.sum(axis=1)) - self.num_fossilized

    def ends_with(self, measured: Measurement) -> BoolArray:
        """Whether the step in which this was measured is the last of its episode, ``[N]``."""
        return _is_over(self.step + 1, self.is_dead | ~measured.is_finite, self.horizon)


def first_state(instance: IntArray, horizon: int, measured: Measurement, costs: Costs) -> EpisodeState:
    """The state before the first step.

    Args:
        instance: Numbers of instances ``[N]``.
        horizon: Steps of an episode.
        measured: Figures of fresh hosts. Their training loss is unknown: the loss on inner_valid stands in for it.
        costs: Parameters and compute of networks.
    """
    n, num_slots = measured.contribution.shape
    lifecycle, quality = LifecycleState.dormant(n, num_slots), measured.quality
    now = Signals.of(measured, lifecycle, costs)
    accuracy = now.accuracy
    return EpisodeState(
        lifecycle=lifecycle,
        now=now,
        previous=now,
        history=History(
            accuracy=np.repeat(accuracy[:, None], horizon + 1, axis=1),
            score=np.repeat(quality[:, None], horizon + 1, axis=1),
            stage=np.zeros((n, horizon + 1, num_slots), dtype=np.int64),
            alpha=np.zeros((n, horizon + 1, num_slots)),
            actions=np.full((n, horizon), NO_ACTION, dtype=np.int64),
        ),
        instance=instance,
        step=np.zeros(n, dtype=np.int64),
        best_accuracy=accuracy,
        steps_since_best=np.zeros(n, dtype=np.int64),
        quality=quality,
        value=np.zeros(n),
        score=quality,
        first_score=quality,
        compute_spent=np.zeros(n),
        last_op=np.zeros(n, dtype=np.int64),
        is_legal=np.ones(n, dtype=bool),
        is_dead=~np.isfinite(measured.inner_loss),
    )


@dataclass(frozen=True, eq=False)
class Decision:
    """The decisions of one step. N networks."""

    actions: IntArray  # [N] flat, `NO_ACTION` for one that is in no table
    op: IntArray  # [N]
    is_legal: BoolArray  # [N] it was carried out


def advance(
    state: EpisodeState,
    lifecycle: LifecycleState,
    decision: Decision,
    measured: Measurement,
    costs: Costs,
    config: EnvConfig,
    prices: FloatArray,
) -> EpisodeState:
    """The state one step later.

    Args:
        state: Before the step.
        lifecycle: After it.
        decision: Actions taken in it.
        measured: Figures of it; where the episode ends with it, `quality` is that of the committed network.
        costs: Parameters and compute of networks.
        config: Settings of the problem.
        prices: Price of parameters ``[N]``.
    """
    is_over = state.ends_with(measured)
    growth = charged_growth(lifecycle, is_over, costs, config)
    value = worth(measured.quality, growth, prices)
    score = score_from(state, value, config)
    now, is_best = Signals.of(measured, lifecycle, costs), measured.inner_accuracy > state.best_accuracy
    return replace(
        state,
        lifecycle=lifecycle,
        now=now,
        previous=state.now,
        history=_extended(state, lifecycle, decision.actions, now.accuracy, score),
        step=state.step + 1,
        best_accuracy=np.maximum(now.accuracy, state.best_accuracy),
        steps_since_best=np.where(is_best, 0, state.steps_since_best + 1),
        quality=measured.quality,
        value=state.value + value,
        score=score,
        compute_spent=state.compute_spent + costs.compute_growth(lifecycle) / state.horizon,
        last_op=decision.op,
        is_legal=decision.is_legal,
        is_dead=state.is_dead | ~measured.is_finite,
    )


def charged_growth(lifecycle: LifecycleState, is_over: BoolArray, costs: Costs, config: EnvConfig) -> FloatArray:
    """Parameters the score charges for over those of the host, ``[N]``: of seeds that are kept, in the end.

    Until then a network in service (objective "mean") pays for all seeds it carries.
    """
    kept = costs.fossil_growth(lifecycle)
    return kept if config.objective == "final" else np.where(is_over, kept, costs.param_growth(lifecycle))


def worth(quality: FloatArray, growth: FloatArray, price: FloatArray) -> FloatArray:
    """Quality minus the price of the parameters bought, ``[N]``."""
    return np.asarray(quality - price * np.log2(1 + growth))


def score_from(state: EpisodeState, value: FloatArray, config: EnvConfig) -> FloatArray:
    """Score if a network serves all steps that are left, ``[N]``.

    Args:
        state: Before these steps.
        value: Worth of the network ``[N]``.
        config: Settings of the problem.
    """
    if config.objective == "final":
        return value
    return np.asarray((state.value + value * (config.horizon - state.step)) / config.horizon)


def _extended(
    state: EpisodeState, lifecycle: LifecycleState, actions: IntArray, accuracy: FloatArray, score: FloatArray
) -> History:
    """The history with one step more."""
    rows, past = np.arange(state.num_networks), state.history
    step = np.minimum(state.step + 1, state.horizon)
    entries = {"accuracy": accuracy, "score": score, "stage": lifecycle.stage, "alpha": lifecycle.alpha.value}
    columns = {name: getattr(past, name).copy() for name in entries}
    for name, entry in entries.items():
        columns[name][rows, step] = entry
    log = past.actions.copy()
    log[rows, np.minimum(state.step, state.horizon - 1)] = actions
    return History(**columns, actions=log)


def _is_over(step: IntArray, is_dead: BoolArray, horizon: int) -> BoolArray:
    return np.asarray((step >= horizon) | (is_dead & (step > 0)))


def _finite_norm(norm: FloatArray) -> FloatArray:
    return np.nan_to_num(norm, nan=0.0, posinf=LOSS_CEILING)


def _gradient_share(segment_norm: FloatArray, host_norm: FloatArray) -> FloatArray:
    """Of segments ``[N, S]`` in whole hosts ``[N, 1]``."""
    with np.errstate(invalid="ignore"):  # infinity over infinity
        return np.nan_to_num(segment_norm / (host_norm + 1e-12))


def _gradient_ratio(lifecycle: LifecycleState, measured: Measurement, costs: Costs) -> tuple[FloatArray, BoolArray]:
    """Gradient per parameter of every seed over that of its host, clamped, and where it was measured: ``[N, S]``."""
    bare = np.broadcast_to(costs.seed_parameters[..., [Operator.ADD]], costs.seed_parameters.shape)  # without gates
    parameters = np.maximum(costs.of_seeds(bare, lifecycle), 1.0)
    host = measured.host_gradient_norm[:, None] / np.sqrt(costs.host_parameters)
    seed = measured.seed_gradient_norm / np.sqrt(parameters)
    with np.errstate(invalid="ignore"):  # infinity over infinity
        ratio = np.nan_to_num(seed / (host + 1e-12), nan=0.0, posinf=RATIO_CEILING)
    return np.clip(ratio, 0.0, RATIO_CEILING), ~np.isnan(measured.vanishing)


def finite_loss(loss: FloatArray) -> FloatArray:
    """Losses with those that are not finite, or absurd, at a ceiling."""
    return np.minimum(np.nan_to_num(loss, nan=LOSS_CEILING, posinf=LOSS_CEILING), LOSS_CEILING)
