"""The upper references: what they foresee happens, and what they play is at least as good as what they know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kasmina_env import KasminaVectorEnv, make_problem, register_reward
from kasmina_env.controllers.lookahead import (
    NO_ACTION,
    Completion,
    Future,
    Futures,
    Lookahead,
    Oracle,
    done_with,
    intention_of,
    tried_actions,
)
from kasmina_env.controllers.policy import play
from kasmina_env.controllers.schedule import Fixed, Planned, actions_of
from kasmina_env.episode.reward import REWARDS, Term
from kasmina_env.lifecycle.state import Op

SPIRALS = "Kasmina/Spirals-v0"
SMALL = {"horizon": 12, "batches_per_step": 2, "batch_size": 8, "watch_samples": 32, "score_samples": 64}
RESTING = {"targets": (0.5, 1.0)}
FREE = {"operation_price": 0.0, "param_price": 0.0}  # growing can pay even in so few minibatches
GROW = (Planned(0, "layer0", "mlp", "ADD", 3), Planned(2, "layer1", "lora", "GATE", 3))
PRUNE = (replace(GROW[0], prune=7), replace(GROW[1], prune=3))  # at alpha 1, and in training
REST = (replace(GROW[0], target=0.5),)


@pytest.fixture
def env():
    """In float64, whose rounding training does not amplify to anything visible within an episode."""
    made = KasminaVectorEnv(3, SPIRALS, dtype="float64", **SMALL, **FREE, **RESTING)
    made.reset(seed=[7, 8, 9])
    return made


def scheduled(env, plan):
    return Fixed(env.problem, actions_of(plan, env.problem))


def futures_of(env, num_copies):
    return Futures(env.problem, env.episodes, num_copies)


def test_a_future_earns_what_the_plan_then_earns(env):
    plans = (GROW, PRUNE, REST, ())
    futures = [Future(row, NO_ACTION, intention_of(plan, env.problem)) for row in range(3) for plan in plans]
    foreseen = futures_of(env, 4).returns(futures).reshape(3, 4)
    for column, plan in enumerate(plans):
        played = play(env, scheduled(env, plan), np.array([7, 8, 9]))
        assert foreseen[:, column] == pytest.approx(played.returns)


def test_foreseeing_leaves_the_episode_as_it_is(env):
    before = env.snapshot()
    futures_of(env, 2).returns([Future(0, NO_ACTION, ()), Future(2, 1, ())])
    _, reward, *_ = env.step(np.zeros(3, dtype=np.int64))
    env.restore(before)
    _, again, *_ = env.step(np.zeros(3, dtype=np.int64))
    assert (reward == again).all()


def test_a_future_may_begin_in_the_middle_with_an_action_of_its_own(env):
    for _ in range(4):
        env.step(np.zeros(3, dtype=np.int64))
    grow = GROW[0].action(env.problem.actions)
    wait, grown = futures_of(env, 2).returns([Future(1, NO_ACTION, ()), Future(1, grow, ())])
    assert wait != grown


def test_completion_fossilizes_first_then_prunes_then_advances_then_grows():
    problem = make_problem(SPIRALS)
    table, intentions = problem.actions, [intention_of((GROW[0], replace(GROW[1], start=0, prune=0)), problem)]
    mask, chosen = np.ones((1, table.num_actions), dtype=bool), []
    for _ in range(5):
        chosen.append(int(Completion(problem).act(np.array([0]), mask, intentions)[0]))
        mask &= table.op != table.op[chosen[-1]]
    assert table.op[chosen].tolist() == [Op.FOSSILIZE, Op.PRUNE, Op.ADVANCE, Op.GERMINATE, Op.WAIT]
    assert (chosen[0], chosen[3]) == (table.find(Op.FOSSILIZE, "layer0"), GROW[0].action(table))


def test_an_intention_is_left_when_it_is_carried_out():
    intention = ((0, 5), (2, 9))
    assert done_with(intention, 5) == ((2, 9),)
    assert done_with((*intention, (4, 5)), 5) == ((2, 9), (4, 5))
    assert done_with(intention, 0) == intention


def test_what_lookahead_tries_is_the_quickest_of_the_menus_in_whatever_order_they_are():
    problem = make_problem(SPIRALS, tempos=(8, 3), prune_tempos=(3, 0), curves=("COSINE", "LINEAR"))
    tried = [problem.actions.entry(action) for action in tried_actions(problem)]
    assert len(tried) == 1 + 2 * (len(problem.config.blueprints) + 3)
    assert {(entry.op, entry.tempo) for entry in tried if entry.tempo is not None} == {(Op.GERMINATE, 3), (Op.PRUNE, 0)}


@pytest.mark.parametrize("bound", [Lookahead, Oracle])
def test_a_bound_plays_a_seed_alike_whatever_is_played_beside_it(bound):
    """Its choice among too many futures, or plans, is drawn for each seed."""
    envs = [KasminaVectorEnv(n, SPIRALS, dtype="float64", **SMALL, **FREE, **RESTING) for n in (1, 2)]
    policies = [bound(env.problem, [GROW, ()], budget=4, num_copies=8) for env in envs]
    alone, beside = (play(env, policy, np.array([21, 20])) for env, policy in zip(envs, policies, strict=True))
    assert (alone.actions == beside.actions).all()


@pytest.mark.parametrize("bound", [Lookahead, Oracle])
def test_a_bound_is_at_least_as_good_as_every_plan_it_knows(bound, env):
    seeds = np.array([20, 21, 22])
    known = [play(env, scheduled(env, plan), seeds).returns for plan in (GROW, ())]
    foresight = play(env, bound(env.problem, [GROW, ()], budget=12, num_copies=8), seeds)
    assert (foresight.returns >= np.max(known, axis=0) - 1e-9).all()
    assert foresight.returns.mean() > np.max(known, axis=0).mean()
    assert foresight.illegal.sum() == 0


@pytest.fixture
def guest_reward():
    """A reward that wants a seed in the first layer in the first half of an episode only; forgotten again."""
    infos = dict(REWARDS._infos)
    register_reward("guest")(lambda: {"guest": Term(is_guest_welcome, "1 or -1 for a seed in the first layer")})
    yield "guest"
    REWARDS._infos = infos


def is_guest_welcome(step):
    return step.after.lifecycle.has_seed[:, 0] * np.where(step.after.step <= 6, 1.0, -1.0)


def test_lookahead_grows_for_a_while_what_does_not_pay_to_keep(guest_reward):
    env = KasminaVectorEnv(2, SPIRALS, dtype="float64", **SMALL, reward=guest_reward)
    played = play(env, Lookahead(env.problem, [()], num_copies=16), np.arange(2))
    assert played.returns.tolist() == [6, 6]
    assert (played.num_fossilized.tolist(), played.illegal.sum()) == ([0, 0], 0)


def test_lookahead_prunes_what_hurts():
    env = KasminaVectorEnv(2, SPIRALS, dtype="float64", **SMALL, rent_price=50.0)
    grow = GROW[0].action(env.problem.actions)
    observation, _ = env.reset(seed=0)
    policy = Lookahead(env.problem, [()], every=1, num_copies=8)
    policy.begin(np.arange(2), env.episodes)
    policy.act(observation, env.action_masks())
    for _ in range(2):
        observation, *_ = env.step(np.full(2, grow))
    for _ in range(3):
        observation, *_ = env.step(policy.act(observation, env.action_masks()))
    assert not env.episodes.state().lifecycle.has_seed.any()
