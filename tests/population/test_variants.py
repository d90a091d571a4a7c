"""Hosts of different shapes in one population: a smaller one is the larger one with weights that are absent."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kasmina_env.networks.hosts import CNNHost
from kasmina_env.networks.layers import widen
from kasmina_env.population import Conditions, Population
from kasmina_env.settings.config import Operator
from tests.contract import minibatch

WHOLE = CNNHost(width=8, kernels=(3, 3, 3), group_size=4)
VARIANTS = (WHOLE, CNNHost(width=8, kernels=(1, 3, 1), group_size=4), CNNHost(width=4, kernels=(3, 1, 1), group_size=4))
ROWS = np.array([2, 0, 1, 2])


def mixed(num_networks: int = 4, dtype: torch.dtype = torch.float64) -> Population:
    """Networks of all variants."""
    conditions = Conditions.plain(num_networks, 0.05)
    conditions.variant[:] = np.resize(ROWS, num_networks)
    return Population(WHOLE, range(num_networks), dtype=dtype, variants=VARIANTS, conditions=conditions)


def block(whole: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """The leading channels and the middle of the kernel."""
    for axis, size in enumerate(part.shape):
        start = (whole.shape[axis] - size) // 2 if part.ndim == 4 and axis >= 2 else 0
        whole = whole.narrow(axis, start, size)
    return whole


def alone(population: Population, row: int) -> Population:
    """A population of one network of the row's own host, with the row's weights."""
    own = Population(VARIANTS[ROWS[row]], [0], dtype=torch.float64)
    own.learning_rate[:] = population.learning_rate[row]
    source, target = population.snapshot([row]), own.snapshot()
    pairs = (setting.unflatten for setting in (population.setting.host_template, own.setting.host_template))
    whole, part = (view(s.networks.hosts.parameters) for view, s in zip(pairs, (source, target), strict=True))
    for big, small in zip(whole, part, strict=True):
        small.copy_(block(big[0], small[0]))
    own.restore(target)
    return own


def absent(population: Population) -> torch.Tensor:
    return population.snapshot().networks.hosts.parameters[torch.from_numpy(population.setting.scales[ROWS] == 0)]


def test_each_trains_as_its_own_host_alone():
    population = mixed()
    batches = [minibatch(WHOLE, 4, batch=8, seed=seed, dtype=torch.float64) for seed in range(5)]
    singles = [alone(population, row) for row in range(4)]
    x, y = [widen(x) for x, _ in batches], [y for _, y in batches]
    losses, health = population.train(x, y, np.zeros((4, 3)))
    for row, own in enumerate(singles):
        mine = [widen(x[:, [row]]) for x, _ in batches], [y[:, [row]] for _, y in batches]
        loss, own_health = own.train(*mine, np.zeros((1, 3)))
        assert losses[row] == pytest.approx(loss.item(), abs=1e-9)
        assert health.host_norm[row] == pytest.approx(own_health.host_norm.item(), rel=1e-6)


def test_absent_weights_stay_zero_under_every_seed():
    population = mixed()
    for slot, operator in enumerate(Operator):
        population.germinate(range(4), slot, "conv_light", operator, in_training=False)
    for seed in range(4):
        x, y = minibatch(WHOLE, 4, batch=8, seed=seed, dtype=torch.float64)
        population.train([widen(x)], [y], np.ones((4, 3)))
    assert len(absent(population)) > 1000
    assert (absent(population) == 0).all()


def test_initial_weights_are_drawn_from_the_ranges_of_their_own_host():
    population = mixed(num_networks=80)
    template = population.setting.host_template
    weights = template.unflatten(population.snapshot().networks.hosts.parameters)[
        template.names.index("segments.1.1.weight")
    ]
    for variant, fan_in in enumerate((8 * 9, 8 * 9, 4)):
        drawn = weights[np.resize(ROWS, 80) == variant]
        drawn = drawn[drawn != 0].abs()
        assert 0.97 / fan_in**0.5 < drawn.max() <= 1 / fan_in**0.5


def test_a_reset_row_may_become_another_variant():
    population = mixed()
    population.reset_rows(
        [0], [7], Conditions(*(np.array([v]) for v in (0.01, 0.0, 0.0)), *(np.array([0]) for _ in "vc"))
    )
    whole = population.snapshot([0]).networks.hosts.parameters
    norms = 2 * (8 + 16 + 32)  # gains of 1 and biases of 0
    assert (whole == 0).sum() == norms / 2


def test_what_does_not_fit_is_refused():
    for part in (CNNHost(width=16, kernels=(3, 3, 3), group_size=4), CNNHost(width=4, kernels=(3, 3, 3), group_size=8)):
        with pytest.raises(ValueError, match="`part` must "):
            Population(WHOLE, [0], variants=[part])
