"""A population in processes is the same population, and says so when it loses one."""

from __future__ import annotations

import multiprocessing
from functools import partial

import numpy as np
import pytest
import torch

from kasmina_env import KasminaVectorEnv
from kasmina_env.population import Population, WorkerPopulation, place_population
from kasmina_env.population.worker import MOST_UNANSWERED
from kasmina_env.settings.config import Operator
from tests.contract import HOSTS_UNDER_TEST, are_identical, blueprints_for, samples
from tests.population.test_sharded import life

CPU, HOST = torch.device("cpu"), HOSTS_UNDER_TEST["cnn"]
NAMES = blueprints_for(HOST.topology)


def recipe(rows, device):
    return partial(Population, HOST, rows.tolist(), device=device, dtype=torch.float64)


@pytest.fixture
def workers():
    population = place_population([CPU, CPU], 7, recipe, has_workers=True)
    yield population
    population.close()


def test_workers_live_the_life_of_one_population(workers):
    whole = recipe(np.arange(7), CPU)()
    for population in (whole, workers):
        population.germinate([6, 0, 3], 0, NAMES[0], Operator.MULTIPLY, in_training=False)
        population.germinate([1, 4], 1, NAMES[1], Operator.GATE)
    alpha = np.random.default_rng(1).uniform(0.1, 1.0, (7, len(HOST.slots)))
    pairs = list(zip(life(whole, HOST, alpha), life(workers, HOST, alpha), strict=True))
    assert len(pairs) > 20
    for wanted, found in pairs:
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10, equal_nan=True)


def test_a_snapshot_of_workers_brings_back_every_row_bit_for_bit(workers):
    workers.germinate([1, 6], 0, NAMES[0], Operator.GATE, in_training=False)
    alpha, data = np.ones((7, len(HOST.slots))), samples(HOST, 30, torch.float64)
    saved = workers.snapshot()
    first = workers.train(*workers.draw_minibatches(data, 2, 4), alpha)[0]
    workers.restore(saved)
    assert are_identical([workers.train(*workers.draw_minibatches(data, 2, 4), alpha)[0]], [first])


def test_minibatches_that_nobody_holds_are_dropped_and_others_may_be_trained_on_again(workers):
    data, alpha = samples(HOST, 30, torch.float64), np.zeros((7, len(HOST.slots)))
    batches, start = workers.draw_minibatches(data, 1, 4), workers.snapshot()
    first = workers.train(*batches, alpha)[0]
    for _ in range(3 * MOST_UNANSWERED):
        workers.draw_minibatches(data, 1, 4)
    workers.restore(start)
    assert are_identical([workers.train(*batches, alpha)[0]], [first])
    assert all(len(shard._numbers.known) == 3 for shard in workers.shards)  # data and these batches


def test_what_is_wrong_is_said_as_by_a_population_in_this_process_before_anything_is_done_on_top_of_it(workers):
    data, alpha = samples(HOST, 30, torch.float64), np.zeros((7, len(HOST.slots)))
    batches, start = workers.draw_minibatches(data, 1, 4), workers.snapshot()
    first = workers.train(*batches, alpha)[0]
    workers.restore(start)
    workers.germinate([5], 0, NAMES[0], Operator.ADD)
    workers.germinate([5], 0, NAMES[0], Operator.ADD)  # the process is not waited for
    with pytest.raises(ValueError, match=r"^`rows` must have no seed in slot 0, got \[1\], which do\. "):
        workers.shards[1].train(batches[0][1], batches[1][1], alpha[4:])
    workers.remove([5], 0)
    assert are_identical([workers.train(*batches, alpha)[0]], [first])
    workers.germinate([5], 0, NAMES[0], Operator.ADD)


def test_a_process_that_dies_is_reported_in_one_sentence():
    population = WorkerPopulation(recipe(np.arange(2), CPU))
    (child,) = multiprocessing.active_children()
    child.kill()
    child.join()
    with pytest.raises(RuntimeError, match=r"^`num_workers` must be processes that stay alive, got one .* code -9\. "):
        population.snapshot()
    population.close()


def test_processes_end_with_their_environment():
    env = KasminaVectorEnv(3, "Kasmina/Spirals-v0", num_workers=2)
    env.reset(seed=0)
    env.step(np.zeros(3, dtype=np.int64))
    assert len(multiprocessing.active_children()) == 2
    env.close()
    env.core.close()  # and may be closed again
    assert multiprocessing.active_children() == []


def test_processes_that_are_busy_when_they_are_closed_say_nothing(capfd):
    population = WorkerPopulation(recipe(np.arange(2), CPU))
    for _ in range(20):
        population.draw_minibatches(samples(HOST, 30, torch.float64), 20, 4)
    population.close()
    assert multiprocessing.active_children() == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("settings", [{"num_workers": 4}, {"num_workers": 2, "devices": ["cpu", "cpu"]}])
def test_workers_that_have_nothing_to_do_are_refused(settings):
    with pytest.raises(ValueError, match=r"^`num_workers` must be 1 on devices other than one CPU, and at most the 3 "):
        KasminaVectorEnv(3, "Kasmina/Spirals-v0", **settings)


def test_a_call_that_was_interrupted_leaves_no_answer_to_the_next_one(workers, monkeypatch):
    shard = workers.shards[0]

    class Interrupted:
        def __getattr__(self, name):
            return getattr(pipe, name)

        def recv_bytes(self):
            raise KeyboardInterrupt

    pipe = shard._pipe
    monkeypatch.setattr(shard, "_pipe", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        shard.snapshot()
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="`num_workers` must be processes that stay alive"):
        shard.snapshot()
