"""Controllers that are written down, neither searched for nor learned."""

from __future__ import annotations

import numpy as np

from kasmina_env.controllers.policy import Names, names_of
from kasmina_env.controllers.schedule import Plan
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, IntArray


class Wait:
    """Lets the host train as it is."""

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        return np.zeros(len(observation), dtype=np.int64)


class Random:
    """Chooses uniformly among the legal actions."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        # the largest of independent draws over the legal entries is uniform over them
        return np.asarray((self._rng.random(mask.shape) * mask).argmax(axis=1))


class Plateau:
    """What an engineer would do by hand: grow when accuracy stalls, keep what helps, prune what hurts.

    In this order, the first that applies: fossilize a seed whose contribution is positive, prune one whose
    contribution is negative, advance one that has trained enough, and, if inner accuracy rose by less than
    `min_gain` over three steps, grow the menu's next blueprint in the first empty slot, with the first operator and
    the shortest tempo.

    Args:
        names: Of the environment.
        min_gain: Rise of accuracy over three steps below which progress has stalled.
    """

    def __init__(self, names: Names, min_gain: float = 0.03) -> None:
        self._min_gain = min_gain
        self._progress = names.column("progress")
        self._gain = names.column("accuracy_change_3")
        self._slots = [n.removesuffix(".alpha") for n in names.observation if n.endswith(".alpha")]
        self._contribution = [names.column(f"{slot}.contribution") for slot in self._slots]
        self._actions = {slot: _actions_of_slot(names, slot) for slot in self._slots}
        self._num_grown = np.zeros(0, dtype=np.int64)  # [N] in this episode

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        if len(self._num_grown) != len(observation):
            self._num_grown = np.zeros(len(observation), dtype=np.int64)
        self._num_grown[observation[:, self._progress] == 0] = 0
        return np.array([self._choose(row, *seen) for row, seen in enumerate(zip(observation, mask, strict=True))])

    def _choose(self, row: int, observation: Float32Array, mask: BoolArray) -> int:
        for op in ("FOSSILIZE", "PRUNE", "ADVANCE"):
            for slot, column in zip(self._slots, self._contribution, strict=True):
                action = self._actions[slot][op][0]
                is_wanted = {"FOSSILIZE": observation[column] > 0, "PRUNE": observation[column] < 0}.get(op, True)
                if mask[action] and is_wanted:
                    return action
        if observation[self._gain] < self._min_gain:
            for slot in self._slots:
                menu = self._actions[slot]["GERMINATE"]
                action = menu[int(self._num_grown[row]) % len(menu)]
                if mask[action]:
                    self._num_grown[row] += 1
                    return action
        return 0


def _actions_of_slot(names: Names, slot: str) -> dict[str, list[int]]:
    """Operation to actions in a slot: one of each blueprint for GERMINATE, the quickest for the others."""
    found: dict[str, list[int]] = {}
    blueprints: set[str] = set()
    for index, name in enumerate(names.action):
        op, *words = name.split()
        if words[:1] != [slot] or (op == "GERMINATE" and words[1] in blueprints):
            continue
        if op == "GERMINATE":
            blueprints.add(words[1])
        if op == "GERMINATE" or op not in found:
            found.setdefault(op, []).append(index)
    return found


class Given:
    """Is given the architecture of a plan from the start, and keeps it.

    Its seeds are planted, at alpha 1, before the first minibatch of an episode, so the network has its final
    architecture from step 0 and trains as long, on the same minibatches, as one that grows. They are paid for like
    grown ones: the first reward has the price of every germination, every step its rent, and the score the price of
    their parameters. They are fossilized one by one from the second decision on, which changes nothing but that they
    are kept.

    Args:
        env: With ``instant=True``.
        plan: The architecture.
    """

    def __init__(self, env: KasminaVectorEnv, plan: Plan) -> None:
        names = names_of(env)
        self._env, self._progress = env, names.column("progress")
        self._seeds = [names.action.index(seed.action) for seed in plan]
        self._keep = np.array([names.action.index(f"FOSSILIZE {seed.slot}") for seed in plan] or [0])

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        is_new = observation[:, self._progress] == 0
        for action in self._seeds if is_new.any() else ():
            self._env.core.plant(np.where(is_new, action, 0))
        allowed = mask[:, self._keep] & ~is_new[:, None]
        return np.where(allowed.any(axis=1), self._keep[allowed.argmax(axis=1)], 0)
