"""Networks in service: mature hosts, shifted data, and an objective in which every step counts."""

from __future__ import annotations

import numpy as np
import pytest

from kasmina_env.lifecycle.state import Op
from tests.episodes import digest, leaves, mixed_actions, op_actions, small_env, small_vec

SERVICE = "Kasmina/DigitsService-v0"


def waited(**settings):
    """Rewards and infos of an episode of waiting."""
    env = small_env(SERVICE, **settings)
    _, first = env.reset(seed=0)
    steps = [env.step(0) for _ in range(env.problem.config.horizon)]
    return first, [step[1] for step in steps], [step[-1] for step in steps]


def test_the_score_is_the_mean_of_every_steps_value():
    first, rewards, infos = waited()
    qualities = [info["quality"] for info in infos]
    assert infos[-1]["committed_score"] == pytest.approx(np.mean(qualities))
    assert sum(rewards) == pytest.approx(infos[-1]["committed_score"] - first["score"])


def test_a_network_in_service_pays_for_the_seeds_it_carries():
    env = small_env(SERVICE, param_price=0.5, rent_price=0.0, operation_price=0.0)
    env.reset(seed=0)
    conv = next(a for a in op_actions(env, Op.GERMINATE) if "block0 conv_light ADD" in env.action_names[a])
    info = env.step(conv)[-1]
    growth = info["param_growth"]
    horizon = env.problem.config.horizon
    paid = info["quality"] - 0.5 * np.log2(1 + growth)
    assert growth > 0
    assert info["score"] == pytest.approx((paid + (horizon - 1) * paid) / horizon)


@pytest.mark.parametrize("objective", ["mean", "final"])
def test_whatever_was_done_the_changes_add_up_to_the_score(objective):
    vec, rng, total = small_vec(SERVICE, objective=objective), np.random.default_rng(0), np.zeros(4)
    _, infos = vec.reset(seed=0)
    first = infos["score"]
    for _ in range(vec.problem.config.horizon):
        *_, infos = vec.step(mixed_actions(rng, vec))
        total += infos["reward_terms"]["score_change"]
    assert total == pytest.approx(infos["committed_score"] - first)


def test_a_mature_host_knows_more_than_a_fresh_one():
    mature, fresh = (small_vec(SERVICE, num_envs=8, warmup_batches=n, task_settings={"degrees": 0.0}) for n in (120, 0))
    scores = [vec.reset(seed=0)[1]["score"].mean() for vec in (mature, fresh)]
    assert scores[0] > scores[1] + 0.2


def test_warming_up_a_row_leaves_the_others_as_they_are():
    vec = small_vec(SERVICE)
    vec.reset(seed=0)
    vec.step(np.zeros(4, dtype=int))
    before = [digest(*leaves(vec.episodes.snapshot([row]))) for row in (0, 2, 3)]
    vec.reset(seed=[None, 9, None, None], options={"reset_mask": np.array([False, True, False, False])})
    assert [digest(*leaves(vec.episodes.snapshot([row]))) for row in (0, 2, 3)] == before


def gradients(**settings):
    """The first observation's norm of the host's gradient and the segments' shares in it, ``[N, 1 + S]``."""
    vec = small_vec(SERVICE, **settings)
    names = ("gradient_norm", *(f"{slot}.gradient_share" for slot in vec.problem.slot_names))
    return vec.reset(seed=0)[0][:, [vec.observation_names.index(name) for name in names]]


def test_the_first_gradients_a_controller_sees_are_those_of_the_warm_up():
    unmeasured = [-1.0, 0.0, 0.0]
    assert (gradients(warmup_batches=0) == unmeasured).all()
    measured = gradients(warmup_batches=2)
    assert (measured > unmeasured).all()
    assert (measured[:, 1:] < 1).all()
    assert gradients(warmup_batches=2, devices=["cpu", "cpu"]) == pytest.approx(measured, abs=1e-4)
