"""Both engines mean the same: every host, with every blueprint under every operator in every stage."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from kasmina_env.population import Optimizer, Population
from kasmina_env.settings.config import Operator
from kasmina_env.tasks import with_noise
from kasmina_env.tasks.base import bits_saved, classify_next
from tests.contract import BARE_SGD, HOSTS_UNDER_TEST, crowded_population, mixed_population, samples
from tests.population.fused.pairs import (
    EQUAL,
    WHOLE,
    assert_equal_health,
    assert_equal_states,
    batches,
    every_fused_host,
    family,
)

every_population = pytest.mark.parametrize("make", [mixed_population, crowded_population])


@every_population
@every_fused_host
def test_losses_gradients_and_health_are_those_of_torch(host, make):
    (torch_one, alpha), (fused, _) = (make(host, optimizer=BARE_SGD, engine=name) for name in ("torch", "fused"))
    x, y = batches(host, fused.num_networks, num_batches=1)
    results = [population.train(x, y, alpha) for population in (torch_one, fused)]
    torch.testing.assert_close(results[0][0], results[1][0], **EQUAL)
    assert_equal_health(results[0][1], results[1][1])
    assert_equal_states(torch_one, fused, moment=0)  # the gradient itself
    assert_equal_states(torch_one, fused)


@every_population
@every_fused_host
def test_evaluation_with_seeds_off_is_that_of_torch(host, make):
    (torch_one, alpha), (fused, _) = (make(host, engine=name) for name in ("torch", "fused"))
    off = np.random.default_rng(0).random((5, *alpha.shape)) < 0.4
    data = samples(host, 70)
    for found, wanted in zip(*(p.evaluate(data, alpha, off) for p in (fused, torch_one)), strict=True):
        torch.testing.assert_close(found, wanted, **EQUAL)


@pytest.mark.parametrize("optimizer", [Optimizer(clip_norm=0.1), Optimizer("sgd", clip_norm=0.1)], ids=["adam", "sgd"])
def test_updates_are_those_of_torch_over_several_minibatches(optimizer):
    host = HOSTS_UNDER_TEST["cnn"]
    (torch_one, alpha), (fused, _) = (mixed_population(host, optimizer=optimizer, engine=n) for n in ("torch", "fused"))
    x, y = batches(host, fused.num_networks, num_batches=4)
    losses = [population.train(x, y, alpha, pace=0.5)[0] for population in (torch_one, fused)]
    torch.testing.assert_close(*losses, **EQUAL)
    assert_equal_states(torch_one, fused, moment=0)


@pytest.mark.parametrize("size", [1, 16, 33])
def test_any_number_of_samples_is_trained_on(size):
    host = HOSTS_UNDER_TEST["cnn_3x3"]
    (torch_one, alpha), (fused, _) = (mixed_population(host, optimizer=BARE_SGD, engine=n) for n in ("torch", "fused"))
    x, y = batches(host, fused.num_networks, num_batches=1, size=size)
    losses = [population.train(x, y, alpha)[0] for population in (torch_one, fused)]
    torch.testing.assert_close(*losses, **EQUAL)
    assert_equal_states(torch_one, fused)


def test_networks_of_a_family_keep_their_shapes():
    torch_one, fused = family("torch"), family("fused")
    for population in (torch_one, fused):
        population.germinate([0, 1, 2], 1, "conv_light", Operator.ADD, in_training=False)
    x, y = batches(WHOLE, 6, num_batches=4)
    results = [population.train(x, y, np.full((6, 3), 0.6)) for population in (torch_one, fused)]
    torch.testing.assert_close(results[0][0], results[1][0], **EQUAL)
    assert_equal_health(results[0][1], results[1][1])
    hosts = [population.snapshot().networks.hosts.parameters for population in (torch_one, fused)]
    assert torch.equal(hosts[0] == 0, hosts[1] == 0)


def test_every_network_is_evaluated_with_its_own_noise():
    host = HOSTS_UNDER_TEST["cnn"]
    (torch_one, alpha), (fused, _) = (mixed_population(host, num_networks=4, engine=n) for n in ("torch", "fused"))
    data = with_noise(samples(host, 40), host.num_classes, seed=0)
    for population in (torch_one, fused):
        population.conditions.pixel_noise[:] = 0.0, 0.1, 1.0, 2.0
    for found, wanted in zip(*(p.evaluate(data, alpha) for p in (fused, torch_one)), strict=True):
        torch.testing.assert_close(found, wanted, **EQUAL)


def test_bits_are_measured_as_the_task_measures_them():
    host = HOSTS_UNDER_TEST["transformer"]
    pair = [Population(host, range(3), criterion=bits_saved, engine=name) for name in ("torch", "fused")]
    (loss, quality), (wanted_loss, wanted) = (p.evaluate(samples(host, 20), np.zeros((3, 2))) for p in pair)
    torch.testing.assert_close(loss, wanted_loss, **EQUAL)
    torch.testing.assert_close(quality, wanted, **EQUAL)


def test_a_class_is_read_off_behind_the_last_token():
    host, criterion = HOSTS_UNDER_TEST["transformer"], partial(classify_next, num_tokens=4)
    pair = [Population(host, range(3), BARE_SGD, criterion=criterion, engine=name) for name in ("torch", "fused")]
    x, y = batches(host, 3, num_batches=1)
    y = [labels[..., 0] % 3 for labels in y]
    losses = [population.train(x, y, np.zeros((3, 2)))[0] for population in pair]
    torch.testing.assert_close(*losses, **EQUAL)
    assert_equal_states(*pair)


def test_several_data_are_evaluated_together():
    host = HOSTS_UNDER_TEST["mlp"]
    population, alpha = mixed_population(host, engine="fused")
    data, off = [samples(host, 40), samples(host, 40)], [None, np.ones((1, *alpha.shape), dtype=bool)]
    together = population.evaluate_together(data, alpha, off)
    for one, own, found in zip(data, off, together, strict=True):
        assert all(map(torch.equal, population.evaluate(one, alpha, own), found))
