"""Rewards as tables of named terms; the default is the score, differenced.

    score(network) = quality on outer_valid - param_price * log2(1 + fossilized parameters / host parameters)

The last score of an episode is that of the committed network, so the undiscounted sum of ``score_change`` is final
committed score minus first score, whatever the policy did. What remains are real costs, all of them at most 0.

With the objective "mean" every step counts: the score is the mean over the episode of quality minus the price of all
seeds' parameters, in which the present network stands for the steps to come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from kasmina_env.episode.state import View
from kasmina_env.lifecycle.arrays import BoolArray, FloatArray
from kasmina_env.lifecycle.transitions import Stage
from kasmina_env.networks.costs import Costs
from kasmina_env.settings.config import EnvConfig
from kasmina_env.settings.instances import Instances
from kasmina_env.settings.registry import Registry


@dataclass(frozen=True)
class Step:
    """What a reward may look at: the views around one step."""

    before: View
    after: View
    is_over: BoolArray  # [N] the episode ended with this step
    costs: Costs
    config: EnvConfig
    instances: Instances

    def number(self, name: str) -> FloatArray:
        """A number that each network's instance settles, ``[N]``."""
        return np.asarray(self.instances.numbers[name][self.after.instance])


@dataclass(frozen=True)
class Term:
    """A named part of a reward.

    Attributes:
        value: Step to ``[N]``.
        meaning: One sentence for people.
    """

    value: Callable[[Step], FloatArray]
    meaning: str


@dataclass(frozen=True)
class Reward:
    """A reward by name: its terms sum to it."""

    description: str
    terms: Mapping[str, Term]


def fossil_growth(view: View, costs: Costs) -> FloatArray:
    """Parameters of fossilized seeds over those of the host, ``[N]``."""
    parameters = costs.of_seeds(costs.seed_parameters, view.lifecycle)
    is_fossil = view.lifecycle.stage == Stage.FOSSILIZED
    return np.asarray((parameters * is_fossil).sum(axis=1) / costs.host_parameters)


def param_growth(view: View, costs: Costs) -> FloatArray:
    """Parameters of all seeds over those of the host, ``[N]``."""
    parameters = costs.of_seeds(costs.seed_parameters, view.lifecycle)
    return np.asarray(parameters.sum(axis=1) / costs.host_parameters)


def compute_growth(view: View, costs: Costs) -> FloatArray:
    """Compute of all seeds (TRAINING and FOSSILIZED included: they run) over that of the host, ``[N]``."""
    compute = costs.of_seeds(costs.seed_compute, view.lifecycle)
    return np.asarray(compute.sum(axis=1) / costs.host_compute)


def paid_growth(view: View, costs: Costs, config: EnvConfig) -> FloatArray:
    """Parameters the score charges for over those of the host, ``[N]``: of seeds that are kept, in the end.

    Until then a network in service (objective "mean") pays for all seeds it carries.
    """
    kept = fossil_growth(view, costs)
    return kept if config.objective == "final" else np.where(view.is_over, kept, param_growth(view, costs))


def value(quality: FloatArray, growth: FloatArray, price: FloatArray) -> FloatArray:
    """Quality minus the price of the parameters bought, ``[N]``."""
    return np.asarray(quality - price * np.log2(1 + growth))


def score(view: View, value: FloatArray, config: EnvConfig) -> FloatArray:
    """What the network of a step is worth, ``[N]``.

    Args:
        view: After the step, and before its value is added to it.
        value: Of the step ``[N]``.
        config: Settings.
    """
    if config.objective == "final":
        return value
    return np.asarray((view.value + value * (config.horizon - view.step + 1)) / config.horizon)


def _rent(step: Step) -> FloatArray:
    price = step.number("rent_price") / step.config.horizon
    return np.asarray(0.0 - price * compute_growth(step.after, step.costs))


def _operations(step: Step) -> FloatArray:
    is_germinated = step.after.lifecycle.has_seed & (step.after.lifecycle.age == 1)  # in this step
    return np.asarray(0.0 - step.number("operation_price") * is_germinated.sum(axis=1))


_COSTS = {
    "rent": Term(
        _rent,
        "Minus rent_price times the compute of all seeds over that of the host, per horizon.",
    ),
    "operations": Term(_operations, "Minus operation_price for a seed germinated."),
}

REWARDS: Registry[Reward] = Registry("reward")
REWARDS.register(
    "score",
    Reward(
        "The score of the network, differenced: the sum is what you keep minus what it cost",
        {
            "score_change": Term(
                lambda step: step.after.score - step.before.score,
                "Change of the score; at the end that of the committed network.",
            ),
            **_COSTS,
        },
    ),
)
REWARDS.register(
    "sparse",
    Reward(
        "The same sum, but the whole change of score is paid at the end",
        {
            "score_change": Term(
                lambda step: np.where(step.is_over, step.after.score - step.after.first_score, 0.0),
                "Committed score minus first score, at the end of the episode.",
            ),
            **_COSTS,
        },
    ),
)
REWARDS.register(
    "loss",
    Reward(
        "Progress of the loss the controller sees; an ablation, it does not ask for commitment",
        {
            "loss_change": Term(
                lambda step: step.before.inner_loss - step.after.inner_loss,
                "Decrease of the loss on inner_valid, in nats.",
            ),
            **_COSTS,
        },
    ),
)
REWARDS.register(
    "contribution",
    Reward(
        "What present seeds contribute; an ablation that pays for dependence, not merit",
        {
            "contribution": Term(
                lambda step: (
                    (step.after.facts.contribution * step.after.facts.has_contribution).sum(axis=1)
                    / step.config.horizon
                ),
                "Sum of all measured contributions over the horizon.",
            ),
            **_COSTS,
        },
    ),
)
