"""The same population twice, once on each engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kasmina_env.networks.hosts import CNNHost
from kasmina_env.networks.layers import widen
from kasmina_env.population import Conditions, Population
from tests.contract import HOSTS_UNDER_TEST, minibatch, row_state

EQUAL = {"rtol": 1e-5, "atol": 1e-5}
# what the hosts of the registry leave out: large and odd sizes, several channels, small groups, average pools
ODD_HOSTS = {
    "large_kernel": CNNHost(in_channels=3, image_size=7, num_classes=3, width=12, kernels=(5, 3), group_size=3),
    "average": CNNHost(image_size=9, width=4, kernels=(3, 1), pooling="average", slots_at="both", stem=3),
    "no_pool": CNNHost(image_size=5, width=8, kernels=(3, 1, 3), pools=(1,), num_classes=11),
}
HOSTS = HOSTS_UNDER_TEST | ODD_HOSTS
every_fused_host = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)

WHOLE = CNNHost(width=8, kernels=(3, 3, 3), group_size=4)
VARIANTS = (WHOLE, CNNHost(width=8, kernels=(1, 3, 1), group_size=4), CNNHost(width=4, kernels=(3, 1, 1), group_size=4))


def family(engine: str) -> Population:
    """Six networks, two of each variant."""
    conditions = Conditions.plain(6, 0.05)
    conditions.variant[:] = np.arange(6) % 3
    return Population(WHOLE, range(6), variants=VARIANTS, conditions=conditions, engine=engine)


def batches(host, num_networks: int, num_batches: int = 2, size: int = 5):
    """Wide minibatches and their labels."""
    drawn = [minibatch(host, num_networks, batch=size, seed=seed) for seed in range(num_batches)]
    return [widen(x) for x, _ in drawn], [y for _, y in drawn]


def assert_equal_states(left: Population, right: Population, moment: int | None = None) -> None:
    """Parameters, or one of their moments, of all rows."""
    for row in range(left.num_networks):
        mine, other = (row_state(population, row, moment) for population in (left, right))
        assert mine.keys() == other.keys()
        for name, values in mine.items():
            torch.testing.assert_close(values, other[name], **EQUAL, msg=lambda text, name=name: f"{name}: {text}")


def assert_equal_health(left, right) -> None:
    for name, values in vars(left).items():
        torch.testing.assert_close(values, getattr(right, name), **EQUAL, equal_nan=True)
