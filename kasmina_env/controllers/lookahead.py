"""Playing copies of an episode to its end, to see what a decision leads to: the upper references.

Copies have the random streams of the original, so whoever plans with them knows the minibatches to come. That makes
these policies bounds for what a controller could do, and not controllers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kasmina_env.controllers.policy import Names, make_equal, names_of
from kasmina_env.controllers.schedule import Plan
from kasmina_env.controllers.search import neighbours, structured_plans
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, FloatArray, IntArray

NONE = -1  # no action chosen
Intention = tuple[tuple[int, int], ...]  # germinations to come: the step from which on, and the flat action


def intention_of(plan: Plan, names: Names) -> Intention:
    """The germinations of a plan, first things first."""
    return tuple(sorted((seed.start, names.action.index(seed.action)) for seed in plan))


class Completion:
    """Carries an intention out: what is due queues up, fossilizing first, then advancing, then growing; then WAIT.

    Args:
        names: Of the environment.
    """

    def __init__(self, names: Names) -> None:
        words = [name.split() for name in names.action]
        self._finish = np.array([i for op in ("FOSSILIZE", "ADVANCE") for i, w in enumerate(words) if w[0] == op])

    def act(self, step: IntArray, mask: BoolArray, intentions: Sequence[Intention]) -> IntArray:
        """Flat actions ``[N]`` at steps ``[N]``, given masks ``[N, A]``."""
        allowed = mask[:, self._finish]
        actions = np.where(allowed.any(axis=1), self._finish[allowed.argmax(axis=1)], 0)
        for row in np.flatnonzero(~allowed.any(axis=1)).tolist():
            due = [action for start, action in intentions[row] if start <= step[row] and mask[row, action]]
            actions[row] = due[0] if due else 0
        return np.asarray(actions)


@dataclass(frozen=True)
class Future:
    """A copy of a row's episode: one action now (or `NONE`), and then an intention carried out to the end."""

    row: int
    first: int
    intention: Intention


class Futures:
    """Plays futures, many at a time, in an environment of its own: the original's random streams are not touched.

    Args:
        env: Whose rows are copied.
        num_envs: Copies played side by side.
    """

    def __init__(self, env: KasminaVectorEnv, num_envs: int = 64) -> None:
        self._env, self._copies = env, make_equal(env, num_envs)
        self._copies.reset(seed=0)
        self._completion = Completion(names_of(env))

    def returns(self, futures: Sequence[Future]) -> FloatArray:
        """What each of M futures earns from here to the end of its episode, ``[M]``."""
        n = self._copies.num_envs
        parts = [self._play(futures[i : i + n]) for i in range(0, len(futures), n)]
        return np.concatenate(parts)

    def _play(self, futures: Sequence[Future]) -> FloatArray:
        copies = self._copies
        filled = [futures[i % len(futures)] for i in range(copies.num_envs)]
        rows = np.array([future.row for future in filled])
        copies.core.restore(self._env.core.snapshot(rows), np.arange(copies.num_envs))
        first, intentions = np.array([f.first for f in filled]), [f.intention for f in filled]
        total, is_open = np.zeros(copies.num_envs), ~copies.core.view.is_over
        while is_open.any():
            mask, step = copies.action_masks(), copies.core.view.step
            actions = self._completion.act(step, mask, intentions)
            actions, first = np.where(first == NONE, actions, first), np.full_like(first, NONE)
            result = copies.core.step(np.where(is_open, actions, 0))
            total += np.where(is_open, result.reward, 0.0)
            is_open &= ~result.is_over
            intentions = [done_with(i, a) for i, a in zip(intentions, actions.tolist(), strict=True)]
        return total[: len(futures)]


def done_with(intention: Intention, action: int) -> Intention:
    """What is left of an intention after an action."""
    return tuple(entry for entry in intention if entry[1] != action)


class Lookahead:
    """Tries actions in copies of the episode and takes the one with the best end.

    Each legal action of a subset (WAIT; every blueprint in every slot, with the first operator and the shortest
    tempo; ADVANCE, FOSSILIZE and the quickest PRUNE of every slot) is followed to the end of the episode, once by
    what was intended before and once by nothing new; seeds that are there are advanced and fossilized as soon as they
    may be. The best future is intended from then on, so a plan is only ever left for a better one; between two
    decisions it is carried out. At the start of an episode the known plans are tried as well. Copies have the
    original's random streams: it foresees the minibatches, and the samples the score is measured on.

    Args:
        env: Whose episodes are played.
        known: Plans to begin with.
        every: Steps between decisions.
        budget: Futures tried for each decision; beyond it they are drawn at random.
        num_envs: Copies played side by side.
    """

    def __init__(
        self, env: KasminaVectorEnv, known: Sequence[Plan], every: int = 3, budget: int = 48, num_envs: int = 64
    ) -> None:
        names = names_of(env)
        self._env, self._every, self._budget = env, every, budget
        self._futures = Futures(env, num_envs)
        self._completion, self._rng = Completion(names), np.random.default_rng(0)
        self._known = [intention_of(plan, names) for plan in known]
        self._tried = _tried_actions(env)
        self._slot = env.core.actions.slot
        self._intentions: list[Intention] = [()] * env.num_envs

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        step = self._env.core.view.step
        for row in np.flatnonzero(step == 0).tolist():
            self._intentions[row] = self._known[0]
        planned = self._completion.act(step, mask, self._intentions)
        options = [self._options(row, int(planned[row]), int(step[row]), seen) for row, seen in enumerate(mask)]
        undecided = [row for row, futures in enumerate(options) if len(futures) > 1]
        chosen = [futures[0] for futures in options]
        if undecided:
            returns = self._futures.returns([future for row in undecided for future in options[row]])
            parts = np.split(returns, np.cumsum([len(options[row]) for row in undecided])[:-1])
            for row, part in zip(undecided, parts, strict=True):
                chosen[row] = options[row][int(part.argmax())]
        first, intentions = np.array([f.first for f in chosen]), [f.intention for f in chosen]
        actions = np.where(first == NONE, self._completion.act(step, mask, intentions), first)
        self._intentions = [done_with(i, a) for i, a in zip(intentions, actions.tolist(), strict=True)]
        return np.asarray(actions)

    def _options(self, row: int, planned: int, step: int, mask: BoolArray) -> list[Future]:
        """What is intended, first, then everything else within the budget, if it is time to decide."""
        intention = self._intentions[row]
        if step % self._every:
            return [Future(row, NONE, intention)]
        others = [Future(row, NONE, known) for known in self._known[1:]] if step == 0 else []
        for action in self._tried[mask[self._tried]].tolist():
            rest = tuple(entry for entry in intention if self._slot[entry[1]] != self._slot[action] or action == 0)
            others += [Future(row, action, kept) for kept in dict.fromkeys((rest, ()))]
        others = [f for f in others if (f.first, f.intention) != (planned, done_with(intention, planned))]
        if len(others) > self._budget - 1:
            chosen = self._rng.choice(len(others), size=self._budget - 1, replace=False)
            others = [others[i] for i in sorted(chosen)]
        return [Future(row, NONE, intention), *others]


def _tried_actions(env: KasminaVectorEnv) -> IntArray:
    """WAIT, and in every slot one action of each kind: the first for a blueprint, the quickest otherwise."""
    kinds: dict[tuple[str, ...], int] = {}
    for index, name in enumerate(env.action_names):
        op, *words = name.split()
        if op != "SET_ALPHA_TARGET":
            kinds.setdefault((op, *words[: 2 if op == "GERMINATE" else 1]), index)
    return np.array(list(kinds.values()))


class Oracle:
    """Searches for the best schedule of the very episode it plays, in copies of it, and plays that.

    Open loop: it decides everything at the start. It begins with known and structured plans, and improves the best of
    them by single changes. Copies have the original's random streams, so it foresees all that a schedule leads to.

    Args:
        env: Whose episodes are played.
        known: Plans to begin with.
        budget: Plans tried at first for each episode; half as many in each round of changes.
        num_rounds: Of changes.
        num_envs: Copies played side by side.
    """

    def __init__(
        self,
        env: KasminaVectorEnv,
        known: Sequence[Plan],
        budget: int = 30,
        num_rounds: int = 2,
        num_envs: int = 64,
    ) -> None:
        self._env, self._known, self._budget, self._num_rounds = env, list(known), budget, num_rounds
        self._names, self._futures = names_of(env), Futures(env, num_envs)
        self._completion, self._rng = Completion(self._names), np.random.default_rng(0)
        self._intentions: list[Intention] = [()] * env.num_envs

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        step = self._env.core.view.step
        fresh = np.flatnonzero(step == 0)
        if len(fresh):
            for row, plan in zip(fresh, self._search(fresh), strict=True):
                self._intentions[row] = intention_of(plan, self._names)
        actions = self._completion.act(step, mask, self._intentions)
        self._intentions = [done_with(i, a) for i, a in zip(self._intentions, actions.tolist(), strict=True)]
        return actions

    def _search(self, rows: IntArray) -> list[Plan]:
        """The best plan found for each row."""
        config, slots = self._env.core.config, self._env.core.slot_names
        ranked: list[list[tuple[float, Plan]]] = [[] for _ in rows]
        more = [self._known + structured_plans(self._rng, config, slots, self._budget) for _ in rows]
        for _ in range(1 + self._num_rounds):
            futures = [
                Future(int(row), NONE, intention_of(plan, self._names))
                for row, plans in zip(rows, more, strict=True)
                for plan in plans
            ]
            returns = iter(self._futures.returns(futures).tolist())
            for best, plans in zip(ranked, more, strict=True):
                best += [(next(returns), plan) for plan in plans]
                best.sort(key=lambda entry: -entry[0])
            count = -(-self._budget // 6)  # of three plans each: half the budget
            more = [
                [other for _, plan in best[:3] for other in neighbours(self._rng, plan, config, slots, count)]
                for best in ranked
            ]
        return [best[0][1] for best in ranked]
