"""On real pictures it matters what grows, where, and when. With -s the slow test prints the table."""

from __future__ import annotations

import numpy as np
import pytest

from agents.policy import Episodes, make_env, names_of, play
from agents.schedule import Fixed, Planned, actions_of

SLOTS = ("block0", "block1", "block2")
NUM_SEEDS = 8


def plan(blueprint: str, slots=SLOTS, start: int = 0) -> tuple[Planned, ...]:
    return tuple(Planned(start, slot, blueprint, "ADD", 3) for slot in slots)


PLANS = {
    "wait": (),
    "pointwise everywhere": plan("pointwise"),
    "norm everywhere": plan("norm"),
    "depthwise at block0": plan("depthwise", ("block0",)),
    "depthwise at block1": plan("depthwise", ("block1",)),
    "depthwise at block2": plan("depthwise", ("block2",)),
    "depthwise at block1 and block2": plan("depthwise", ("block1", "block2")),
    "depthwise everywhere": plan("depthwise"),
    "depthwise everywhere, half way": plan("depthwise", start=15),
    "depthwise everywhere, 8 steps before the end": plan("depthwise", start=22),
    "conv_light everywhere": plan("conv_light"),
}


def play_plans(env_id: str) -> dict[str, Episodes]:
    """Every plan on the same seeds, all side by side."""
    env = make_env(env_id, len(PLANS) * NUM_SEEDS)
    names, rules = names_of(env), env.core.config
    actions = [actions_of(p, names, rules.min_training_steps, rules.instant) for p in PLANS.values()]
    policy = Fixed(names, np.repeat(actions, NUM_SEEDS, axis=0))
    episodes = play(env, policy, np.tile(np.arange(NUM_SEEDS), len(PLANS)))
    assert not episodes.illegal.any()
    parts = {name: np.arange(NUM_SEEDS) + i * NUM_SEEDS for i, name in enumerate(PLANS)}
    return {name: Episodes(*(column[rows] for column in vars(episodes).values())) for name, rows in parts.items()}


def summary(values) -> str:
    return f"{values.mean():.3f} ({values.std(ddof=1):.3f})"


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["Kasmina/FashionMNIST-v0", "Kasmina/CIFAR10-v0"])
def test_what_where_and_when_matter_on_real_pictures(env_id):
    played = play_plans(env_id)
    for name, part in played.items():
        figures = (summary(v) for v in (part.returns, part.scores, part.test_accuracies))
        print(f"{name:44} {' '.join(figures)} {part.param_growths.mean():+.0%} {part.computes.mean():+.0%}")
    mean = {name: part.returns.mean() for name, part in played.items()}
    noise = max(part.returns.std(ddof=1) for part in played.values()) / NUM_SEEDS**0.5
    assert mean["depthwise everywhere"] > mean["wait"] + 5 * noise  # growing pays
    assert mean["depthwise everywhere"] > mean["pointwise everywhere"] + 5 * noise  # what
    assert mean["depthwise at block2"] > mean["depthwise at block0"] + 2 * noise  # where
    assert mean["depthwise everywhere"] > mean["depthwise everywhere, half way"] + 2 * noise  # when
