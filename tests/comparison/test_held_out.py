"""Nothing is tuned on evaluation seeds or test instances: what searching, training and comparing really play."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from kasmina_env import KasminaVectorEnv, make_problem
from kasmina_env.comparison.arms import compare_arms
from kasmina_env.controllers.halving import Effort, Round
from kasmina_env.controllers.policy import HELD_OUT, MAX_SEED
from kasmina_env.controllers.search import search, search_contexts
from kasmina_env.learning.train import train
from kasmina_env.learning.training_config import TrainingConfig

MIX = "Kasmina/DigitsMix-v0"
TINY = Effort(num_structured=2, num_random=1, rounds=(Round(3, 0, 2), Round(1, 1, 2)))
SMALL = {"horizon": 4, "batches_per_step": 1, "batch_size": 4, "watch_samples": 8, "score_samples": 8}
FEW = {"batch_size": 16}


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[set[int], set[int]]]:
    """Seeds that environments are reset with, and instances of all their episodes, as they are played."""
    seeds: set[int] = set()
    instances: set[int] = set()
    reset, step = KasminaVectorEnv.reset, KasminaVectorEnv.step

    def see_reset(env, *, seed=None, options=None):
        seeds.update([] if seed is None else np.atleast_1d(seed).tolist())
        return reset(env, seed=seed, options=options)

    def see_step(env, actions):
        instances.update(env.episodes.state().instance.tolist())
        return step(env, actions)

    with monkeypatch.context() as patch:
        patch.setattr(KasminaVectorEnv, "reset", see_reset)
        patch.setattr(KasminaVectorEnv, "step", see_step)
        yield seeds, instances


def split(name: str) -> set[int]:
    return set(make_problem(MIX).instances.split(name).tolist())


def test_searching_plays_training_seeds_and_training_instances(monkeypatch):
    with watched(monkeypatch) as (seeds, instances):
        search(make_problem(MIX, **SMALL), effort=TINY)
        search_contexts(make_problem(MIX, **SMALL), facts=["param_price"], effort=TINY)
    assert max(seeds) < MAX_SEED < HELD_OUT
    assert len(instances) > 5
    assert instances <= split("train")


def test_training_plays_training_seeds_and_training_instances(monkeypatch, tmp_path):
    config = TrainingConfig(MIX, total_steps=64, num_envs=4, settings=SMALL, hyperparameters=FEW)
    with watched(monkeypatch) as (seeds, instances):
        train(config, tmp_path / "run")
    assert max(seeds) < MAX_SEED < HELD_OUT
    assert len(instances) > 5
    assert instances <= split("train")


def test_runs_with_neighbouring_seeds_share_no_episode(monkeypatch, tmp_path):
    played: list[int] = []
    for seed in range(3):
        config = TrainingConfig(MIX, total_steps=16, num_envs=4, seed=seed, settings=SMALL, hyperparameters=FEW)
        with watched(monkeypatch) as (seeds, _):
            train(config, tmp_path / str(seed))
        played += seeds if len(seeds) == 4 else [first + row for first in seeds for row in range(4)]
    assert len(played) == len(set(played)) == 12


def test_choosing_training_settings_plays_neither_training_seeds_nor_held_out_ones(monkeypatch):
    with watched(monkeypatch) as (seeds, instances):
        compare_arms(MIX, {"wait": ["wait"]}, 8, split="train", **SMALL)
    assert MAX_SEED <= min(seeds) <= max(seeds) < HELD_OUT
    assert instances <= split("train")


def test_comparing_plays_held_out_seeds_and_test_instances(monkeypatch):
    with watched(monkeypatch) as (seeds, instances):
        compare_arms(MIX, {"wait": ["wait"]}, 8, **SMALL)
    assert min(seeds) >= HELD_OUT
    assert instances <= split("test")
    assert not split("train") & split("test")
