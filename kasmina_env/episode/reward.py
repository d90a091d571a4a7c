"""Rewards as tables of named terms. The default pays the change of the score in each step.

    score(network) = quality on outer_valid - param_price * log2(1 + fossilized parameters / host parameters)

The last score of an episode is that of the committed network. So the undiscounted sum of ``score_change`` is the final
committed score minus the first score, whatever the policy did. The other terms are costs, each at most 0.

With the objective "mean" the score is a mean over all steps of the episode: quality minus the price of all seeds'
parameters. For the steps to come, the present network stands in.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from kasmina_env.episode.state import EpisodeState
from kasmina_env.lifecycle.arrays import BoolArray, FloatArray
from kasmina_env.lifecycle.state import Stage
from kasmina_env.networks.costs import Costs
from kasmina_env.settings.config import EnvConfig
from kasmina_env.settings.instances import Instances
from kasmina_env.settings.registry import Registry


@dataclass(frozen=True)
class Step:
    """One step, as a reward sees it. N networks."""

    before: EpisodeState
    after: EpisodeState
    is_over: BoolArray  # [N] the episode ended with this step
    costs: Costs
    config: EnvConfig
    instances: Instances

    def number(self, name: str) -> FloatArray:
        """A number of each network's instance, such as "rent_price", ``[N]``."""
        return np.asarray(self.instances.numbers[name][self.after.instance])


@dataclass(frozen=True)
class Term:
    """A named part of a reward.

    Attributes:
        value: Function of a step that returns the term ``[N]``.
        meaning: One sentence for people.
    """

    value: Callable[[Step], FloatArray]
    meaning: str


@dataclass(frozen=True)
class Reward:
    """A reward: the sum of its terms."""

    description: str
    terms: Mapping[str, Term]


def _rent(step: Step) -> FloatArray:
    price = step.number("rent_price") / step.config.horizon
    return np.asarray(0.0 - price * step.costs.compute_growth(step.after.lifecycle))


def _upkeep(step: Step) -> FloatArray:
    lifecycle = step.after.lifecycle
    is_kept_open = lifecycle.has_seed & (lifecycle.stage != Stage.FOSSILIZED)
    return np.asarray(0.0 - step.number("upkeep_price") / step.config.horizon * is_kept_open.sum(axis=1))


def _operations(step: Step) -> FloatArray:
    is_germinated = step.after.lifecycle.has_seed & (step.after.lifecycle.age == 1)  # in this step
    return np.asarray(0.0 - step.number("operation_price") * is_germinated.sum(axis=1))


COSTS: Mapping[str, Term] = {
    "rent": Term(_rent, "Minus rent_price times the compute of all seeds over that of the host, per horizon."),
    "upkeep": Term(_upkeep, "Minus upkeep_price for each seed that is not fossilized, per horizon."),
    "operations": Term(_operations, "Minus operation_price for a seed germinated."),
}
REWARDS: Registry[Reward] = Registry("reward")


def _rollbacks(step: Step) -> FloatArray:
    fresh = step.after.record.num_rollbacks - step.before.record.num_rollbacks
    return np.asarray(0.0 - step.config.rollback_price * fresh)


ROLLBACKS = Term(_rollbacks, "Minus rollback_price for each time that the governor took the network back.")


def governed(reward: Reward) -> Reward:
    """The same reward where the governor is on: rollbacks are one more cost."""
    return Reward(reward.description, {**reward.terms, "rollbacks": ROLLBACKS})


MakeT = TypeVar("MakeT", bound=Callable[[], Mapping[str, Term]])


def register_reward(name: str) -> Callable[[MakeT], MakeT]:
    """Register a function that returns the terms of a reward by name; its docstring's first line describes it.

    Args:
        name: New name; a duplicate raises ``ValueError``.
    """

    def decorate(make: MakeT) -> MakeT:
        REWARDS.register(name, Reward(inspect.getdoc(make) or name, make()))
        return make

    return decorate


@register_reward("score")
def score() -> Mapping[str, Term]:
    """Change of the network's score; the sum over an episode is what you keep minus its costs."""
    change = Term(
        lambda step: step.after.score - step.before.score,
        "Change of the score; at the end that of the committed network.",
    )
    return {"score_change": change, **COSTS}


@register_reward("sparse")
def sparse() -> Mapping[str, Term]:
    """The same sum, but the whole change of score is paid at the end."""
    change = Term(
        lambda step: np.where(step.is_over, step.after.score - step.after.first_score, 0.0),
        "Committed score minus first score, at the end of the episode.",
    )
    return {"score_change": change, **COSTS}


@register_reward("loss")
def loss() -> Mapping[str, Term]:
    """Progress of the loss the controller sees; an ablation, it does not ask for commitment."""
    change = Term(
        lambda step: step.before.now.inner_loss - step.after.now.inner_loss,
        "Decrease of the loss on inner_valid, in nats.",
    )
    return {"loss_change": change, **COSTS}


def _mean_contribution(step: Step) -> FloatArray:
    seeds = step.after.now.seeds
    return np.asarray((seeds.contribution * seeds.has_contribution).sum(axis=1) / step.config.horizon)


@register_reward("contribution")
def contribution() -> Mapping[str, Term]:
    """Contributions of present seeds; an ablation that pays for dependence, not merit."""
    return {"contribution": Term(_mean_contribution, "Sum of all measured contributions over the horizon."), **COSTS}
