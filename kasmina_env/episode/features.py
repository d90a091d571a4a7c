"""Table of the features that a controller observes; `observation.py` computes names, bounds and values from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kasmina_env.episode.state import EpisodeState
from kasmina_env.lifecycle.arrays import FloatArray, IntArray
from kasmina_env.lifecycle.state import Op, Stage
from kasmina_env.networks.costs import Costs
from kasmina_env.settings.config import EnvConfig, Operator
from kasmina_env.settings.instances import Instances


@dataclass(frozen=True)
class Scene:
    """Inputs of a feature."""

    state: EpisodeState
    costs: Costs
    config: EnvConfig
    instances: Instances


@dataclass(frozen=True)
class Feature:
    """One row of the table: one or more entries of the observation, by slot and by label where it has them.

    Attributes:
        name: Name of the feature; entries are named `name`, `slot.name` or `slot.name=label`.
        low, high: Bounds; values are clipped to them.
        value: Function of a scene that returns ``[N]``, or ``[N, S]`` per slot; labels add a last axis ``[..., L]``.
        meaning: One sentence for people.
        is_per_slot: Whether every slot has its own entries.
        labels: Names of the last axis, from settings and instances; an empty tuple leaves the feature out.
        joint: Text between name and label.
    """

    name: str
    low: float
    high: float
    value: Callable[[Scene], NDArray[np.generic]]
    meaning: str
    is_per_slot: bool = False
    labels: Callable[[EnvConfig, Instances], tuple[str, ...] | None] = lambda config, instances: None
    joint: str = "="


def _squash(x: FloatArray) -> FloatArray:
    """Map of [0, inf) to [0, 1)."""
    return x / (1 + x)


def _log2_size(ratio: FloatArray) -> FloatArray:
    """Logarithm of growth: ratio 0 gives 0, ratio 63 gives 1."""
    return np.log2(1 + ratio) / 6


def _one_hot(code: IntArray, size: int) -> NDArray[np.generic]:
    return np.asarray(code[..., None] == np.arange(size))


def _operations(config: EnvConfig) -> list[Op]:
    return [op for op in Op if op is not Op.SET_ALPHA_TARGET or config.targets]


def _operator_codes(config: EnvConfig) -> IntArray:
    return np.array([Operator[name] for name in config.operators])


def _log_norm(norm: FloatArray) -> FloatArray:
    """Logarithm of a norm: 1e-4 gives -1, 1 gives 0, 1e4 gives 1."""
    return np.log10(np.maximum(norm, 1e-4)) / 4


def _accuracy_change(steps: int) -> Callable[[Scene], NDArray[np.generic]]:
    return lambda scene: scene.state.now.accuracy - scene.state.history.accuracy_before(scene.state.step, steps)


def _ramp_scale(config: EnvConfig) -> float:
    return float(max(*config.tempos, *config.prune_tempos))


def _contribution_trend(scene: Scene) -> FloatArray:
    now, previous = scene.state.now.seeds, scene.state.previous.seeds
    change = now.contribution - previous.contribution
    return np.where(now.has_contribution & previous.has_contribution, change, 0.0)


def _share(scene: Scene, table: FloatArray, host: float) -> FloatArray:
    """Share of each seed in the whole network, ``[N, S]``."""
    seeds = scene.costs.of_seeds(table, scene.state.lifecycle)
    return np.asarray(seeds / (host + seeds.sum(axis=1, keepdims=True)))


_NETWORK = (
    Feature("progress", 0, 1, lambda s: s.state.step / s.config.horizon, "Share of the episode that is over."),
    Feature("train_loss", 0, 1, lambda s: _squash(s.state.now.train_loss), "Training loss, l / (1 + l)."),
    Feature("inner_loss", 0, 1, lambda s: _squash(s.state.now.inner_loss), "Loss on inner_valid, l / (1 + l)."),
    Feature("accuracy", 0, 1, lambda s: s.state.now.accuracy, "Accuracy on inner_valid."),
    Feature("accuracy_change_1", -1, 1, _accuracy_change(1), "Its change over 1 step."),
    Feature("accuracy_change_3", -1, 1, _accuracy_change(3), "Its change over 3 steps."),
    Feature("accuracy_change_8", -1, 1, _accuracy_change(8), "Its change over 8 steps."),
    Feature("best_accuracy", 0, 1, lambda s: s.state.best_accuracy, "The best of this episode."),
    Feature(
        "steps_since_best",
        0,
        1,
        lambda s: s.state.steps_since_best / s.config.horizon,
        "Steps since then over the horizon.",
    ),
    Feature(
        "generalization_gap",
        -1,
        1,
        lambda s: np.tanh(s.state.now.inner_loss - s.state.now.train_loss),
        "tanh of the loss on inner_valid minus the training loss.",
    ),
    Feature(
        "gradient_norm",
        -1,
        1,
        lambda s: _log_norm(s.state.now.gradient_norm),
        "log10 of the host's gradient norm over 4, at first that of the warm-up; -1 if not measured.",
    ),
    Feature(
        "gradient_trend",
        -1,
        1,
        lambda s: np.where(
            s.state.step > 1,
            _log_norm(s.state.now.gradient_norm) - _log_norm(s.state.previous.gradient_norm),
            0.0,
        ),
        "Change of gradient_norm since the last step.",
    ),
    Feature(
        "param_growth",
        0,
        1,
        lambda s: _log2_size(s.costs.param_growth(s.state.lifecycle)),
        "log2(1 + parameters of seeds / of the host) over 6.",
    ),
    Feature(
        "fossil_growth",
        0,
        1,
        lambda s: _log2_size(s.costs.fossil_growth(s.state.lifecycle)),
        "The same for fossilized seeds: what the score charges for.",
    ),
    Feature(
        "compute_growth",
        0,
        1,
        lambda s: _log2_size(s.costs.compute_growth(s.state.lifecycle)),
        "log2(1 + compute of seeds / of the host) over 6: what the rent charges for.",
    ),
    Feature(
        "rent_paid",
        0,
        1,
        lambda s: _squash(10 * s.instances.numbers["rent_price"][s.state.instance] * s.state.compute_spent),
        "Rent paid in this episode, 10 r / (1 + 10 r).",
    ),
    Feature(
        "seeds_alive",
        0,
        1,
        lambda s: s.state.num_alive / s.state.lifecycle.stage.shape[1],
        "Share of slots with a seed that is not fossilized.",
    ),
    Feature(
        "rollbacks",
        0,
        1,
        lambda s: s.state.record.num_rollbacks / (1 + s.config.max_rollbacks),
        "Rollbacks so far over the number that ends the episode.",
        labels=lambda config, instances: None if config.governor else (),
    ),
    Feature("last_action_legal", 0, 1, lambda s: s.state.is_legal, "Whether the last action was legal."),
    Feature(
        "last_op",
        0,
        1,
        lambda s: s.state.last_op[..., None] == _operations(s.config),
        "The last operation asked for.",
        labels=lambda config, instances: tuple(op.name for op in _operations(config)),
    ),
    Feature(
        "instance",
        0,
        1,
        lambda s: s.instances.scaled_facts()[s.state.instance],
        "A fact of the instance, from the family's lowest (0) to its highest (1), logarithmic if above 0.",
        labels=lambda config, instances: tuple(instances.visible),
        joint=".",
    ),
)

_SLOT = (
    Feature(
        "stage",
        0,
        1,
        lambda s: _one_hot(s.state.lifecycle.stage, len(Stage)),
        "Stage of the slot.",
        is_per_slot=True,
        labels=lambda config, instances: tuple(stage.name for stage in Stage),
    ),
    Feature(
        "blueprint",
        0,
        1,
        lambda s: _one_hot(s.state.lifecycle.blueprint, len(s.config.blueprints)),
        "Blueprint of its seed.",
        is_per_slot=True,
        labels=lambda config, instances: config.blueprints,
    ),
    Feature(
        "operator",
        0,
        1,
        lambda s: s.state.lifecycle.operator[..., None] == _operator_codes(s.config),
        "Blend operator of its seed.",
        is_per_slot=True,
        labels=lambda config, instances: config.operators if len(config.operators) > 1 else (),
    ),
    Feature("alpha", 0, 1, lambda s: s.state.lifecycle.alpha.value, "Alpha of its seed.", is_per_slot=True),
    Feature(
        "target",
        0,
        1,
        lambda s: s.state.lifecycle.alpha.target,
        "Where its alpha is going.",
        is_per_slot=True,
    ),
    Feature(
        "ramp_remaining",
        0,
        1,
        lambda s: s.state.lifecycle.alpha.remaining / _ramp_scale(s.config),
        "Steps until it gets there over the longest tempo; left out where every ramp takes one step.",
        is_per_slot=True,
        labels=lambda config, instances: None if _ramp_scale(config) > 1 else (),
    ),
    Feature(
        "tempo",
        0,
        1,
        lambda s: s.state.lifecycle.tempo / _ramp_scale(s.config),
        "Tempo chosen at germination over the longest tempo; left out where there is one.",
        is_per_slot=True,
        labels=lambda config, instances: None if len(config.tempos) > 1 else (),
    ),
    Feature(
        "is_pruning",
        0,
        1,
        lambda s: s.state.lifecycle.is_pruning,
        "Whether its seed is on its way out; left out where pruning takes no time.",
        is_per_slot=True,
        labels=lambda config, instances: None if any(config.prune_tempos) else (),
    ),
    Feature(
        "steps_in_stage",
        0,
        1,
        lambda s: _squash(s.state.lifecycle.steps_in_stage / 5),
        "Steps in this stage, (n / 5) / (1 + n / 5).",
        is_per_slot=True,
    ),
    Feature(
        "age",
        0,
        1,
        lambda s: s.state.lifecycle.age / s.config.horizon,
        "Steps since germination over the horizon.",
        is_per_slot=True,
    ),
    Feature(
        "contribution",
        -1,
        1,
        lambda s: s.state.now.seeds.contribution,
        "Accuracy on inner_valid lost when only this seed is switched off; 0 if not measured.",
        is_per_slot=True,
    ),
    Feature(
        "has_contribution",
        0,
        1,
        lambda s: s.state.now.seeds.has_contribution,
        "Whether the contribution was measured.",
        is_per_slot=True,
    ),
    Feature(
        "contribution_trend",
        -1,
        1,
        _contribution_trend,
        "Its change since the last step.",
        is_per_slot=True,
    ),
    Feature(
        "gradient_share",
        0,
        1,
        lambda s: s.state.now.gradient_share,
        "Gradient norm of the host's segment before the slot over that of the whole host; 0 if not measured.",
        is_per_slot=True,
    ),
    Feature(
        "gradient_ratio",
        0,
        1,
        lambda s: _squash(s.state.now.gradient_ratio),
        "Gradient per parameter of the seed over the host's, r / (1 + r); 0 if not measured.",
        is_per_slot=True,
    ),
    Feature(
        "vanishing",
        0,
        1,
        lambda s: s.state.now.vanishing,
        "Share of the seed's tensors whose gradient vanishes.",
        is_per_slot=True,
    ),
    Feature(
        "exploding",
        0,
        1,
        lambda s: s.state.now.exploding,
        "Share of the seed's tensors whose gradient explodes or is not finite.",
        is_per_slot=True,
    ),
    Feature(
        "has_gradients",
        0,
        1,
        lambda s: s.state.now.has_gradients,
        "Whether the seed's gradients were measured.",
        is_per_slot=True,
    ),
    Feature(
        "param_share",
        0,
        1,
        lambda s: _share(s, s.costs.seed_parameters, s.costs.host_parameters),
        "Share of the seed in the network's parameters.",
        is_per_slot=True,
    ),
    Feature(
        "compute_share",
        0,
        1,
        lambda s: _share(s, s.costs.seed_compute, s.costs.host_compute),
        "Share of the seed in the network's compute.",
        is_per_slot=True,
    ),
)
FEATURES: tuple[Feature, ...] = (*_NETWORK, *_SLOT)
# Features of each of `SIGNALS`. "progress" is in none: a controller always knows the time.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "accuracy": (
        *("train_loss", "inner_loss", "accuracy", "accuracy_change_1", "accuracy_change_3", "accuracy_change_8"),
        *("best_accuracy", "steps_since_best", "generalization_gap"),
    ),
    "gradients": (
        *("gradient_norm", "gradient_trend", "gradient_share", "gradient_ratio", "vanishing", "exploding"),
        "has_gradients",
    ),
    "contribution": ("contribution", "has_contribution", "contribution_trend"),
    "stage": (
        *("seeds_alive", "last_action_legal", "last_op", "stage", "blueprint", "operator", "alpha", "target"),
        *("ramp_remaining", "tempo", "is_pruning", "steps_in_stage", "age", "rollbacks"),
    ),
    "costs": ("param_growth", "fossil_growth", "compute_growth", "rent_paid", "param_share", "compute_share"),
    "instance": ("instance",),
}
