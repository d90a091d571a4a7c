"""The upper references: what they foresee happens, and what they play is at least as good as what they know."""

from __future__ import annotations

import numpy as np
import pytest

from kasmina_env.controllers.lookahead import (
    NONE,
    Completion,
    Future,
    Futures,
    Lookahead,
    Oracle,
    done_with,
    intention_of,
)
from kasmina_env.controllers.policy import make_env, names_of, play
from kasmina_env.controllers.schedule import Fixed, Planned, actions_of

SPIRALS = "Kasmina/Spirals-v0"
SMALL = {"horizon": 12, "batches_per_step": 2, "batch_size": 8, "watch_samples": 32, "score_samples": 64}
FREE = {"operation_price": 0.0, "param_price": 0.0}  # growing can pay even in so few minibatches
GROW = (Planned(0, "layer0", "mlp", "ADD", 3), Planned(2, "layer1", "lora", "GATE", 3))


@pytest.fixture
def env():
    """In float64, whose rounding training does not amplify to anything visible within an episode."""
    made = make_env(SPIRALS, 3, dtype="float64", **SMALL, **FREE)
    made.reset(seed=[7, 8, 9])
    return made


def scheduled(env, plan):
    names = names_of(env)
    return Fixed(names, actions_of(plan, names, env.problem.config.min_training_steps, instant=False))


def test_a_future_earns_what_the_plan_then_earns(env):
    futures = [Future(row, NONE, intention_of(plan, names_of(env))) for row in range(3) for plan in (GROW, ())]
    foreseen = Futures(env, 4).returns(futures).reshape(3, 2)
    for column, plan in enumerate((GROW, ())):
        played = play(env, scheduled(env, plan), np.array([7, 8, 9]))
        assert foreseen[:, column] == pytest.approx(played.returns)


def test_foreseeing_leaves_the_episode_as_it_is(env):
    before = env.snapshot()
    Futures(env, 2).returns([Future(0, NONE, ()), Future(2, 1, ())])
    _, reward, *_ = env.step(np.zeros(3, dtype=np.int64))
    env.restore(before)
    _, again, *_ = env.step(np.zeros(3, dtype=np.int64))
    assert (reward == again).all()


def test_a_future_may_begin_in_the_middle_with_an_action_of_its_own(env):
    for _ in range(4):
        env.step(np.zeros(3, dtype=np.int64))
    grow = env.action_names.index("GERMINATE layer0 mlp ADD tempo3")
    wait, grown = Futures(env, 2).returns([Future(1, NONE, ()), Future(1, grow, ())])
    assert wait != grown


def test_completion_fossilizes_first_then_advances_then_grows():
    names = names_of(make_env(SPIRALS, 1))
    kinds = ("FOSSILIZE layer1", "ADVANCE layer0", "GERMINATE layer0 mlp ADD tempo3", "WAIT")
    mask = np.ones((1, len(names.action)), dtype=bool)
    chosen = []
    for kind in kinds:
        chosen.append(names.action[Completion(names).act(np.array([0]), mask, [intention_of(GROW, names)])[0]])
        mask[0] &= [name.split()[0] != kind.split()[0] for name in names.action]
    assert [name.split()[0] for name in chosen] == [kind.split()[0] for kind in kinds]


def test_an_intention_is_left_when_it_is_carried_out():
    intention = ((0, 5), (2, 9))
    assert done_with(intention, 5) == ((2, 9),)
    assert done_with(intention, 0) == intention


@pytest.mark.parametrize("bound", [Lookahead, Oracle])
def test_a_bound_is_at_least_as_good_as_every_plan_it_knows(bound, env):
    seeds = np.array([20, 21, 22])
    known = [play(env, scheduled(env, plan), seeds).returns for plan in (GROW, ())]
    foresight = play(env, bound(env, [GROW, ()], budget=12, num_envs=8), seeds)
    assert (foresight.returns >= np.max(known, axis=0) - 1e-9).all()
    assert foresight.returns.mean() > np.max(known, axis=0).mean()
    assert foresight.illegal.sum() == 0


def test_lookahead_prunes_what_hurts():
    env = make_env(SPIRALS, 2, dtype="float64", **{**SMALL, "rent_price": 50.0})
    grow = intention_of(GROW[:1], names_of(env))[0][1]
    observation, _ = env.reset(seed=0)
    policy = Lookahead(env, [()], every=1, num_envs=8)
    policy.act(observation, env.action_masks())
    for _ in range(2):
        observation, *_ = env.step(np.full(2, grow))
    for _ in range(3):
        observation, *_ = env.step(policy.act(observation, env.action_masks()))
    assert not env.episodes.state().lifecycle.has_seed.any()
