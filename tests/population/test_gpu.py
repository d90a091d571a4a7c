"""On a GPU: the networks that the CPU trains, under the same rules, and nothing that waits inside a step."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from kasmina_env import KasminaEnv, KasminaVectorEnv
from kasmina_env.bench.workload import Lively, lively_population
from kasmina_env.population import Population
from tests.contract import every_host, mixed_population, samples, sync_debug_mode
from tests.episodes import ALWAYS_IDS, SMALL, digest, play_lively

GPU = "cuda:0"
RECORDED = {**SMALL, "batches_per_step": 6}  # minibatches enough for a recording to be made of one
every_id = pytest.mark.parametrize("env_id", (*ALWAYS_IDS, "Kasmina/Text-v0"))


def figures(population: Population, alpha, host) -> list[torch.Tensor]:
    """All that six minibatches and an evaluation make known, and the weights behind them, on the CPU."""
    data = samples(host, 30).to(population.setting.device, torch.float64)
    off = np.random.default_rng(0).random((2, *alpha.shape)) < 0.5
    loss, health = population.train(*population.draw_minibatches(data, 6, 4), alpha)
    found = [loss, *vars(health).values(), *population.evaluate(data, alpha, off)]
    for row in range(population.num_networks):
        found += population.network(row, alpha[row]).state_dict().values()
    return [figure.cpu() for figure in found]


@pytest.mark.gpu
@every_host
def test_networks_train_as_on_the_cpu(host):
    on_cpu, on_gpu = (figures(*mixed_population(host, torch.float64, device=d), host) for d in ("cpu", GPU))
    assert len(on_gpu) > 20
    for wanted, found in zip(on_cpu, on_gpu, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.gpu
@pytest.mark.parametrize("env_id", ALWAYS_IDS)
def test_the_environment_conforms(env_id):
    check_env(KasminaEnv(env_id, device=GPU, **RECORDED), skip_render_check=True)


@pytest.mark.gpu
@every_id
def test_seed_gives_the_same_episode_again(env_id):
    first, second = (digest(play_lively(KasminaEnv(env_id, device=GPU, **RECORDED), seed=5)) for _ in range(2))
    assert first == second


@pytest.mark.gpu
@every_id
def test_a_snapshot_is_the_future_bit_for_bit(env_id):
    env = KasminaVectorEnv(4, env_id, device=GPU, **RECORDED)
    policy = Lively(env.problem)
    env.reset(seed=3)
    env.step(policy.act(env.action_masks()))
    saved = env.snapshot()
    futures = []
    for _ in range(2):
        env.restore(saved)
        futures.append([digest(env.step(np.zeros(4, dtype=np.int64))[:2]) for _ in range(3)])
    assert futures[0] == futures[1]


@pytest.mark.gpu
@pytest.mark.parametrize("env_id", ALWAYS_IDS)
def test_shards_on_a_gpu_live_the_life_of_one_population(env_id):
    pair = [
        KasminaVectorEnv(5, env_id, dtype="float64", **where, **RECORDED)
        for where in ({"device": GPU}, {"devices": [GPU] * 2})
    ]
    policy = Lively(pair[0].problem)
    seen = [env.reset(seed=1)[0] for env in pair]
    for _ in range(4):
        np.testing.assert_allclose(*seen, rtol=0, atol=1e-6)
        actions = policy.act(pair[0].action_masks())
        seen = [env.step(actions)[0] for env in pair]


@pytest.mark.gpu
@every_host
def test_recorded_minibatches_do_what_launched_ones_do_bit_for_bit(host):
    pair = [mixed_population(host, torch.float64, device=GPU) for _ in range(2)]
    pair[1][0].setting.recordings.is_on = False
    recorded, launched = (figures(population, alpha, host) for population, alpha in pair)
    assert pair[0][0].setting.recordings.num_made == 1
    torch.testing.assert_close(recorded, launched, rtol=0, atol=0, equal_nan=True)


@pytest.mark.gpu
@every_host
def test_a_snapshot_fits_into_another_population_after_pickling(host):
    """Though a recording was made, which cannot be pickled."""
    population, alpha = mixed_population(host, torch.float64, device=GPU)
    figures(population, alpha, host)
    saved = pickle.loads(pickle.dumps(population.snapshot()))
    other = Population(host, range(population.num_networks), dtype=torch.float64, device=GPU)
    other.restore(saved)
    pair = (figures(p, alpha, host) for p in (other, population))
    torch.testing.assert_close(*pair, rtol=0, atol=0, equal_nan=True)


@pytest.mark.gpu
@every_id
def test_a_step_waits_for_the_device_once(env_id):
    """Figures come back in one transfer; nothing else makes the host wait."""
    env = lively_population(env_id, 6, device=GPU)
    with warnings.catch_warnings(record=True) as caught, sync_debug_mode("warn"):
        warnings.simplefilter("always")
        env.step(np.zeros(6, dtype=np.int64))
    waits = [str(w.message) for w in caught if "called a synchronizing" in str(w.message)]
    assert len(waits) == 1, waits
