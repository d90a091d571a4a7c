"""Measurements of networks: losses, accuracy, contributions of seeds, gradients, and the worth of what is committed."""

from __future__ import annotations

import numpy as np
import torch

from kasmina_env.episode.data import Data
from kasmina_env.episode.state import Measurement
from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray
from kasmina_env.lifecycle.state import LifecycleState, Stage
from kasmina_env.population import GradientHealth, Population
from kasmina_env.population.device import to_numpy
from kasmina_env.tasks import Split


def measure_trained(
    population: Population, data: Data, lifecycle: LifecycleState, train_loss: torch.Tensor, health: GradientHealth
) -> Measurement:
    """Measurements of all networks after a step of training.

    A contribution is the accuracy that is lost when one seed is switched off. All of them are measured in one pass.

    Args:
        population: N networks.
        data: Samples of the problem.
        lifecycle: Lifecycle of the step.
        train_loss: Mean losses over the step's minibatches ``[N]``.
        health: Gradients of the step.
    """
    alpha = lifecycle.alpha.value
    can_switch_off = lifecycle.is_live & (alpha > 0)  # [N, S]
    slots = np.flatnonzero(can_switch_off.any(axis=0))
    off = np.zeros((1 + len(slots), *alpha.shape), dtype=bool)
    off[1 + np.arange(len(slots)), :, slots] = can_switch_off[:, slots].T
    (inner_loss, inner_accuracy), (outer_loss, quality) = population.evaluate_together(
        (data.watched, data.scored), alpha, (off, None)
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


def measure_as_is(
    population: Population,
    watched: Split,
    scored: Split,
    rows: IntArray,
    alpha: FloatArray,
    health: GradientHealth | None = None,
) -> Measurement:
    """Measurements of some networks that have not trained in this step. The loss on inner_valid stands in for theirs.

    Args:
        population: N networks.
        watched: Samples of inner_valid.
        scored: Samples of outer_valid.
        rows: R networks.
        alpha: Amplitudes of all ``[N, S]``.
        health: Gradients of the R hosts in their warm-up; norms are 0 without it.
    """
    inner = population.evaluate(watched, alpha, rows=rows)
    outer = population.evaluate(scored, alpha, rows=rows)
    if health is None:
        norms = [torch.zeros(len(rows), n, device=population.setting.device) for n in (1, alpha.shape[1])]
    else:
        norms = [health.host_norm.unsqueeze(1), health.segment_norm]
    inner_loss, accuracy, outer_loss, quality, host_norm, segment_norm = to_numpy(
        [*(t[0] for t in (*inner, *outer)), *norms]
    )
    none = np.zeros((len(rows), alpha.shape[1]))
    return Measurement(
        train_loss=inner_loss,
        host_gradient_norm=host_norm[:, 0],
        segment_gradient_norm=segment_norm,
        seed_gradient_norm=np.full_like(none, np.nan),
        vanishing=np.full_like(none, np.nan),
        exploding=np.full_like(none, np.nan),
        inner_loss=inner_loss,
        inner_accuracy=accuracy,
        contribution=none,
        has_contribution=none.astype(bool),
        outer_loss=outer_loss,
        quality=quality,
    )


def measure_committed(
    population: Population, data: Data, lifecycle: LifecycleState, rows: IntArray, quality: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Quality of committed networks on all of outer_valid, and on test, ``[N]`` each.

    Args:
        population: N networks.
        data: Samples of the problem.
        lifecycle: Lifecycle at the end of the step.
        rows: Rows to measure.
        quality: Quality on outer_valid ``[N]`` that the other rows keep; on test they get 0.
    """
    outer, test = quality.copy(), np.zeros_like(quality)
    if len(rows):
        off, alpha = uncommitted(lifecycle)[None], lifecycle.alpha.value
        figures = [population.evaluate(data.splits[name], alpha, off, rows)[1][0] for name in ("outer_valid", "test")]
        outer[rows], test[rows] = to_numpy(figures)
    return outer, test


def uncommitted(lifecycle: LifecycleState) -> BoolArray:
    """Seeds that are not kept, ``[N, S]``."""
    return np.asarray(lifecycle.has_seed & (lifecycle.stage != Stage.FOSSILIZED))
