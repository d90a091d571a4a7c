"""A scripted rule that watches the training: grow when accuracy drops, prune what does not help, keep what does.

    kasmina rollout Kasmina/DigitsService-v0 --policy agents/watch_for_drop.py
    kasmina compare Kasmina/DigitsService-v0 --policies wait fixed agents/watch_for_drop.py

The rules `wait`, `random` and `plateau` come with the package (kasmina_env/controllers/scripted.py) and look alike.
"""

from __future__ import annotations

import numpy as np

from kasmina_env import Policy, Problem, register_policy
from kasmina_env.lifecycle.state import Op


@register_policy("watch_for_drop", "grows when accuracy drops below its best, prunes what does not help")
class WatchForDrop(Policy):
    """Grows the last blueprint of the menu in the last slot when accuracy is `drop` below the best of the episode."""

    def __init__(self, problem: Problem, drop: float = 0.08, least: float = 0.0) -> None:
        self.drop, self.least = drop, least
        column, table, slot = problem.observations.column, problem.actions, problem.slot_names[-1]
        self.accuracy, self.best = column("accuracy"), column("best_accuracy")
        self.contribution = column(f"{slot}.contribution")
        self.has_contribution = column(f"{slot}.has_contribution")
        self.germinate = table.find(Op.GERMINATE, slot=slot, blueprint=problem.config.blueprints[-1])[0]
        self.advance, self.fossilize, self.prune = (
            table.find(op, slot=slot)[0] for op in (Op.ADVANCE, Op.FOSSILIZE, Op.PRUNE)
        )

    def act(self, observation, mask):
        dropped = observation[:, self.best] - observation[:, self.accuracy] > self.drop
        measured = observation[:, self.has_contribution] > 0
        helps = observation[:, self.contribution] > self.least
        # Later lines overrule earlier ones; 0 is WAIT, and what is not legal now is not chosen.
        actions = np.zeros(len(observation), dtype=np.int64)
        for action, is_wanted in (
            (self.germinate, dropped),
            (self.advance, True),
            (self.prune, measured & ~helps),
            (self.fossilize, measured & helps),
        ):
            actions[mask[:, action] & is_wanted] = action
        return actions
