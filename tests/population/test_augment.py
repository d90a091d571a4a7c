"""Pictures moved and mirrored at random: the right pixels, drawn by each network for itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kasmina_env.networks.hosts import CNNHost
from kasmina_env.population import Population
from kasmina_env.population.augment import draw_moves, gather_moved
from kasmina_env.settings.config import AUGMENTATIONS
from kasmina_env.settings.presets import PRESETS
from tests.contract import are_identical, normal, samples
from tests.episodes import digest, play_lively, small_env, small_vec

HOST = CNNHost(in_channels=2, image_size=16, width=4, kernels=(1, 1))
every_augmentation = pytest.mark.parametrize("augment", AUGMENTATIONS)


def minibatches(population: Population, augment: str, num_batches: int = 3) -> list[torch.Tensor]:
    inputs, labels = population.draw_minibatches(samples(HOST), num_batches, 4, augment)
    return [*inputs, *labels]


def changed_slowly(picture: np.ndarray, down: int, right: int, is_mirrored: int) -> np.ndarray:
    """The definition: mirror, then move, repeating the border."""
    reach = 2
    size = picture.shape[-1]
    padded = np.pad(picture, ((0, 0), (reach, reach), (reach, reach)), "edge")
    moved = padded[:, reach - down :, reach - right :][:, :size, :size]
    return moved[..., ::-1] if is_mirrored else moved


def test_pictures_are_changed_as_defined():
    pictures = normal(5, 3, 8, 8)
    index = torch.from_numpy(np.random.default_rng(0).integers(5, size=(6, 4)))
    moves = torch.from_numpy(np.random.default_rng(1).integers((-2, -2, 0), (3, 3, 2), size=(6, 4, 3)))
    found = gather_moved(pictures, index, moves)
    assert found.shape == (6, 4, 3, 8, 8)
    for place in np.ndindex(6, 4):
        wanted = changed_slowly(pictures[index[place]].numpy(), *moves[place].tolist())
        assert np.array_equal(found[place].numpy(), wanted)


@pytest.mark.parametrize("augment, kinds", [("shift", {0}), ("shift_flip", {0, 1})])
def test_every_shift_up_to_an_eighth_is_drawn(augment, kinds):
    moves = draw_moves(np.random.default_rng(0), (500,), 16, augment)
    assert {*moves[:, 0]} == {*moves[:, 1]} == {-2, -1, 0, 1, 2}
    assert {*moves[:, 2]} == kinds


def test_without_augmentation_nothing_is_drawn():
    """Runs from before there was augmentation stay as they were."""
    population, stream = Population(HOST, [5]), np.random.default_rng(np.random.SeedSequence(5).spawn(2)[0])
    for _ in range(2):
        drawn = samples(HOST).y[stream.integers(len(samples(HOST)), size=(3, 4))]
        assert torch.equal(torch.stack(minibatches(population, "none")[3:])[..., 0], drawn)


@every_augmentation
def test_a_row_draws_the_same_pictures_whatever_the_number_of_rows(augment):
    alone, among = Population(HOST, [7]), Population(HOST, [3, 7, 9])
    for x, wide in zip(minibatches(alone, augment)[:3], minibatches(among, augment)[:3], strict=True):
        assert torch.equal(x, wide.unflatten(1, (3, -1))[:, 1])


@every_augmentation
def test_minibatches_are_channels_last(augment):
    """R7."""
    inputs = minibatches(Population(HOST, range(3)), augment)[:3]
    assert all(x.is_contiguous(memory_format=torch.channels_last) and x.shape == (4, 6, 16, 16) for x in inputs)


@every_augmentation
def test_restored_and_copied_rows_draw_the_same_pictures(augment):
    population = Population(HOST, range(3))
    minibatches(population, augment)
    saved = population.snapshot()
    first = minibatches(population, augment)
    population.restore(saved)
    assert are_identical(minibatches(population, augment), first)
    population.copy_rows([0], [2])
    x = minibatches(population, augment)[0].unflatten(1, (3, -1))
    assert torch.equal(x[:, 0], x[:, 2])
    assert not torch.equal(x[:, 0], x[:, 1])


@pytest.mark.parametrize("augment", ["shift", "shift_flip"])
def test_an_episode_with_augmentation_can_be_repeated_and_is_another_one(augment):
    first, again = (digest(play_lively(small_env("Kasmina/Digits-v0", augment=augment), seed=3)) for _ in range(2))
    assert first == again
    assert first != digest(play_lively(small_env("Kasmina/Digits-v0"), seed=3))


def test_rows_of_a_population_are_augmented_on_their_own():
    env = small_vec("Kasmina/Digits-v0", num_envs=2, augment="shift")
    env.reset(seed=[4, 4])
    for _ in range(3):
        env.step(np.zeros(2, dtype=np.int64))
    loss = env.unwrapped.episodes.state().now.train_loss
    assert loss[0] == pytest.approx(loss[1], rel=1e-5)


def test_an_unknown_augmentation_and_one_for_points_are_refused():
    with pytest.raises(ValueError, match=r"^`augment` must be one of \('none', 'shift', 'shift_flip'\), got 'flip'"):
        PRESETS.get("Kasmina/Digits-v0").config(augment="flip")
    with pytest.raises(ValueError, match=r"^`augment` must be 'none' for samples that are not square pictures, got 's"):
        small_env("Kasmina/Spirals-v0", augment="shift")
