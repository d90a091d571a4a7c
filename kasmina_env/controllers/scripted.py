"""Policies written by hand, neither searched for nor learned."""

from __future__ import annotations

import numpy as np

from kasmina_env.controllers.policy import Policy, register_policy
from kasmina_env.episode.episodes import Episodes
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, IntArray
from kasmina_env.lifecycle.state import Op


@register_policy("wait", "lets the host train as it is")
class Wait(Policy):
    """Policy that always waits."""

    def __init__(self, problem: Problem) -> None:
        """Ignore the problem."""

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        return np.zeros(len(observation), dtype=np.int64)


@register_policy("random", "a legal action at random")
class Random(Policy):
    """Policy that draws legal actions uniformly, with one random stream per episode."""

    def __init__(self, problem: Problem) -> None:
        self._streams: list[np.random.Generator] = []

    def begin(self, seeds: IntArray, episodes: Episodes) -> None:
        self._streams = [np.random.default_rng([seed, 1]) for seed in seeds.tolist()]

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        pairs = zip(self._streams, mask, strict=True)
        return np.array([stream.choice(np.flatnonzero(legal)) for stream, legal in pairs])


@register_policy("plateau", "grows when progress stalls")
class Plateau(Policy):
    """Grows when accuracy stalls, keeps what helps, prunes what hurts, as an engineer would by hand.

    The first of these that applies: fossilize a seed whose contribution is positive; prune one whose contribution is
    negative; advance one that has trained enough; and, if accuracy on inner_valid rose by less than `min_gain` over
    three steps, grow the menu's next blueprint in the first empty slot, with the first operator and the shortest tempo.

    Args:
        problem: Problem it plays.
        min_gain: Rise of accuracy over three steps; progress below it counts as stalled.
    """

    def __init__(self, problem: Problem, min_gain: float = 0.03) -> None:
        self._min_gain = min_gain
        column, table, config = problem.observations.column, problem.actions, problem.config
        self._gain = column("accuracy_change_3")
        self._contribution = [column(f"{slot}.contribution") for slot in problem.slot_names]
        self._ends = {
            op: [int(table.find(op, slot=slot)[0]) for slot in problem.slot_names]
            for op in (Op.FOSSILIZE, Op.PRUNE, Op.ADVANCE)
        }
        tempo = min(config.tempos)
        self._menus = [
            [int(table.find(Op.GERMINATE, slot, blueprint, tempo=tempo)[0]) for blueprint in config.blueprints]
            for slot in problem.slot_names
        ]
        self._num_grown = np.zeros(0, dtype=np.int64)  # [N] in this episode

    def begin(self, seeds: IntArray, episodes: Episodes) -> None:
        self._num_grown = np.zeros(len(seeds), dtype=np.int64)

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        return np.array([self._choose(row, *seen) for row, seen in enumerate(zip(observation, mask, strict=True))])

    def _choose(self, row: int, observation: Float32Array, mask: BoolArray) -> int:
        for op, actions in self._ends.items():
            for action, column in zip(actions, self._contribution, strict=True):
                is_wanted = {Op.FOSSILIZE: observation[column] > 0, Op.PRUNE: observation[column] < 0}.get(op, True)
                if mask[action] and is_wanted:
                    return action
        if observation[self._gain] < self._min_gain:
            for menu in self._menus:
                action = menu[int(self._num_grown[row]) % len(menu)]
                if mask[action]:
                    self._num_grown[row] += 1
                    return action
        return 0


class Keep(Policy):
    """Policy that fossilizes the seeds it finds, one a step from the second decision on, and otherwise waits.

    It is for networks that have their final architecture from the start (``reset(options={"planted": ...})``). Planted
    seeds stand at alpha 1 before the first minibatch and cost as much as grown ones. The network trains as long and on
    the same minibatches as one that grows.

    Args:
        problem: Problem it plays, with ``instant=True``.
        slots: Names of the slots whose seeds it keeps, in this order.
    """

    def __init__(self, problem: Problem, slots: list[str]) -> None:
        self._progress = problem.observations.column("progress")
        self._keep = np.array([problem.actions.find(Op.FOSSILIZE, slot=slot)[0] for slot in slots] or [0])

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        is_new = observation[:, self._progress] == 0
        allowed = mask[:, self._keep] & ~is_new[:, None]
        return np.where(allowed.any(axis=1), self._keep[allowed.argmax(axis=1)], 0)
