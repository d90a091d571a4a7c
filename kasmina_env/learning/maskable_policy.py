"""A policy for MaskablePPO and the long flat menus of actions, in three ways unlike the one that comes with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from gymnasium import Space
from sb3_contrib.common.maskable.distributions import MaskableCategorical
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor
from torch.distributions import kl_divergence
from torch.nn import Linear

from kasmina_env.episode.actions import HEADS, Action, ActionTable

LEAST_SPREAD = 0.01  # what varies by less keeps its scale, as what never changes
FURTHEST = 5.0  # from the mean, in standard deviations


class Standardized(BaseFeaturesExtractor):
    """Signals ``[B, F]`` less their mean, over their standard deviation, as they were measured before learning began.

    Some signals hardly vary, such as the logarithm of a gradient norm, and yet tell more than others. As they are, a
    network needs long to make anything of them. (Inputs of equal spread: LeCun, Bottou, Orr, Müller, Efficient
    BackProp, 1998.)
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, observation_space: Space[Any]) -> None:
        size = get_flattened_obs_dim(observation_space)
        super().__init__(observation_space, size)
        self.register_buffer("mean", torch.zeros(size, device="cpu"))
        self.register_buffer("spread", torch.ones(size, device="cpu"))

    def measure(self, seen: Tensor) -> None:
        """Take mean and spread from observations ``[B, F]``."""
        self.mean.copy_(seen.mean(dim=0))
        spread = seen.std(dim=0)
        self.spread.copy_(spread.where(spread >= LEAST_SPREAD, torch.ones_like(spread)))

    def forward(self, observations: Tensor) -> Tensor:
        return ((observations - self.mean) / self.spread).clamp(-FURTHEST, FURTHEST)


class SharedParts(Linear):
    """A linear layer ``[B, F]`` to ``[B, A]`` that adds, to what each action has of its own, what its parts have.

    All actions with a part learn from each of them: that a blueprint is worth growing need not be found out anew for
    every slot, operator and tempo. (Logits as sums over parts: Sharma, Suresh, Ramesh, Ravindran, Learning to Factor
    Policies and Action-Value Functions, 2017; here each action also keeps weights of its own.)

    Args:
        own: The layer without them.
        parts: Which parts actions have, ``[A, P]`` of 0 and 1.
    """

    parts: Tensor

    def __init__(self, own: Linear, parts: Tensor) -> None:
        super().__init__(own.in_features, own.out_features)
        self.load_state_dict(own.state_dict())
        self.register_buffer("parts", parts, persistent=False)
        self.shared = Linear(own.in_features, parts.shape[1])
        for parameter in self.shared.parameters():
            torch.nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = super().forward(x) + self.shared(x) @ self.parts.T
        return logits


class Actor(MaskableActorCriticPolicy):
    """Actor and critic of MaskablePPO, with a bonus for nearness to a given policy, with shared parts, or both.

    Where a policy is paid for entropy it is drawn to all legal actions alike, and so from WAIT, which is one, to
    GERMINATE, which is dozens. Given preferences, `evaluate_actions` returns, in place of the entropy, minus the
    Kullback-Leibler divergence from what is preferred among the legal actions; were all preferred alike, that would be
    the entropy less a constant. `ent_coef` is its weight. (Nearness to a given policy as regulariser: Rawlik,
    Toussaint, Vijayakumar, On Stochastic Optimal Control and Reinforcement Learning by Approximate Inference, 2012.)

    Args:
        preferences: Logits ``[A]`` of the policy it is paid for staying near to; none: it is paid for entropy.
        parts: For `SharedParts`, ``[A, P]``; none: actions share nothing.
        *args: Of `MaskableActorCriticPolicy`, as are the keyword arguments.
    """

    preferences: Tensor

    def __init__(
        self, *args: Any, preferences: Sequence[float] = (), parts: Sequence[Sequence[float]] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("preferences", torch.tensor(tuple(preferences), device="cpu"), persistent=False)
        self._parts = parts
        if parts:
            self.action_net = SharedParts(cast(Linear, self.action_net), torch.tensor(parts, device="cpu"))
            rate = self.optimizer.param_groups[0]["lr"]
            make: Any = self.optimizer_class
            self.optimizer = make(self.parameters(), lr=rate, **self.optimizer_kwargs)

    def evaluate_actions(
        self, obs: Tensor, actions: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values ``[B, 1]`` and log-probabilities ``[B]`` of actions, and the bonus ``[B]``; nearness is at most 0."""
        values, log_prob, entropy = super().evaluate_actions(obs, actions, action_masks)
        if not len(self.preferences):
            return values, log_prob, entropy
        now = cast(MaskableCategorical, self.action_dist.distribution)  # what was evaluated
        preferred = MaskableCategorical(logits=self.preferences.expand_as(now.logits), masks=now.masks)
        return values, log_prob, -kl_divergence(now, preferred)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"preferences": self.preferences.tolist(), "parts": self._parts}
        return {**super()._get_constructor_parameters(), **own}


def parts_of(table: ActionTable) -> list[list[float]]:
    """Values that actions have in common, ``[A, P]`` of 0 and 1.

    Parts are the slot, blueprint, operator, tempo and target, each for one operation: GERMINATE with a blueprint has
    nothing in common with PRUNE in the same slot.
    """
    entries = [table.entry(number) for number in range(table.num_actions)]
    parts = [{f"{entry.op.name} {word}" for word in _words(entry, table)} for entry in entries]
    known = sorted(set().union(*parts))
    return [[float(part in those) for part in known] for those in parts]


def _words(entry: Action, table: ActionTable) -> list[str]:
    """The parts of an action by name; a curve is one where there are several."""
    heads = [head for head in HEADS[1:] if head != "curve" or len(table.menus["curve"]) > 1]
    values = {head: getattr(entry, head) for head in heads if getattr(entry, head) is not None}
    return [f"{head}{value}" if head in ("tempo", "target") else str(value) for head, value in values.items()]
