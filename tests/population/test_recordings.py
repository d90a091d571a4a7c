"""Recordings are found again wherever the same kernels run, and what is replayed is what would have been launched."""

from __future__ import annotations

import pickle
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from kasmina_env import KasminaEnv, KasminaVectorEnv
from kasmina_env.bench.workload import Lively
from kasmina_env.population import Population
from kasmina_env.population.cuda_graph import CudaGraphs
from kasmina_env.population.recordings import FEWEST, Recordings
from kasmina_env.settings.config import Operator
from tests.contract import (
    HOSTS_UNDER_TEST,
    are_identical,
    blueprints_for,
    every_host,
    mixed_population,
    samples,
    stacks,
)
from tests.episodes import SMALL, WAIT, digest
from tests.population.operation_tape import OperationTape

MLP = HOSTS_UNDER_TEST["mlp"]
FIRST, SECOND, *_ = blueprints_for("vector")
RECORDED = {**SMALL, "batches_per_step": FEWEST}
every_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])


def recordings_of(population: Population, is_on: bool = True) -> Recordings:
    """The recordings of a population, made on a CPU too."""
    recordings = population.setting.recordings
    recordings.graphs, recordings.is_on = recordings.graphs or OperationTape(), is_on
    return recordings


def figures(population: Population, alpha: np.ndarray | float = 0.5, num_batches: int = FEWEST, batch_size: int = 3):
    """Figures of a step, and every number of the networks behind it."""
    setting = population.setting
    data = samples(setting.host, 20).to(setting.device, setting.dtype)
    alpha = np.broadcast_to(alpha, (population.num_networks, population.num_slots)).copy()
    loss, health = population.train(*population.draw_minibatches(data, num_batches, batch_size), alpha)
    return [loss, *vars(health).values(), *stacks(population)]


def grown(device: str, is_on: bool) -> Population:
    """Three networks, two of them with seeds, trained for one step."""
    population = Population(MLP, range(3), device=device, engine="torch")
    recordings_of(population, is_on)
    germinate(population, live=2, training=0)
    figures(population)
    return population


def germinate(population: Population, live: int, training: int) -> None:
    population.germinate([live], 0, FIRST, Operator.ADD, in_training=False)
    population.germinate([training], 0, SECOND, Operator.GATE)
    population.germinate([live], 1, FIRST, Operator.MULTIPLY, in_training=False)


def swap_rows(population: Population) -> None:
    population.restore(population.snapshot([2, 1]), [1, 2])


def live_again(population: Population) -> None:
    """All rows are reset, and other rows grow the same seeds."""
    population.reset_rows(range(3), [7, 8, 9])
    germinate(population, live=1, training=0)


# What happens between two steps, how the second one differs, and whether it finds the recording of the first.
STEPS = {
    "nothing": (lambda population: None, {}, True),
    "other amplitudes": (lambda population: None, {"alpha": 0.25}, True),
    "more minibatches": (lambda population: None, {"num_batches": FEWEST + 3}, True),
    "one minibatch": (lambda population: None, {"num_batches": 1}, True),
    "another rate": (lambda population: population.learning_rate.fill(0.5), {}, True),
    "storage that moves": (lambda population: population.restore(population.snapshot()), {}, True),
    "rows that change places": (swap_rows, {}, True),
    "new lives": (live_again, {}, True),
    "a larger minibatch": (lambda population: None, {"batch_size": 4}, False),
    "a seed more": (lambda population: population.germinate([1], 0, FIRST, Operator.ADD), {}, False),
    "a seed fewer": (lambda population: population.remove([2], 0), {}, False),
    "a seed that connects": (lambda population: population.connect([0], 0), {}, False),
    "another copy": (lambda population: population.copy_rows([2], [1]), {}, False),
}


@every_device
@pytest.mark.parametrize("change, words, is_found", STEPS.values(), ids=STEPS)
def test_a_step_finds_a_recording_exactly_where_it_runs_the_same_kernels(change, words, is_found, device):
    recorded, launched = (grown(device, is_on) for is_on in (True, False))
    for population in (recorded, launched):
        change(population)
    assert are_identical(figures(recorded, **words), figures(launched, **words))
    recordings = recordings_of(recorded)
    assert (recordings.num_made, recordings.num_found) == ((1, 1) if is_found else (2, 0))
    assert are_identical(figures(recorded), figures(launched))


@every_device
@every_host
def test_replayed_steps_are_launched_ones_bit_for_bit(host, device):
    (recorded, alpha), (launched, _) = (mixed_population(host, device=device, engine="torch") for _ in range(2))
    recordings, _ = recordings_of(recorded), recordings_of(launched, is_on=False)
    for factor in (1.0, 0.9, 0.5):
        assert are_identical(figures(recorded, factor * alpha), figures(launched, factor * alpha))
    assert (recordings.num_made, recordings.num_found) == (1, 2)


@every_device
def test_a_few_minibatches_are_not_recorded(device):
    population = Population(MLP, range(3), device=device, engine="torch")
    recordings = recordings_of(population)
    figures(population, num_batches=FEWEST - 1)
    assert (len(recordings), recordings.num_made) == (0, 0)


# ── episodes ────────────────────────────────────────────────────────────────────────────────────


@every_device
def test_a_single_environment_that_waits_records_once(device):
    env = KasminaEnv("Kasmina/Spirals-v0", engine="torch", device=device, **RECORDED)
    env.reset(seed=0)
    recordings = recordings_of(env.episodes.local.population)
    for _ in range(env.problem.horizon):
        env.step(WAIT)
    env.reset(seed=1)
    env.step(WAIT)
    assert (recordings.num_made, recordings.num_found) == (1, env.problem.horizon)


@every_device
def test_lively_episodes_are_the_same_recorded_or_not(device):
    envs = [KasminaVectorEnv(3, "Kasmina/Spirals-v0", engine="torch", device=device, **RECORDED) for _ in range(2)]
    seen = [env.reset(seed=4)[0] for env in envs]
    recordings, _ = (
        recordings_of(env.episodes.local.population, is_on) for env, is_on in zip(envs, (True, False), strict=True)
    )
    policy = Lively(envs[0].problem)
    for step in range(14):
        actions = policy.act(envs[0].action_masks()) if step % 2 else np.full(3, WAIT)
        seen = [env.step(actions)[:4] for env in envs]
        assert digest(seen[0]) == digest(seen[1])
    assert recordings.num_made > 3
    assert recordings.num_found > 3


# ── what is kept ────────────────────────────────────────────────────────────────────────────────


def repeat(recordings: Recordings, kernels: str, size: int = 4) -> None:
    """Four calls of a function that adds to a sum."""
    total = torch.zeros(size)
    recordings.repeat(lambda x: total.add_(x).clone(), [(torch.ones(size),)] * 4, kernels, [total])
    assert total.tolist() == [4.0] * size


def test_the_recording_that_was_not_used_for_longest_goes_first():
    recordings = Recordings(OperationTape(), most=2)
    for kernels in "abacab":
        repeat(recordings, kernels)
    assert (len(recordings), recordings.num_made, recordings.num_found) == (2, 4, 2)


def test_recordings_are_kept_up_to_a_number_of_bytes_and_the_last_in_any_case():
    recordings = Recordings(OperationTape(), most_bytes=3 * 32)  # of two tensors of four numbers each
    for kernels in "abcd":
        repeat(recordings, kernels)
    assert len(recordings) == 3
    repeat(recordings, "large", size=100)
    assert len(recordings) == 1


def test_copies_begin_without_recordings():
    recordings = Recordings(OperationTape(), is_on=False, most=3)
    recordings.is_on = True
    repeat(recordings, "a")
    for copied in (deepcopy(recordings), pickle.loads(pickle.dumps(recordings))):
        assert (len(copied), copied.num_made, copied.most, copied.is_on) == (0, 0, 3, True)


def test_graphs_leave_their_process_without_what_cannot():
    """Stream and graph of a GPU cannot be pickled; an open file stands for them."""
    graphs = CudaGraphs(torch.device("cuda"))
    with Path(__file__).open() as graphs._stream:
        graphs._newest = graphs._stream
        for copied in (pickle.loads(pickle.dumps(graphs)), deepcopy(graphs)):
            assert vars(copied) == vars(CudaGraphs(torch.device("cuda")))


def test_nothing_is_recorded_where_recordings_are_off():
    recordings = Recordings(OperationTape(), is_on=False)
    repeat(recordings, "a")
    repeat(recordings, "a")
    assert (len(recordings), recordings.num_found) == (0, 0)


def test_the_tape_replays_operations_and_no_python():
    """As a graph does; otherwise the tests above would compare a step with itself."""
    x, factors = torch.ones(2), [2.0]
    replay = OperationTape().record(lambda: x * factors[0])
    x.fill_(5.0)
    factors[0] = 3.0
    assert replay().tolist() == [10.0, 10.0]
