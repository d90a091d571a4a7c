"""State of N episodes as plain arrays. Observations, rewards and infos are computed from it alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kasmina_env.episode.governor import Record
from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray
from kasmina_env.lifecycle.state import LifecycleState, SeedMeasurements, Stage
from kasmina_env.networks.costs import Costs
from kasmina_env.settings.config import EnvConfig, Operator

LOSS_CEILING = 1e3  # stands for larger losses and for those that are not finite
RATIO_CEILING = 10.0  # of seed to host gradients
NO_ACTION = -1  # in the log of actions: no action yet, or one that is not in the table


@dataclass(frozen=True, eq=False)
class Measurement:
    """Raw measurements of one step; may hold NaN. N networks, S slots."""

    train_loss: FloatArray  # [N] mean over the step's minibatches
    host_gradient_norm: FloatArray  # [N]
    segment_gradient_norm: FloatArray  # [N, S] of the host's segment before each slot
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
        """Whether all losses are finite ``[N]``."""
        return np.isfinite(self.train_loss + self.inner_loss + self.outer_loss)


@dataclass(frozen=True, eq=False)
class Readings:
    """Measurements of one step made finite. N networks, S slots."""

    train_loss: FloatArray  # [N]
    inner_loss: FloatArray  # [N]
    accuracy: FloatArray  # [N] on inner_valid
    gradient_norm: FloatArray  # [N] of the host; 0 until measured
    gradient_share: FloatArray  # [N, S] norm of the segment before a slot over the host's; 0 until measured
    gradient_ratio: FloatArray  # [N, S] seed to host, per parameter; 0 until measured
    vanishing: FloatArray  # [N, S] share of the seed's tensors
    exploding: FloatArray  # [N, S]
    has_gradients: BoolArray  # [N, S] the three above were measured
    seeds: SeedMeasurements

    @classmethod
    def of(cls, measured: Measurement, lifecycle: LifecycleState, costs: Costs) -> Readings:
        """Readings of a step's raw measurements."""
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
    """Course of episodes; entry t is the value after t steps. N networks, S slots, T steps."""

    accuracy: FloatArray  # [N, T + 1] on inner_valid
    score: FloatArray  # [N, T + 1]
    stage: IntArray  # [N, T + 1, S]
    alpha: FloatArray  # [N, T + 1, S]
    actions: IntArray  # [N, T] flat; `NO_ACTION` for steps not taken yet

    def accuracy_before(self, step: IntArray, ago: int) -> FloatArray:
        """Accuracy `ago` steps before `step` ``[N]``, at the earliest that of the start."""
        last = self.accuracy.shape[1] - 1
        return np.asarray(self.accuracy[np.arange(len(step)), np.clip(step - ago, 0, last)])


@dataclass(frozen=True, eq=False)
class EpisodeState:
    """Everything known about N episodes between two steps. N networks, S slots, T steps."""

    lifecycle: LifecycleState
    now: Readings
    previous: Readings  # one step before; equal to `now` at the start
    history: History
    instance: IntArray  # [N] number of the episode's instance
    step: IntArray  # [N] steps taken
    best_accuracy: FloatArray  # [N]
    steps_since_best: IntArray  # [N]
    quality: FloatArray  # [N] on a slice of outer_valid; at the end that of the committed network, on all of it
    value: FloatArray  # [N] quality minus the price of parameters, summed over the steps so far
    score: FloatArray  # [N]
    first_score: FloatArray  # [N] of the untrained host
    compute_spent: FloatArray  # [N] sum over the steps so far of seeds' compute over the host's, divided by T
    last_op: IntArray  # [N]
    is_legal: BoolArray  # [N] the last action was legal
    is_dead: BoolArray  # [N] losses are no longer finite, or the governor gave up
    record: Record

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
        """Whether episodes have ended ``[N]``: the horizon is reached, or the network died.

        An episode whose network died in the warm-up ends with its first step, which reports the failure.
        """
        return _is_over(self.step, self.is_dead, self.horizon)

    @property
    def num_fossilized(self) -> IntArray:
        """Number of fossilized seeds ``[N]``."""
        return np.asarray((self.lifecycle.stage == Stage.FOSSILIZED).sum(axis=1))

    @property
    def num_alive(self) -> IntArray:
        """Number of seeds that are not fossilized ``[N]``."""
        return np.asarray(self.lifecycle.has_seed.sum(axis=1)) - self.num_fossilized

    def dies_with(self, measured: Measurement, record: Record, config: EnvConfig) -> BoolArray:
        """Whether networks are dead after the step with these measurements and this record ``[N]``."""
        return np.asarray(self.is_dead | ~measured.is_finite | record.is_given_up(config))

    def ends_with(self, measured: Measurement, record: Record, config: EnvConfig) -> BoolArray:
        """Whether that step is the last of its episode ``[N]``."""
        return _is_over(self.step + 1, self.dies_with(measured, record, config), self.horizon)


def first_state(instance: IntArray, horizon: int, measured: Measurement, costs: Costs) -> EpisodeState:
    """The state before the first step.

    Args:
        instance: Numbers of instances ``[N]``.
        horizon: Steps of an episode.
        measured: Measurements of fresh hosts. The loss on inner_valid stands in for the unknown training loss.
        costs: Parameters and compute of networks.
    """
    n, num_slots = measured.contribution.shape
    lifecycle, quality = LifecycleState.dormant(n, num_slots), measured.quality
    now = Readings.of(measured, lifecycle, costs)
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
        record=Record.begin(now.inner_loss),
    )


@dataclass(frozen=True, eq=False)
class Decision:
    """The decisions of one step. N networks."""

    actions: IntArray  # [N] flat, `NO_ACTION` for one that is in no table
    op: IntArray  # [N]
    is_legal: BoolArray  # [N] it was carried out


def next_state(
    state: EpisodeState,
    lifecycle: LifecycleState,
    decision: Decision,
    measured: Measurement,
    record: Record,
    costs: Costs,
    config: EnvConfig,
    prices: FloatArray,
) -> EpisodeState:
    """The state one step later.

    Args:
        state: State before the step.
        lifecycle: Lifecycle after the step.
        decision: Actions of the step.
        measured: Measurements of the step; where the episode ends, `quality` is that of the committed network.
        record: Record of the governor after the step.
        costs: Parameters and compute of networks.
        config: Settings of the problem.
        prices: Price of parameters ``[N]``.
    """
    is_over = state.ends_with(measured, record, config)
    growth = charged_growth(lifecycle, is_over, costs, config)
    value = worth(measured.quality, growth, prices)
    score = score_from(state, value, config)
    now, is_best = Readings.of(measured, lifecycle, costs), measured.inner_accuracy > state.best_accuracy
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
        is_dead=state.dies_with(measured, record, config),
        record=record,
    )


def charged_growth(lifecycle: LifecycleState, is_over: BoolArray, costs: Costs, config: EnvConfig) -> FloatArray:
    """Parameters that the score charges for, over those of the host ``[N]``.

    They are those of fossilized seeds. With the objective "mean" they are those of all seeds, except at the last step.
    """
    kept = costs.fossil_growth(lifecycle)
    return kept if config.objective == "final" else np.where(is_over, kept, costs.param_growth(lifecycle))


def worth(quality: FloatArray, growth: FloatArray, price: FloatArray) -> FloatArray:
    """Quality minus the price of the charged parameters ``[N]``."""
    return np.asarray(quality - price * np.log2(1 + growth))


def score_from(state: EpisodeState, value: FloatArray, config: EnvConfig) -> FloatArray:
    """Score ``[N]`` if a network of the given worth stays for all remaining steps.

    Args:
        state: State before the remaining steps.
        value: Worth of the network ``[N]``.
        config: Settings of the problem.
    """
    if config.objective == "final":
        return value
    return np.asarray((state.value + value * (config.horizon - state.step)) / config.horizon)


def _extended(
    state: EpisodeState, lifecycle: LifecycleState, actions: IntArray, accuracy: FloatArray, score: FloatArray
) -> History:
    """The history with one more step."""
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
    """Gradient norm of segments ``[N, S]`` over that of whole hosts ``[N, 1]``."""
    with np.errstate(invalid="ignore"):  # infinity over infinity
        return np.nan_to_num(segment_norm / (host_norm + 1e-12))


def _gradient_ratio(lifecycle: LifecycleState, measured: Measurement, costs: Costs) -> tuple[FloatArray, BoolArray]:
    """Gradient per parameter of each seed over its host's, clamped, and whether it was measured: ``[N, S]`` both."""
    bare = np.broadcast_to(costs.seed_parameters[..., [Operator.ADD]], costs.seed_parameters.shape)  # without gates
    parameters = np.maximum(costs.of_seeds(bare, lifecycle), 1.0)
    host = measured.host_gradient_norm[:, None] / np.sqrt(costs.host_parameters)
    seed = measured.seed_gradient_norm / np.sqrt(parameters)
    with np.errstate(invalid="ignore"):  # infinity over infinity
        ratio = np.nan_to_num(seed / (host + 1e-12), nan=0.0, posinf=RATIO_CEILING)
    return np.clip(ratio, 0.0, RATIO_CEILING), ~np.isnan(measured.vanishing)


def finite_loss(loss: FloatArray) -> FloatArray:
    """Losses capped at `LOSS_CEILING`; those that are not finite are set to it."""
    return np.minimum(np.nan_to_num(loss, nan=LOSS_CEILING, posinf=LOSS_CEILING), LOSS_CEILING)
