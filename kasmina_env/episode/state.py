"""What is known about N networks in plain numbers: observations, rewards and infos read this and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray
from kasmina_env.lifecycle.transitions import LifecycleState, SeedMeasurements, Stage
from kasmina_env.networks.costs import Costs
from kasmina_env.settings.config import Operator

LOSS_CEILING = 1e3  # what a loss that is not finite counts as
RATIO_CEILING = 10.0  # of seed to host gradients


# ── what was measured ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Measurement:
    """One step's figures, as they came from the device; may hold NaN. N networks, S slots."""

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


@dataclass(frozen=True, eq=False)
class Trace:
    """What happened so far in an episode, entry t after t steps. N networks, S slots, T steps."""

    accuracy: FloatArray  # [N, T + 1] on inner_valid
    score: FloatArray  # [N, T + 1]
    stage: IntArray  # [N, T + 1, S]
    alpha: FloatArray  # [N, T + 1, S]

    def accuracy_before(self, step: IntArray, ago: int) -> FloatArray:
        """Accuracy so many steps ago, at the earliest that of the start, ``[N]``."""
        last = self.accuracy.shape[1] - 1
        return np.asarray(self.accuracy[np.arange(len(step)), np.clip(step - ago, 0, last)])


@dataclass(frozen=True, eq=False)
class View:
    """Everything known about N networks in the middle of their episodes. N networks, S slots, T steps."""

    lifecycle: LifecycleState
    facts: SeedMeasurements
    instance: IntArray  # [N] number of the instance the episode is about
    step: IntArray  # [N] steps taken
    train_loss: FloatArray  # [N] finite
    inner_loss: FloatArray  # [N] finite
    accuracy: FloatArray  # [N] on inner_valid
    best_accuracy: FloatArray  # [N]
    steps_since_best: IntArray  # [N]
    quality: FloatArray  # [N] on outer_valid
    value: FloatArray  # [N] quality minus the price of parameters, summed over the steps so far
    score: FloatArray  # [N]
    first_score: FloatArray  # [N] of the untrained host
    gradient_norm: FloatArray  # [N] of the host; 0 until measured
    last_gradient_norm: FloatArray  # [N] one step before
    gradient_share: FloatArray  # [N, S] of the host's gradient norm, of the segment before a slot; 0 until measured
    gradient_ratio: FloatArray  # [N, S] seed to host, per parameter; 0 until measured
    vanishing: FloatArray  # [N, S]
    exploding: FloatArray  # [N, S]
    has_gradients: BoolArray  # [N, S] the three above were measured
    last_contribution: FloatArray  # [N, S] one step before
    has_trend: BoolArray  # [N, S] contribution was measured in both steps
    compute_spent: FloatArray  # [N] compute of seeds over that of the host, mean over the whole horizon so far
    last_op: IntArray  # [N]
    is_legal: BoolArray  # [N] the last action was
    is_dead: BoolArray  # [N] the network is not finite any more
    actions: IntArray  # [N, T] taken so far, -1 beyond
    trace: Trace

    @property
    def num_networks(self) -> int:
        return len(self.step)

    @property
    def is_over(self) -> BoolArray:
        """Episodes that have ended: the horizon is reached, or the network died, ``[N]``.

        One that died in its warm-up is over after its first step, which tells of it.
        """
        return np.asarray((self.step >= self.actions.shape[1]) | (self.is_dead & (self.step > 0)))

    @property
    def num_fossilized(self) -> IntArray:
        return np.asarray((self.lifecycle.stage == Stage.FOSSILIZED).sum(axis=1))

    @property
    def num_alive(self) -> IntArray:
        """Seeds that may still be pruned, ``[N]``."""
        return np.asarray(self.lifecycle.has_seed.sum(axis=1)) - self.num_fossilized


def first_view(
    instance: IntArray,
    horizon: int,
    inner_loss: FloatArray,
    inner_accuracy: FloatArray,
    quality: FloatArray,
    host_gradient_norm: FloatArray,
    segment_gradient_norm: FloatArray,
) -> View:
    """The view before the first step. The training loss is unknown; the loss on inner_valid stands in for it.

    Args:
        instance: ``[N]``.
        horizon: Steps of an episode.
        inner_loss, inner_accuracy, quality: ``[N]``, see `Measurement`.
        host_gradient_norm: Of the warm-up ``[N, 1]``; 0 if there was none.
        segment_gradient_norm: The same of the segments before slots ``[N, S]``.
    """
    n, num_slots = segment_gradient_norm.shape
    per_slot = (n, num_slots)
    loss = finite_loss(inner_loss)
    return View(
        lifecycle=LifecycleState.dormant(n, num_slots),
        facts=SeedMeasurements.unmeasured(n, num_slots),
        instance=instance,
        step=np.zeros(n, dtype=np.int64),
        train_loss=loss,
        inner_loss=loss,
        accuracy=inner_accuracy,
        best_accuracy=inner_accuracy,
        steps_since_best=np.zeros(n, dtype=np.int64),
        quality=quality,
        value=np.zeros(n),
        score=quality,
        first_score=quality,
        gradient_norm=_finite_norm(host_gradient_norm[:, 0]),
        last_gradient_norm=np.zeros(n),
        gradient_share=_gradient_share(segment_gradient_norm, host_gradient_norm),
        gradient_ratio=np.zeros(per_slot),
        vanishing=np.zeros(per_slot),
        exploding=np.zeros(per_slot),
        has_gradients=np.zeros(per_slot, dtype=bool),
        last_contribution=np.zeros(per_slot),
        has_trend=np.zeros(per_slot, dtype=bool),
        compute_spent=np.zeros(n),
        last_op=np.zeros(n, dtype=np.int64),
        is_legal=np.ones(n, dtype=bool),
        is_dead=~np.isfinite(inner_loss),
        actions=np.full((n, horizon), -1, dtype=np.int64),
        trace=Trace(
            accuracy=np.repeat(inner_accuracy[:, None], horizon + 1, axis=1),
            score=np.repeat(quality[:, None], horizon + 1, axis=1),
            stage=np.zeros((n, horizon + 1, num_slots), dtype=np.int64),
            alpha=np.zeros((n, horizon + 1, num_slots)),
        ),
    )


def next_view(
    view: View,
    lifecycle: LifecycleState,
    measured: Measurement,
    costs: Costs,
    actions: IntArray,
    op: IntArray,
    is_legal: BoolArray,
) -> View:
    """The view one step later, without its score, which `with_score` adds.

    Args:
        view: Before the step.
        lifecycle: After it.
        measured: In it.
        costs: Of the networks.
        actions: Flat actions ``[N]``; -1 for one that is in no table.
        op: Operations ``[N]``.
        is_legal: Which were carried out ``[N]``.
    """
    rows, steps = np.arange(view.num_networks), view.actions.shape[1]
    log = view.actions.copy()
    log[rows, np.minimum(view.step, steps - 1)] = actions
    accuracy = measured.inner_accuracy
    is_best = accuracy > view.best_accuracy
    ratio, has_gradients = _gradient_ratio(lifecycle, measured, costs)
    facts = SeedMeasurements(
        has_finite_gradients=has_gradients & np.isfinite(measured.seed_gradient_norm),
        contribution=measured.contribution,
        has_contribution=measured.has_contribution,
    )
    is_dead = ~np.isfinite(measured.train_loss + measured.inner_loss + measured.outer_loss)
    return replace(
        view,
        lifecycle=lifecycle,
        facts=facts,
        step=view.step + 1,
        train_loss=finite_loss(measured.train_loss),
        inner_loss=finite_loss(measured.inner_loss),
        accuracy=accuracy,
        best_accuracy=np.maximum(accuracy, view.best_accuracy),
        steps_since_best=np.where(is_best, 0, view.steps_since_best + 1),
        quality=measured.quality,
        gradient_norm=_finite_norm(measured.host_gradient_norm),
        last_gradient_norm=view.gradient_norm,
        gradient_share=_gradient_share(measured.segment_gradient_norm, measured.host_gradient_norm[:, None]),
        gradient_ratio=ratio,
        vanishing=np.nan_to_num(measured.vanishing),
        exploding=np.nan_to_num(measured.exploding),
        has_gradients=has_gradients,
        last_contribution=view.facts.contribution,
        has_trend=measured.has_contribution & view.facts.has_contribution,
        last_op=op,
        is_legal=is_legal,
        is_dead=view.is_dead | is_dead,
        actions=log,
    )


def with_score(view: View, quality: FloatArray, value: FloatArray, score: FloatArray, compute: FloatArray) -> View:
    """The view with what the step was worth and what it took, and the step in its trace.

    Args:
        view: From `next_view`.
        quality: On outer_valid; of the committed network where the episode is over ``[N]``.
        value: Quality minus the price of parameters, in this step ``[N]``.
        score: ``[N]``.
        compute: Of all seeds over that of the host, in this step ``[N]``.
    """
    rows, step = np.arange(view.num_networks), np.minimum(view.step, view.actions.shape[1])
    now = {
        "accuracy": view.accuracy,
        "score": score,
        "stage": view.lifecycle.stage,
        "alpha": view.lifecycle.alpha.value,
    }
    trace = {name: getattr(view.trace, name).copy() for name in now}
    for name, entry in now.items():
        trace[name][rows, step] = entry
    spent = view.compute_spent + compute / view.actions.shape[1]
    total = view.value + value
    return replace(view, quality=quality, value=total, score=score, compute_spent=spent, trace=Trace(**trace))


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
