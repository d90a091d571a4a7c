"""Upper references: policies that play copies of an episode to its end and so see the outcome of a decision.

Copies have the random streams of the original, so these policies know the minibatches to come. They are upper
references for controllers, not controllers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from kasmina_env.controllers.halving import neighbours
from kasmina_env.controllers.policy import Policy
from kasmina_env.controllers.schedule import Plan, quickest
from kasmina_env.controllers.search import neighbour, structured_plans
from kasmina_env.episode.episodes import Episodes
from kasmina_env.episode.problem import Problem
from kasmina_env.episode.state import NO_ACTION
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, FloatArray, IntArray
from kasmina_env.lifecycle.state import Op

# Germinations, prunes and alpha targets to come: the earliest step and the flat action of each, sorted. While one of
# the last two is to come in a slot, the seed there is not fossilized.
Intention = tuple[tuple[int, int], ...]


def intention_of(plan: Plan, problem: Problem) -> Intention:
    """The germinations, prunes and alpha targets of a plan, sorted by step."""
    table, entries = problem.actions, list[tuple[int, int]]()
    for seed in plan:
        entries.append((seed.start, seed.action(table)))
        if seed.prune is not None:
            entries.append((seed.prune, quickest(table, Op.PRUNE, seed.slot)))
        if seed.target is not None:
            entries.append((seed.start, quickest(table, Op.SET_ALPHA_TARGET, seed.slot, seed.target)))
    return tuple(sorted(entries))


class Completion:
    """Rule that carries out an intention.

    The first of these that is legal: fossilize a seed with which nothing else is to be done, prune or set alpha as is
    due, advance, grow what is due, WAIT.
    """

    def __init__(self, problem: Problem) -> None:
        table = problem.actions
        self._fossilize, self._advance = (table.find(op).tolist() for op in (Op.FOSSILIZE, Op.ADVANCE))
        self._grow, self._slot = frozenset(table.find(Op.GERMINATE).tolist()), table.slot.tolist()

    def act(self, step: IntArray, mask: BoolArray, intentions: Sequence[Intention]) -> IntArray:
        """Flat actions ``[N]`` at steps ``[N]``, given masks ``[N, A]``."""
        rows = zip(step.tolist(), mask, intentions, strict=True)
        return np.array([self._next(*row) for row in rows], dtype=np.int64)

    def _next(self, step: int, mask: BoolArray, intention: Intention) -> int:
        due = [action for start, action in intention if start <= step and mask[action]]
        busy = {self._slot[action] for _, action in intention if action not in self._grow}
        fossilize = [action for action in self._fossilize if mask[action] and self._slot[action] not in busy]
        prune_or_set = [action for action in due if action not in self._grow]
        advance = [action for action in self._advance if mask[action]]
        return int((*fossilize, *prune_or_set, *advance, *due, 0)[0])


@dataclass(frozen=True)
class Future:
    """A way to go on with a row's episode: one action now (or `NO_ACTION`), then an intention to the end."""

    row: int
    first: int
    intention: Intention


class Futures:
    """Player of many futures at a time, in its own episodes. The original's random streams stay untouched.

    Args:
        problem: Problem of the episodes.
        original: Episodes to copy.
        num_copies: Number of copies played side by side.
    """

    def __init__(self, problem: Problem, original: Episodes, num_copies: int = 64) -> None:
        self._original, self._rows = original, np.arange(num_copies)
        self._copies = Episodes(problem, num_copies, original.devices[0], original.dtype)
        nothing = np.zeros(num_copies, dtype=np.int64)
        self._copies.reset(self._rows, nothing, nothing)
        self._completion = Completion(problem)

    def returns(self, futures: Sequence[Future]) -> FloatArray:
        """Returns of M futures from here to the end of their episodes, ``[M]``."""
        n = len(self._rows)
        parts = [self._play(futures[i : i + n]) for i in range(0, len(futures), n)]
        return np.concatenate(parts)

    def _play(self, futures: Sequence[Future]) -> FloatArray:
        filled = [futures[i % len(futures)] for i in range(len(self._rows))]
        saved = self._original.snapshot([future.row for future in filled])
        report = self._copies.restore(saved, self._rows)
        first, intentions = np.array([f.first for f in filled]), [f.intention for f in filled]
        total, is_open = np.zeros(len(filled)), ~report.is_over
        while is_open.any():
            actions = self._completion.act(report.step, report.mask, intentions)
            actions, first = np.where(first == NO_ACTION, actions, first), np.full_like(first, NO_ACTION)
            report = self._copies.step(np.where(is_open, actions, 0))
            total += np.where(is_open, report.reward, 0.0)
            is_open &= ~report.is_over
            intentions = [done_with(i, a) for i, a in zip(intentions, actions.tolist(), strict=True)]
        return total[: len(futures)]


def done_with(intention: Intention, action: int) -> Intention:
    """An intention without the entry that was just carried out: the first one of this action."""
    found = [i for i, entry in enumerate(intention) if entry[1] == action]
    return intention[: found[0]] + intention[found[0] + 1 :] if found else intention


class Lookahead(Policy):
    """Policy that tries actions in copies of the episode and takes the one with the best return.

    Each legal action of a subset (WAIT; every blueprint in every slot, with the first operator and the shortest
    tempo; ADVANCE, FOSSILIZE and the quickest PRUNE of every slot) is tried to the end of the episode, once followed
    by the present intention and once by nothing else. Seeds are advanced and fossilized as soon as that is legal,
    unless the intention is to prune them. So each germination is also tried with a prune after a sixth, a third and
    half of the horizon, and each seed that may be pruned now is also tried with being kept and with a prune that much
    later. The intention of the best future replaces the present one, so a plan is only given up for a better one.
    Between two decisions the intention is carried out. At the start of an episode the known plans are tried too.

    Copies have the original's random streams, so the policy knows the minibatches to come, the data to come and the
    samples that are scored. What it does not try it does not bound: it sets no alpha targets, it prunes with the
    quickest ramp, and other operators and tempos come from the known plans alone.

    Args:
        problem: Problem it plays.
        known: Plans to begin with.
        every: Number of steps between decisions.
        budget: Most futures to try for each decision; a random subset if there are more. Later prunes are the first to
            be left out.
        num_copies: Number of copies played side by side.
    """

    def __init__(
        self, problem: Problem, known: Sequence[Plan], every: int = 3, budget: int = 48, num_copies: int = 64
    ) -> None:
        self._problem, self._every, self._budget, self._num_copies = problem, every, budget, num_copies
        self._completion = Completion(problem)
        self._known = [intention_of(plan, problem) for plan in known]
        self._tried, self._spans = tried_actions(problem), spans_of(problem.horizon)
        self._op, self._slot = problem.actions.op, problem.actions.slot
        self._prune = [quickest(problem.actions, Op.PRUNE, slot) for slot in problem.slot_names]

    def begin(self, seeds: IntArray, episodes: Episodes) -> None:
        self._episodes = episodes
        self._futures = Futures(self._problem, episodes, self._num_copies)
        self._streams = [np.random.default_rng([seed, 2]) for seed in seeds.tolist()]
        self._intentions = [self._known[0] for _ in seeds]

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        step = self._episodes.report.step
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
        actions = np.where(first == NO_ACTION, self._completion.act(step, mask, intentions), first)
        self._intentions = [done_with(i, a) for i, a in zip(intentions, actions.tolist(), strict=True)]
        return np.asarray(actions)

    def _options(self, row: int, planned: int, step: int, mask: BoolArray) -> list[Future]:
        """The intended future, then, if a decision is due, others within the budget."""
        intention = self._intentions[row]
        intended = Future(row, NO_ACTION, intention)
        if step % self._every:
            return [intended]
        others = [Future(row, NO_ACTION, known) for known in self._known[1:]] if step == 0 else []
        later: list[Future] = []
        for action in self._tried[mask[self._tried]].tolist():
            op, slot = self._op[action], self._slot[action]
            rest = tuple(entry for entry in intention if self._slot[entry[1]] != slot)
            others += [Future(row, action, kept) for kept in (rest, ())]
            if op in (Op.GERMINATE, Op.PRUNE):
                first = action if op == Op.GERMINATE else NO_ACTION
                ends = [step + span for span in self._spans if step + span < self._problem.horizon]
                later += [Future(row, first, tuple(sorted((*rest, (end, self._prune[slot]))))) for end in ends]
            if op == Op.PRUNE:
                others.append(Future(row, NO_ACTION, rest))
        is_known = {intended, Future(row, planned, done_with(intention, planned))}
        others, later = ([f for f in dict.fromkeys(group) if f not in is_known] for group in (others, later))
        others = self._some_of(others, self._budget - 1, row)
        return [intended, *others, *self._some_of(later, self._budget - 1 - len(others), row)]

    def _some_of(self, futures: list[Future], count: int, row: int) -> list[Future]:
        """All futures, or `count` of them at random if there are more."""
        if len(futures) <= count:
            return futures
        return [futures[i] for i in sorted(self._streams[row].choice(len(futures), size=count, replace=False))]


def spans_of(horizon: int) -> tuple[int, ...]:
    """Numbers of steps for which lookahead lets a seed live: a sixth, a third and half of the horizon."""
    return tuple(sorted({max(horizon * part // 6, 1) for part in (1, 2, 3)}))


def tried_actions(problem: Problem) -> IntArray:
    """WAIT, and in every slot one action of each kind: the quickest, with the first operator and the first curve."""
    table, config, tried = problem.actions, problem.config, [0]
    for slot in problem.slot_names:
        for blueprint in config.blueprints:
            tried.append(int(table.find(Op.GERMINATE, slot, blueprint, tempo=min(config.tempos))[0]))
        tried.append(int(table.find(Op.ADVANCE, slot)[0]))
        tried.append(quickest(table, Op.PRUNE, slot))
        tried.append(int(table.find(Op.FOSSILIZE, slot)[0]))
    return np.array(tried)


class Oracle(Policy):
    """Policy that searches for the best schedule of the very episode it plays, in copies of it, and plays that one.

    It decides everything at the start (open loop). It begins with known and structured plans and improves the best of
    them choice by choice, prunes among them. Copies have the original's random streams, so it knows the exact outcome
    of a schedule. What it does not try it does not bound: plans have at most one seed per slot and no alpha targets.

    Args:
        problem: Problem it plays.
        known: Plans to begin with.
        budget: Number of structured plans tried first for each episode; half as many neighbours in each further round.
        num_rounds: Number of further rounds.
        num_copies: Number of copies played side by side.
    """

    def __init__(
        self, problem: Problem, known: Sequence[Plan], budget: int = 30, num_rounds: int = 2, num_copies: int = 64
    ) -> None:
        self._problem, self._known, self._budget, self._num_rounds = problem, list(known), budget, num_rounds
        self._num_copies, self._completion = num_copies, Completion(problem)

    def begin(self, seeds: IntArray, episodes: Episodes) -> None:
        self._episodes = episodes
        futures = Futures(self._problem, episodes, self._num_copies)
        plans = self._search(futures, [np.random.default_rng([seed, 3]) for seed in seeds.tolist()])
        self._intentions = [intention_of(plan, self._problem) for plan in plans]

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        actions = self._completion.act(self._episodes.report.step, mask, self._intentions)
        self._intentions = [done_with(i, a) for i, a in zip(self._intentions, actions.tolist(), strict=True)]
        return actions

    def _search(self, futures: Futures, streams: Sequence[np.random.Generator]) -> list[Plan]:
        """The best plan found for each row; one random stream per row."""
        ranked: list[list[tuple[float, Plan]]] = [[] for _ in streams]
        more = [self._known + structured_plans(stream, self._problem, self._budget) for stream in streams]
        for _ in range(1 + self._num_rounds):
            tried = [
                Future(row, NO_ACTION, intention_of(plan, self._problem))
                for row, plans in enumerate(more)
                for plan in plans
            ]
            returns = iter(futures.returns(tried).tolist())
            for best, plans in zip(ranked, more, strict=True):
                best += [(next(returns), plan) for plan in plans]
                best.sort(key=lambda entry: -entry[0])
            count = -(-self._budget // 6)  # for each of three plans; half the budget together
            more = [
                [
                    other
                    for _, plan in best[:3]
                    for other in neighbours(plan, count, partial(neighbour, stream, problem=self._problem))
                ]
                for best, stream in zip(ranked, streams, strict=True)
            ]
        return [best[0][1] for best in ranked]
