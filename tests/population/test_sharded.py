"""A population cut over several devices is the same population."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from kasmina_env import KasminaVectorEnv
from kasmina_env.bench.workload import Lively
from kasmina_env.population import Population, ShardedPopulation
from kasmina_env.settings.config import Operator
from tests.contract import HOSTS_UNDER_TEST, are_identical, blueprints_for, every_host, samples

CPU = torch.device("cpu")


def both(host, num_networks: int = 7, num_shards: int = 3) -> tuple[Population, ShardedPopulation]:
    """The same networks, with the same seeds grown, whole and in shards."""

    def make(rows, device) -> Population:
        return Population(host, rows.tolist(), device=device, dtype=torch.float64)

    pair = make(np.arange(num_networks), CPU), ShardedPopulation([CPU] * num_shards, num_networks, make)
    for population in pair:
        for slot, name in zip(range(len(host.slots)), blueprints_for(host.topology), strict=False):
            population.germinate([6, 0, 3], slot, name, Operator(slot % 3), in_training=False)
            population.germinate([1, 4], slot, name, Operator.GATE)
    return pair


def life(population, host, alpha) -> list[torch.Tensor]:
    """Train, evaluate, move rows about, train again; all that is then known."""
    data, off = samples(host, 30, torch.float64), np.random.default_rng(0).random((2, *alpha.shape)) < 0.5
    results = []
    for _ in range(2):
        loss, health = population.train(*population.draw_minibatches(data, 2, 4), alpha)
        results += [loss, *vars(health).values()]
        population.copy_rows([6, 1, 1], [0, 5, 2])
        population.reset_rows([4, 3], [40, 30])
        population.connect([1], 0)
        population.remove([6], 0)
    results += [*population.evaluate(data, alpha, off), *population.evaluate(data, alpha, off, [5, 0, 6])]
    return [*results, *(p for row in range(7) for p in population.network(row, alpha[row]).state_dict().values())]


@every_host
def test_shards_live_the_life_of_one_population(host):
    whole, sharded = both(host)
    alpha = np.random.default_rng(1).uniform(0.1, 1.0, (7, len(host.slots)))
    pairs = list(zip(life(whole, host, alpha), life(sharded, host, alpha), strict=True))
    assert len(pairs) > 20
    for wanted, found in pairs:
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10, equal_nan=True)


def test_a_snapshot_of_shards_brings_back_every_row():
    host = HOSTS_UNDER_TEST["cnn"]
    _, sharded = both(host)
    alpha, data = np.ones((7, len(host.slots))), samples(host, 30, torch.float64)
    saved = sharded.snapshot()
    first = sharded.train(*sharded.draw_minibatches(data, 2, 4), alpha)[0]
    sharded.restore(saved)
    assert are_identical([sharded.train(*sharded.draw_minibatches(data, 2, 4), alpha)[0]], [first])


def test_episodes_on_several_devices_are_those_on_one():
    one, two = (KasminaVectorEnv(5, "Kasmina/Spirals-v0", devices=devices) for devices in ((), ("cpu", "cpu")))
    for env in (one, two):
        env.reset(seed=3)
    policies = [Lively(env.action_names) for env in (one, two)]
    for _ in range(one.problem.config.horizon + 2):
        actions = [policy.act(env.action_masks()) for policy, env in zip(policies, (one, two), strict=True)]
        assert (actions[0] == actions[1]).all()
        results = [env.step(chosen) for env, chosen in zip((one, two), actions, strict=True)]
        assert (results[0][2] == results[1][2]).all()
        np.testing.assert_allclose(results[0][0], results[1][0], atol=2e-2)
    assert isinstance(two.episodes.local.population, ShardedPopulation)


@pytest.mark.parametrize("num_shards", [0, 8])
def test_more_devices_than_networks_are_refused(num_shards):
    with pytest.raises(ValueError, match=r"^`devices` must be between one and as many as the 7 networks, got \d\. "):
        both(HOSTS_UNDER_TEST["mlp"], num_shards=num_shards)


def test_rows_that_do_not_exist_are_named():
    _, sharded = both(HOSTS_UNDER_TEST["mlp"])
    with pytest.raises(ValueError, match=r"^`rows` must lie between 0 and 6, got \[7\]\. Name rows that exist\.$"):
        sharded.connect([7], 0)


def test_no_shard_goes_on_after_another_has_failed():
    _, population = both(HOSTS_UNDER_TEST["cnn"])
    finished = []

    def work(share, shard):
        if share.shard == 0:
            raise ValueError("wrong")
        time.sleep(0.2)
        finished.append(share.shard)

    with pytest.raises(ValueError, match="wrong"):
        population._run(work)
    assert sorted(finished) == [1, 2]
