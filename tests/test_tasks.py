"""Every registered task: four splits that share nothing, the same for everybody, and something to learn in them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from kasmina_env.hosts import CNNHost, Host, MLPHost
from kasmina_env.population import Optimizer, Population
from kasmina_env.tasks import SPLITS, TASKS, Split, Task, classify, register_task
from kasmina_env.tasks.base import split_samples

every_task = pytest.mark.parametrize("name", TASKS)


@cache
def task(name: str) -> Task:
    return TASKS.get(name)()


@every_task
def test_a_task_has_four_splits_of_samples_and_labels(name):
    assert set(task(name).splits) == set(SPLITS)
    for split in task(name).splits.values():
        assert len(split) == len(split.x) == len(split.y) > 0
        assert split.x.shape[1:] == task(name).input_shape
        assert split.y.dtype == torch.int64
        assert split.x.isfinite().all()


@every_task
def test_every_label_is_in_range_and_in_every_split(name):
    for split in task(name).splits.values():
        assert set(split.y.tolist()) == set(range(task(name).num_classes))


@every_task
def test_no_sample_is_in_two_splits(name):
    samples = [row.tobytes() for split in task(name).splits.values() for row in split.x.flatten(1).numpy()]
    assert len(set(samples)) == len(samples)


@every_task
def test_a_task_is_the_same_every_time(name):
    again = TASKS.get(name)()
    for split_name, split in task(name).splits.items():
        assert torch.equal(split.x, again.splits[split_name].x)
        assert torch.equal(split.y, again.splits[split_name].y)


@every_task
def test_the_features_are_scaled_for_a_network(name):
    x = task(name).splits["train"].x
    assert abs(x.mean()) < 0.2
    assert 0.3 < x.std() < 3


def suitable_host(found: Task) -> Host:
    if len(found.input_shape) == 3:
        channels, size, _ = found.input_shape
        kernels = (3, 3, 3) if size % 8 == 0 else (3,)
        return CNNHost(channels, size, found.num_classes, width=8, kernels=kernels)
    return MLPHost(found.input_shape[0], found.num_classes, width=32, depth=2)


@every_task
def test_a_task_can_be_learned(name):
    population = Population(suitable_host(task(name)), [0, 1], Optimizer(learning_rate=0.02))
    alpha, data = np.zeros((2, population.num_slots)), task(name).splits
    before, chance = population.evaluate(data["inner_valid"], alpha)[0], 1 / task(name).num_classes
    population.train(*population.draw_minibatches(data["train"], 120, 32), alpha)
    loss, quality = population.evaluate(data["inner_valid"], alpha)
    assert (loss < 0.8 * before).all()
    assert (quality > 1.5 * chance).all()


# ── digits ──────────────────────────────────────────────────────────────────────────────────────


def test_digits_are_all_1797_images():
    sizes = {name: len(split) for name, split in task("digits").splits.items()}
    assert sizes == {"train": 900, "inner_valid": 256, "outer_valid": 320, "test": 321}
    assert sum(sizes.values()) == 1797
    assert task("digits").input_shape == (1, 8, 8)


# ── spirals ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_spirals_have_as_many_arms_as_asked_for(num_classes):
    spirals = TASKS.get("spirals")(num_classes=num_classes)
    assert spirals.num_classes == num_classes
    assert set(spirals.splits["train"].y.tolist()) == set(range(num_classes))


def test_spirals_without_noise_lie_on_their_arms():
    split = TASKS.get("spirals")(num_classes=3, turns=1.5, noise=0.0).splits["train"]
    x, y = split.x.double() / 2, split.y
    radius, angle = x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])
    turns = (angle / (2 * torch.pi) - y / 3 - 1.5 * radius) % 1.0
    assert torch.minimum(turns, 1 - turns).max() < 1e-5


# ── building blocks ─────────────────────────────────────────────────────────────────────────────


def numbered(size: int = 20):
    return np.arange(size, dtype=np.float32)[:, None], np.arange(size, dtype=np.int64)


def test_splits_are_cut_from_one_shuffle_and_share_no_index():
    splits = split_samples(*numbered(), {"a": 7, "b": 5, "c": 8}, seed=0)
    indices = [split.y.tolist() for split in splits.values()]
    assert [len(part) for part in indices] == [7, 5, 8]
    joined = [index for part in indices for index in part]
    assert sorted(joined) == list(range(20))
    assert joined != list(range(20))
    assert all(torch.equal(split.x[:, 0].long(), split.y) for split in splits.values())


def test_a_split_is_a_fact_and_not_a_draw():
    splits = [split_samples(*numbered(), {"a": 7}, seed=0)["a"].y for _ in range(2)]
    assert torch.equal(*splits)
    assert not torch.equal(splits[0], split_samples(*numbered(), {"a": 7}, seed=1)["a"].y)


def test_splits_larger_than_the_data_are_refused():
    with pytest.raises(ValueError, match=r"^`sizes` must sum to at most 20 samples, got \{'a': 15, 'b': 6\}\. Make a"):
        split_samples(*numbered(), {"a": 15, "b": 6}, seed=0)


@pytest.mark.parametrize("sizes", [{"a": 0, "b": 5}, {"a": -3, "b": 5}], ids=str)
def test_a_split_without_samples_is_refused(sizes):
    with pytest.raises(ValueError, match=r"^`sizes` must be at least 1 each, got "):
        split_samples(*numbered(), sizes, seed=0)


def test_a_split_moves_with_its_labels_left_whole():
    split = Split(torch.ones(3, 2), torch.arange(3)).to(torch.device("cpu"), torch.float64)
    assert split.x.dtype == torch.float64
    assert split.y.dtype == torch.int64


def test_classification_scores_every_sample_of_every_network():
    logits = torch.zeros(2, 3, 4)
    logits[0, :, 1] = 5.0
    loss, is_correct = classify(logits, torch.tensor([[1, 1, 0], [0, 1, 2]]))
    assert is_correct.tolist() == [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    torch.testing.assert_close(loss[1], torch.full((3,), 4.0).log())


def test_a_task_is_not_replaced():
    with pytest.raises(ValueError, match="`task` must have a new name, got 'digits' a second time"):
        register_task("digits")(lambda: None)
