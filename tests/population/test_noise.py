"""Noise belongs to the data, and every network takes as much of it as its conditions say."""

from __future__ import annotations

import numpy as np
import torch

from kasmina_env.networks.hosts import CNNHost
from kasmina_env.population import Conditions, Population
from kasmina_env.tasks import Split, with_noise
from tests.contract import samples

HOST = CNNHost(width=4)
CLEAN = samples(HOST, size=200)
NOISY = with_noise(CLEAN, HOST.num_classes, seed=0)


def population(label_noise=(0.0, 0.3, 1.0), pixel_noise=(0.0, 0.5, 2.0)) -> Population:
    conditions = Conditions.plain(3, 0.01)
    conditions.label_noise[:], conditions.pixel_noise[:] = label_noise, pixel_noise
    return Population(HOST, [5, 5, 5], conditions=conditions)


def pictures(batch: torch.Tensor) -> torch.Tensor:
    """Wide pictures as ``[N, B, H, W]``."""
    return batch.movedim(1, 0)


def test_noise_is_as_wide_as_the_conditions_say():
    x, _ = population().draw_minibatches(NOISY, 4, 256)
    clean, little, much = pictures(torch.cat(x))
    assert 0.49 < (little - clean).std() < 0.51
    torch.testing.assert_close(much - clean, 4 * (little - clean), rtol=1e-3, atol=1e-4)


def test_labels_are_wrong_as_often_as_the_conditions_say_and_always_the_same_ones():
    for split, wrong in ((NOISY, NOISY.noise.labels), (CLEAN, None)):
        _, y = population().draw_minibatches(split, 4, 256)
        right, some, all_wrong = torch.cat(y).T
        expected = (0.0, 0.0) if wrong is None else (0.3, 1.0)
        for labels, share in zip((some, all_wrong), expected, strict=True):
            assert abs((labels != right).float().mean() - share) < 0.08


def test_a_network_without_noise_sees_the_data_as_they_are():
    noisy, clean = (population().draw_minibatches(split, 2, 16) for split in (NOISY, CLEAN))
    for one, other in zip(*(x for x, _ in (noisy, clean)), strict=True):
        assert torch.equal(pictures(one)[0], pictures(other)[0])
    assert all(torch.equal(one[:, 0], other[:, 0]) for one, other in zip(noisy[1], clean[1], strict=True))


def test_evaluation_adds_the_noise_of_each_sample_and_leaves_labels_right():
    networks, alpha = population(), np.zeros((3, 3))
    loss, _ = networks.evaluate(NOISY, alpha)
    for row, width in enumerate((0.0, 0.5, 2.0)):
        own = Split(CLEAN.x + width * NOISY.noise.inputs, CLEAN.y)
        wanted, _ = networks.evaluate(own, alpha)
        torch.testing.assert_close(loss[0, row], wanted[0, row])


def test_the_first_samples_keep_their_noise():
    head = NOISY.head(30)
    assert len(head) == len(head.noise.chance) == 30
    assert torch.equal(head.noise.inputs, NOISY.noise.inputs[:30])
    assert CLEAN.head(30).noise is None
