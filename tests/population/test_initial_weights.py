"""Weights from a file: every fresh host has them, in every form, and a file that does not fit is refused."""

from __future__ import annotations

import re

import gymnasium as gym
import numpy as np
import pytest
import safetensors.torch
import torch

from kasmina_env import save_network
from kasmina_env.networks.hosts import CNNHost
from kasmina_env.population import Conditions, Population
from kasmina_env.population.initial_weights import load_initial_weights
from tests.contract import HOSTS_UNDER_TEST, minibatch, samples
from tests.episodes import WAIT, small_env, small_vec

HOST = CNNHost(width=4)
SPIRALS = "Kasmina/Spirals-v0"


def trained(host, rows: int = 1) -> Population:
    population, alpha = Population(host, range(rows)), np.zeros((rows, len(host.slots)))
    population.train(*population.draw_minibatches(samples(host), 3, 4), alpha)
    return population


@pytest.fixture
def file(tmp_path):
    """Weights of a trained host."""
    path = tmp_path / "host.safetensors"
    save_network(trained(HOST).network(0, np.zeros(3)), path)
    return path


@pytest.mark.parametrize("host", HOSTS_UNDER_TEST.values(), ids=HOSTS_UNDER_TEST)
def test_fresh_hosts_start_from_the_weights_in_the_file(host, tmp_path):
    network, alpha = trained(host).network(0, np.zeros(len(host.slots))), np.zeros((2, len(host.slots)))
    save_network(network, tmp_path / "host.safetensors")
    weights = load_initial_weights(tmp_path / "host.safetensors", host)
    fresh, (x, _) = Population(host, [5, 6], initial_weights=weights), minibatch(host, 1)
    assert all(torch.equal(network(x[:, 0]), fresh.network(row, alpha[row])(x[:, 0])) for row in range(2))
    fresh.train(*fresh.draw_minibatches(samples(host), 1, 4), alpha)
    fresh.reset_rows([1], [9])
    assert torch.equal(network(x[:, 0]), fresh.network(1, alpha[1])(x[:, 0]))
    assert not torch.equal(network(x[:, 0]), fresh.network(0, alpha[0])(x[:, 0]))


def test_the_names_of_plain_pytorch_do_as_well(file, tmp_path):
    plain = {name.removeprefix("network."): t for name, t in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(plain, tmp_path / "plain.safetensors")
    assert np.array_equal(load_initial_weights(tmp_path / "plain.safetensors", HOST), load_initial_weights(file, HOST))


def test_a_smaller_variant_has_the_weights_that_it_has():
    whole, part = CNNHost(width=4, kernels=(3, 3, 3)), CNNHost(width=4, kernels=(1, 1, 1))
    population = Population(whole, [0])
    weights = population._networks.hosts.parameters[0].double().numpy()
    plain = Conditions.plain(1, 0.1)
    made = Population(whole, [7], variants=(part,), conditions=plain, initial_weights=weights)
    found = made._networks.hosts.parameters[0].double().numpy()
    assert np.array_equal(found, np.where(made.setting.scales[0] == 0, 0.0, weights))
    assert 0 < (found == 0).mean() < 1


def replaced(tensors, **new):
    return {name: tensor for name, tensor in {**tensors, **new}.items() if tensor is not None}


FIRST = "network.segments.0.0.weight"


@pytest.mark.parametrize(
    "new, sentence",
    [
        ({FIRST: None}, "must fit the host, got none for 'segments.0.0.weight', which is (4, 1, 1, 1). Save"),
        (
            {FIRST: torch.ones(4, 1, 3, 3)},
            "must fit the host, got (4, 1, 3, 3) for 'segments.0.0.weight', which is (4,",
        ),
        ({"network.other": torch.ones(1)}, "must fit the host, got (1,) for 'other', which is not part of it. Save"),
        ({FIRST: torch.full((4, 1, 1, 1), torch.nan)}, "must be finite, got others in 'segments.0.0.weight' of "),
        ({"slots.0.seed.delta.weight": torch.ones(1)}, "must be those of a host alone, got seeds in "),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(file, new, sentence):
    safetensors.torch.save_file(replaced(safetensors.torch.load_file(file), **new), file)
    with pytest.raises(ValueError, match="^" + re.escape(f"`initial_weights` {sentence}")):
        load_initial_weights(file, HOST)


def test_what_is_no_file_of_weights_is_refused(file):
    with pytest.raises(FileNotFoundError, match=r"^`initial_weights` must be a file that exists, got 'nowhere'\."):
        gym.make(SPIRALS, initial_weights="nowhere")
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"^`initial_weights` must be a safetensors file, got "):
        load_initial_weights(file, HOST)


@pytest.mark.parametrize("settings", [{}, {"num_workers": 2}], ids=["here", "in workers"])
def test_every_episode_of_an_environment_starts_where_the_network_in_the_file_is(tmp_path, settings):
    env, path = small_env(SPIRALS), tmp_path / "host.safetensors"
    env.reset(seed=0)
    *_, last = [env.step(WAIT)[4] for _ in range(env.problem.horizon)]
    save_network(env.network(), path)
    vec = small_vec(SPIRALS, initial_weights=str(path), **settings)
    for seed in (3, 4):
        assert vec.reset(seed=seed)[1]["score"].tolist() == pytest.approx([last["quality"]] * 4)
    vec.close()
