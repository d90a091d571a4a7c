"""A policy that is paid for staying near to what it began with, where others are paid for entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from sb3_contrib.common.maskable.distributions import MaskableCategorical
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from torch.distributions import kl_divergence


class NearFirst(MaskableActorCriticPolicy):
    """Actor and critic of MaskablePPO, whose bonus is nearness to first preferences.

    Where a policy is paid for entropy it is drawn to all legal actions alike, and so from WAIT, which is one, to
    GERMINATE, which is dozens. Here `evaluate_actions` gives, in place of the entropy, minus the Kullback-Leibler
    divergence from the first preferences among the legal actions; were these all equal, that would be the entropy less
    a constant. `ent_coef` is its weight. (Nearness to a given policy as regulariser: Rawlik, Toussaint, Vijayakumar,
    On Stochastic Optimal Control and Reinforcement Learning by Approximate Inference, 2012.)

    Args:
        first_logits: Preferences ``[A]`` of the policy it stays near to.
        *args: Of `MaskableActorCriticPolicy`, as are the keyword arguments.
    """

    first_logits: torch.Tensor

    def __init__(self, *args: Any, first_logits: Sequence[float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("first_logits", torch.tensor(tuple(first_logits)), persistent=False)

    def evaluate_actions(
        self, obs: torch.Tensor, actions: torch.Tensor, action_masks: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Values ``[B, 1]`` and log-probabilities ``[B]`` of actions, and nearness ``[B]``, at most 0."""
        values, log_prob, _ = super().evaluate_actions(obs, actions, action_masks)
        now = cast(MaskableCategorical, self.action_dist.distribution)  # what was evaluated
        first = MaskableCategorical(logits=self.first_logits.expand_as(now.logits), masks=now.masks)
        return values, log_prob, -kl_divergence(now, first)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "first_logits": self.first_logits.tolist()}
