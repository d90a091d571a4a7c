"""Evaluation under any on/off settings: fused and shared, and still what each network alone would say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kasmina_env.networks.layers import split_logits
from kasmina_env.population import Population
from kasmina_env.population.evaluate import make_versions
from kasmina_env.settings.config import Operator
from kasmina_env.tasks import Split, classify
from tests.contract import (
    HOSTS_UNDER_TEST,
    TOLERANCE,
    are_identical,
    blueprints_for,
    every_host,
    kinds,
    mixed_population,
    plain_network,
    samples,
    stacks,
    without,
)


def random_settings(population: Population, num_settings: int = 5, seed: int = 0):
    """Settings ``[M, N, S]`` with everything on first, then at random; the last two agree with it on the first slot."""
    shape = (num_settings, population.num_networks, population.num_slots)
    off = np.random.default_rng(seed).random(shape) < 0.5
    off[0] = False
    off[-2:, :, 0] = False
    return off


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@every_host
def test_every_setting_of_every_row_is_that_of_a_plain_network(host, dtype):
    population, alpha = mixed_population(host, dtype, num_networks=None if dtype is torch.float64 else 9)
    data, off = samples(host, dtype=dtype), random_settings(population)
    loss, quality = population.evaluate(data, alpha, off)
    assert loss.shape == quality.shape == off.shape[:2]
    plain = [plain_network(population, alpha, row).eval() for row in range(population.num_networks)]
    for setting, row in np.ndindex(*loss.shape):
        with torch.no_grad():
            logits = without(plain[row], off[setting, row])(data.x)
        plain_loss, is_correct = classify(logits.unsqueeze(-2), data.y.unsqueeze(1))
        assert abs(loss[setting, row] - plain_loss.mean()) <= TOLERANCE[dtype]
        assert abs(quality[setting, row] - is_correct.mean()) <= TOLERANCE[dtype]


@every_host
def test_settings_evaluated_together_are_those_evaluated_alone(host):
    population, alpha = mixed_population(host, torch.float64, num_networks=6)
    data, off = samples(host, dtype=torch.float64), random_settings(population, num_settings=8)
    loss, quality = population.evaluate(data, alpha, off)
    alone = [population.evaluate(data, alpha, setting[None]) for setting in off]
    torch.testing.assert_close(loss, torch.cat([part[0] for part in alone]), rtol=0, atol=1e-10)
    torch.testing.assert_close(quality, torch.cat([part[1] for part in alone]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [1, 99, 100, 101, 230])
def test_the_number_of_samples_is_free(size):
    population, alpha = mixed_population(HOSTS_UNDER_TEST["mlp"], torch.float64, num_networks=6)
    data = samples(population.setting.host, size, torch.float64)
    singles = [Split(data.x[i : i + 1], data.y[i : i + 1]) for i in range(size)]
    one_by_one = torch.stack([torch.stack(population.evaluate(single, alpha)) for single in singles])
    together = torch.stack(population.evaluate(data, alpha))
    torch.testing.assert_close(together, one_by_one.mean(dim=0), rtol=0, atol=1e-10)


@pytest.mark.parametrize("sizes", [(110, 110), (30, 110)], ids=str)
@every_host
def test_data_evaluated_together_give_what_each_gives_alone(host, sizes):
    population, alpha = mixed_population(host, torch.float64, num_networks=6)
    data, off = [samples(host, size, torch.float64) for size in sizes], random_settings(population)
    data[1] = Split(data[1].x.flip(0)[:-7], data[1].y.flip(0)[:-7])
    data[0] = Split(data[0].x[:-7], data[0].y[:-7])
    together = population.evaluate_together(data, alpha, [off, None])
    for found, split, settings in zip(together, data, (off, None), strict=True):
        for part, alone in zip(found, population.evaluate(split, alpha, settings), strict=True):
            torch.testing.assert_close(part, alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rows", [[4, 1], [2], [5, 4, 3, 2, 1, 0], [0, 0, 3, 1, 1, 2], list(range(6))], ids=str)
@every_host
def test_chosen_rows_are_those_rows_of_everything_in_their_order(host, rows):
    population, alpha = mixed_population(host, torch.float64, num_networks=6)
    data, off = samples(host, dtype=torch.float64), random_settings(population)
    everything = population.evaluate(data, alpha, off)
    for part, whole in zip(population.evaluate(data, alpha, off, rows), everything, strict=True):
        torch.testing.assert_close(part, whole[:, rows], rtol=0, atol=1e-10)


@every_host
def test_switching_off_what_does_not_act_changes_nothing(host):
    population, alpha = mixed_population(host)
    off = np.zeros((2, population.num_networks, population.num_slots), dtype=bool)
    off[1] = True
    for kind in kinds(population):
        off[1, kind.row, kind.slot] = kind.in_training
    loss, quality = population.evaluate(samples(host), alpha, off)
    assert torch.equal(loss[0], loss[1])
    assert torch.equal(quality[0], quality[1])


def test_settings_are_computed_once_as_far_as_they_agree():
    off = np.zeros((4, 2, 3), dtype=bool)
    off[1, 0, 2] = off[2, 1, 1] = True
    off[3, 1, 0] = True  # where nothing grows
    has_seed = np.array([[True, True, True], [False, True, True]])
    levels, version_of = make_versions(off, has_seed, range(3), [0] * len(off))
    assert [len(level) for level in levels] == [1, 2, 3]
    assert [stream.parent for stream in levels[2]] == [0, 0, 1]
    assert version_of == [0, 1, 2, 0]


def test_settings_part_where_features_first_meet_a_seed_and_not_where_it_is_listed():
    off = np.zeros((3, 1, 3), dtype=bool)
    off[1, 0, 2] = off[2, 0, 1] = True  # slot 2 comes right after slot 0
    levels, version_of = make_versions(off, np.ones((1, 3), dtype=bool), (0, 2, 1), [0] * len(off))
    assert [len(level) for level in levels] == [1, 3, 2]
    assert [stream.parent for stream in levels[2]] == [0, 0]
    assert [stream.parent for stream in levels[1]] == [0, 1, 0]
    assert version_of == [0, 1, 2]


@every_host
def test_all_contributions_are_measured_in_one_forward(host):
    """R15: any number of settings takes as many passes through the host as one."""
    population, alpha = mixed_population(host, engine="torch")
    calls = []
    population.setting.host_template.module.register_forward_hook(
        lambda module, inputs, out: calls.append(len(split_logits(out, population.num_networks)))
    )
    population.evaluate(samples(host), alpha, random_settings(population, num_settings=1))
    alone = len(calls)
    population.evaluate(samples(host), alpha, random_settings(population, num_settings=5))
    assert len(calls) == 2 * alone
    assert sum(calls[alone:]) > sum(calls[:alone])  # more streams, side by side


@every_host
def test_seeds_in_training_are_not_run(host):
    population, names = Population(host, range(3), engine="torch"), blueprints_for(host.topology)
    population.germinate([0], 0, names[0], Operator.GATE)
    population.germinate([1, 2], 0, names[1], Operator.ADD)
    population.connect([2], 0)
    sizes, axis, width = {}, *((1, host.slots[0].channels) if host.topology == "image" else (0, 1))
    for part, template in population.setting.part_templates.items():
        template.module.register_forward_hook(
            lambda _, inputs, out, name=part.name: sizes.update({name: inputs[0].shape[axis] // width})
        )
    population.evaluate(samples(host), np.ones((3, population.num_slots)))
    assert sizes == {names[1]: 1}


@every_host
def test_evaluation_changes_no_network(host):
    population, alpha = mixed_population(host, num_networks=6)
    before = stacks(population)
    population.evaluate(samples(host), alpha, random_settings(population), rows=[1, 3])
    assert are_identical(before, stacks(population))


@every_host
def test_a_live_seed_at_alpha_zero_changes_no_result(host):
    population, alpha = mixed_population(host)
    data = samples(host)
    with_seeds = population.evaluate(data, np.zeros_like(alpha))
    off = np.ones((1, population.num_networks, population.num_slots), dtype=bool)
    without = population.evaluate(data, alpha, off)
    assert all(torch.equal(a, b) for a, b in zip(with_seeds, without, strict=True))


def test_logits_that_are_not_finite_are_never_correct():
    logits = torch.tensor([[[float("nan"), 0.0], [float("inf"), 0.0], [2.0, 0.0]]])
    loss, is_correct = classify(logits, torch.zeros(1, 3, dtype=torch.int64))
    assert is_correct.tolist() == [[0.0, 0.0, 1.0]]
    assert loss.isfinite().tolist() == [[False, False, True]]


def test_rows_that_do_not_exist_are_named():
    population = Population(HOSTS_UNDER_TEST["mlp"], [0, 1])
    population.germinate([0], 0, "mlp", Operator.ADD)
    with pytest.raises(ValueError, match=r"^`rows` must lie between 0 and 1, got \[-1\]\. Name rows that exist\.$"):
        population.evaluate(samples(population.setting.host), np.zeros((2, 2)), rows=[-1])
