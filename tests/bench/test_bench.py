"""What the benchmark times is what it says, and it says all it measured."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from kasmina_env.bench import as_json, measure, measure_growth, picture, tables
from kasmina_env.bench.floor import Machine, Work, work_of
from kasmina_env.bench.growth import cases
from kasmina_env.bench.measure import peak_of_this_process
from kasmina_env.bench.plain import PlainTraining
from kasmina_env.bench.vmapped import VmappedTraining
from kasmina_env.bench.workload import Lively, LivelyEnv, is_lively, lively_population

PRESET = "Kasmina/Spirals-v0"


@pytest.fixture(scope="module")
def measured():
    return measure(PRESET, [1, 3], repeats=2, num_steps=2, has_rivals=False, has_memory=False)


def test_the_lively_policy_fills_all_slots_of_all_networks_and_then_waits():
    env = lively_population(PRESET, 5)
    assert is_lively(env.episodes)
    assert (Lively(env.problem).act(env.action_masks()) == 0).all()


def test_a_horizon_too_short_to_fill_the_slots_is_named():
    with pytest.raises(RuntimeError, match=r"^`horizon` must leave time to fill all slots, got 3\. Make it longer\.$"):
        lively_population(PRESET, 2, horizon=3)


def test_a_single_environment_goes_back_to_where_its_slots_are_filled():
    env = LivelyEnv(PRESET, 0)
    env.fill()
    before = env.single.episodes.report.observation
    env.step(env.choose())
    assert not np.array_equal(env.single.episodes.report.observation, before)
    env.rewind()
    assert np.array_equal(env.single.episodes.report.observation, before)
    assert is_lively(env.single.episodes)


def test_training_by_hand_starts_from_the_network_of_the_environment_and_learns():
    env = LivelyEnv(PRESET, 0)
    env.fill()
    plain = PlainTraining(env)
    core = env.single.episodes.local
    loss, _ = core.population.evaluate(plain.watched, core.state().lifecycle.alpha.value)
    before = plain.evaluate()
    assert before[0] == pytest.approx(float(loss), abs=1e-5)
    assert len(before) == 2 + env.single.problem.num_slots
    for _ in range(5):
        plain.step()
    assert plain.evaluate()[0] < before[0]


def test_networks_under_vmap_train_as_one_by_hand_does():
    env = LivelyEnv(PRESET, 0)
    env.fill()
    plain, stacked = PlainTraining(env), VmappedTraining(env, 1)
    for _ in range(2):
        by_hand, under_vmap = plain.step(), stacked.step()
        assert len(by_hand) == len(under_vmap)
        num_losses = plain.config.batches_per_step
        assert under_vmap[: num_losses + 1] == pytest.approx(by_hand[: num_losses + 1], rel=1e-3)
        assert under_vmap[-1] == pytest.approx(by_hand[-1], rel=1e-3)


def test_the_engine_is_named_and_the_readable_one_timed_beside_it(measured, monkeypatch):
    pytest.importorskip("numba")
    assert measured.engine == "fused"
    assert [name for name in measured.rivals if "torch engine" in name] == ["1, torch engine", "3, torch engine"]
    monkeypatch.setenv("KASMINA_ENGINE", "torch")
    alone = measure(PRESET, [1], repeats=1, num_steps=1, has_rivals=False, has_memory=False)
    assert (alone.engine, alone.engine_reason, alone.rivals) == ("torch", "", {})


def test_every_part_of_a_step_is_timed_for_every_size(measured):
    assert list(measured.steps) == [1, 3]
    assert all(len(seconds) == 2 and (seconds > 0).all() for seconds in measured.steps.values())
    assert all((parts["train"] > 0).all() for parts in measured.parts.values())
    assert measured.work[3].flops > measured.work[1].flops > 0
    assert measured.per_network(3) == pytest.approx(np.median(measured.steps[3]) / 3)


def test_work_counts_arithmetic_and_traffic():
    left, right = torch.rand(2, 8, 8)
    work = work_of(partial(torch.matmul, left, right))
    assert work == Work(flops=2 * 8**3, num_bytes=3 * 8 * 8 * 4)
    machine = Machine(flops_per_second=512.0, bytes_per_second=256.0)
    assert (work.arithmetic(machine), work.traffic(machine)) == (2.0, 3.0)


@pytest.mark.parametrize("groups", [1, 64])
def test_the_backward_of_a_convolution_takes_twice_its_forward_whatever_its_groups(groups):
    x = torch.rand(4, 4 * groups, 8, 8, requires_grad=True)
    weight = torch.rand(8 * groups, 4, 3, 3, requires_grad=True)
    forward = work_of(lambda: torch.conv2d(x, weight, padding=1, groups=groups)).flops
    both = work_of(lambda: torch.conv2d(x, weight, padding=1, groups=groups).sum().backward()).flops
    assert forward == 2 * 4 * 8 * 8 * groups * 8 * 4 * 9
    assert both == 3 * forward


@pytest.mark.needs("matplotlib")
def test_all_repeats_are_written_as_json_and_drawn(measured, tmp_path):
    document = json.loads(as_json(measured))
    assert document["steps"]["3"] == measured.steps[3].tolist()
    picture([measured], tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.needs("matplotlib")
def test_a_picture_shows_every_rival(measured, tmp_path):
    many = {f"rival {number}": measured.steps[1] for number in range(9)}
    picture([replace(measured, rivals=many)], tmp_path / "bench.svg")
    drawn = (tmp_path / "bench.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {name} -->" in drawn for name in many)


def test_growth_changes_one_thing_at_a_time(measured):
    chosen, costs = cases(PRESET, 4), measure_growth(PRESET, 4, repeats=1)
    assert {cost.what for cost in costs} == {case.what for case in chosen}
    assert len({cost.what for cost in costs}) == 5
    assert all(cost.seconds > 0 for cost in costs)
    assert tables(measured, costs)[:-1] == tables(measured)
    assert len(tables(measured, costs)[-1].rows) == len(costs)


def test_populations_are_timed_in_workers_too():
    measured = measure(PRESET, [1, 3], 2, 1, has_rivals=False, has_memory=False, num_workers=2)
    assert list(measured.in_workers) == [3]
    assert len(measured.in_workers[3]) == 2
    assert (measured.in_workers[3] > 0).all()
    assert [row[0] for row in tables(measured)[0].rows] == ["1", "3", "3 in 2 workers"]
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_rivals_and_memory_are_measured_in_the_same_run(monkeypatch):
    monkeypatch.setenv("KASMINA_ENGINE", "torch")
    measured = measure(PRESET, [2], repeats=1, num_steps=1)
    assert [name.split("(")[0] for name in measured.rivals] == [
        "plain PyTorch",
        "torch.func.vmap",
        "single environment",
        "DummyVecEnv",
        "SubprocVecEnv",
    ]
    assert measured.memory[2] > 1e7


def test_a_process_has_a_peak_of_its_own():
    filled = np.ones(2**27)  # a gigabyte, touched
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        of_child = pool.submit(peak_of_this_process).result()
    assert 2**24 < of_child < peak_of_this_process() - filled.nbytes / 2
