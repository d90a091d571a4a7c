"""On real data it matters what grows, where, and when. With -s the slow tests print their tables."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kasmina_env import KasminaVectorEnv, make_problem
from kasmina_env.controllers.policy import Played, play
from kasmina_env.controllers.schedule import Fixed, Plan, Planned, actions_of
from kasmina_env.lifecycle.arrays import take_rows

pytestmark = pytest.mark.timeout(3600)  # minutes on an idle core, and cores are shared
NUM_SEEDS = 8
BLOCKS, LAYERS = ("block0", "block1", "block2"), ("layer0", "layer1")


def plan(blueprint: str, slots: tuple[str, ...], start: int = 0) -> Plan:
    return tuple(Planned(start, slot, blueprint, "ADD", 3) for slot in slots)


PICTURE_PLANS = {
    "wait": (),
    "pointwise everywhere": plan("pointwise", BLOCKS),
    "norm everywhere": plan("norm", BLOCKS),
    "depthwise at block0": plan("depthwise", ("block0",)),
    "depthwise at block1": plan("depthwise", ("block1",)),
    "depthwise at block2": plan("depthwise", ("block2",)),
    "depthwise at block1 and block2": plan("depthwise", ("block1", "block2")),
    "depthwise everywhere": plan("depthwise", BLOCKS),
    "depthwise everywhere, half way": plan("depthwise", BLOCKS, start=15),
    "depthwise everywhere, 8 steps before the end": plan("depthwise", BLOCKS, start=22),
    "conv_light everywhere": plan("conv_light", BLOCKS),
}
TEXT_PLANS = {
    "wait": (),
    "shift at layer0": plan("shift", ("layer0",)),
    "shift at layer1": plan("shift", ("layer1",)),
    "shift everywhere": plan("shift", LAYERS),
    "shift everywhere, half way": plan("shift", LAYERS, start=15),
    "attention at layer0": plan("attention", ("layer0",)),
    "mlp_small everywhere": plan("mlp_small", LAYERS),
}


def play_plans(env_id: str, plans: dict[str, Plan]) -> dict[str, Played]:
    """Every plan on the same seeds, all side by side."""
    env = KasminaVectorEnv(len(plans) * NUM_SEEDS, env_id)
    actions = [actions_of(plan, env.problem) for plan in plans.values()]
    policy = Fixed(env.problem, np.repeat(actions, NUM_SEEDS, axis=0))
    played = play(env, policy, np.tile(np.arange(NUM_SEEDS), len(plans)))
    assert not played.illegal.any()
    parts = {name: np.arange(NUM_SEEDS) + i * NUM_SEEDS for i, name in enumerate(plans)}
    return {name: take_rows(played, rows) for name, rows in parts.items()}


def summary(values) -> str:
    return f"{values.mean():.3f} ({values.std(ddof=1):.3f})"


def standard_error(values) -> float:
    """Of a mean over the seeds."""
    return values.std(ddof=1) / NUM_SEEDS**0.5


def print_table(played: dict[str, Played]) -> None:
    for name, part in played.items():
        figures = (summary(v) for v in (part.returns, part.scores, part.test_accuracies))
        print(f"{name:44} {' '.join(figures)} {part.param_growths.mean():+.0%} {part.computes.mean():+.0%}")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("env_id", ["Kasmina/FashionMNIST-v0", "Kasmina/CIFAR10-v0"])
def test_what_where_and_when_matter_on_real_pictures(env_id):
    played = play_plans(env_id, PICTURE_PLANS)
    print_table(played)
    mean = {name: part.returns.mean() for name, part in played.items()}
    noise = max(standard_error(part.returns) for part in played.values())
    assert mean["depthwise everywhere"] > mean["wait"] + 5 * noise  # growing pays
    assert mean["depthwise everywhere"] > mean["pointwise everywhere"] + 5 * noise  # what
    assert mean["depthwise at block2"] > mean["depthwise at block0"] + 2 * noise  # where
    assert mean["depthwise everywhere"] > mean["depthwise everywhere, half way"] + 2 * noise  # when


@pytest.fixture(scope="module")
def text() -> dict[str, Played]:
    played = play_plans("Kasmina/Text-v0", TEXT_PLANS)
    print_table(played)
    return played


def bits_per_character(part: Played):
    """Of the committed networks on outer_valid and on test, each [E]."""
    config = make_problem("Kasmina/Text-v0").config
    quality = part.scores + config.param_price * np.log2(1 + part.param_growths)
    symbols = math.log2(config.host_settings["num_classes"])
    return (1 - quality) * symbols, (1 - part.test_accuracies) * symbols


@pytest.mark.slow
def test_a_text_model_left_alone_improves_steadily(text):
    """While it waits its score is its quality, so bits per character follow from the curve."""
    bits = (1 - text["wait"].curves) * math.log2(97)  # [E, T + 1]
    looks = bits[:, 1:-1:7]  # the first score and the last are measured on more samples than those between
    print("bits per character while waiting, every 7 steps:", np.round(looks.mean(axis=0), 2))
    assert (np.diff(looks.mean(axis=0)) < 0).all()
    assert (np.diff(looks, axis=1)[:, :2] < 0).all()  # of every network, while it learns fast


@pytest.mark.slow
def test_growing_improves_a_text_model_further(text):
    for name, part in text.items():
        print(f"{name:28} bits per character {' '.join(summary(bits) for bits in bits_per_character(part))}")
    left_alone, grown = (bits_per_character(text[name]) for name in ("wait", "shift everywhere"))
    for before, after in zip(left_alone, grown, strict=True):  # on outer_valid, and on test
        assert (before - after).mean() > 10 * standard_error(before - after)


@pytest.mark.slow
def test_what_where_and_when_matter_on_text(text):
    mean = {name: part.returns.mean() for name, part in text.items()}
    noise = max(standard_error(part.returns) for part in text.values())
    best = max(mean["shift at layer0"], mean["shift everywhere"])
    assert best > mean["wait"] + 5 * noise  # growing pays
    assert best > mean["mlp_small everywhere"] + 5 * noise  # what
    assert mean["shift at layer0"] > mean["shift at layer1"] + 2 * noise  # where
    assert mean["shift everywhere"] > mean["shift everywhere, half way"] + 2 * noise  # when
