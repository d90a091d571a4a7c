"""Tasks of your own arrays: what is wrong with them is said in one sentence, what is right becomes four splits."""

from __future__ import annotations

import math
import random

import gymnasium as gym
import numpy as np
import pytest
import torch

import kasmina_env
from kasmina_env.settings.presets import PRESETS
from kasmina_env.tasks import TASKS, Split, settings_for, settings_from_arrays, task_from_arrays
from kasmina_env.tasks.base import bits_saved, classify_next
from tests.episodes import SMALL, play_lively

N = 90
Y = np.arange(N) % 3
RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(size=(N, 4)) * (1, 10, 100, 1000) + (0, 5, -5, 0)
NUMBERS[:, 3] = 7.0  # always the same
PICTURES = RNG.integers(256, size=(N, 8, 8), dtype=np.uint8)
TOKENS = RNG.integers(7, size=(N, 6))
WRONG_NUMBERS = np.where(np.arange(4 * N).reshape(N, 4) == 50, np.nan, NUMBERS)


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """Nothing that a test registers outlives it."""
    for registry in (PRESETS, TASKS):
        monkeypatch.setattr(registry, "_infos", dict(registry._infos))
    monkeypatch.setattr(gym.envs.registration, "registry", gym.registry.copy())


def joined(splits: dict[str, Split]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([split.x for split in splits.values()]), torch.cat([split.y for split in splits.values()])


# ── what is refused ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "x, y, options, sentence",
    [
        (WRONG_NUMBERS, Y, {}, "`x` must be finite, got NaN or infinity in 1 of 90 samples, first in number 12."),
        (NUMBERS * np.inf, Y, {}, "`x` must be finite, got NaN or infinity in 90 of 90 samples, first in number 0."),
        (NUMBERS * 1e40, Y, {}, "`x` must be finite, got NaN or infinity in 90 of 90 samples, first in number 0."),
        (NUMBERS.astype(str), Y, {}, "`x` must be numbers, got <U32. Number names with np.unique(names"),
        (NUMBERS.astype(complex), Y, {}, "`x` must be numbers, got complex128."),
        ([[1.0, 2.0], [3.0]], Y, {}, "`x` must be one array, got entries of different shapes. Make them equal."),
        (NUMBERS[:, 0], Y, {}, "`x` must be numbers of shape [n, F], got (90,). Reshape it."),
        (NUMBERS[:0], Y[:0], {}, "`x` must be numbers of shape [n, F], got (0, 4). Reshape it."),
        (PICTURES[:, None, None], Y, {}, "`x` must be images of shape [n, H, W], [n, C, H, W] or [n, H, W, C], got"),
        (NUMBERS, None, {}, "`y` must be given, got None. Only tokens are predicted without labels."),
        (NUMBERS, Y[:-1], {}, "`y` must be one label for each of the 90 samples of `x`, got shape (89,). Give"),
        (NUMBERS, np.eye(3)[Y], {}, "`y` must be one label for each of the 90 samples of `x`, got shape (90, 3)."),
        (NUMBERS, Y * 1.0, {}, "`y` must be integers, got float64. Convert labels with .astype(int)."),
        (NUMBERS, np.array(["a", "b", "c"])[Y], {}, "`y` must be numbers, got <U1. Number names with np.unique(names"),
        (NUMBERS, Y - 1, {}, "`y` must be labels from 0, got -1. Number them from 0."),
        (NUMBERS, Y + 1, {}, "`y` must have every label from 0 to 3, got none of 0. Renumber them with"),
        (NUMBERS, Y * 0, {}, "`y` must have two different labels or more, got only 0. There is nothing to learn."),
        (NUMBERS[:7], Y[:7] % 2, {}, "`x` must have 4 samples of label 1 or more, one for each split, got 2."),
        (NUMBERS, Y, {"num_classes": 2}, "`num_classes` must be above the largest label, 2, got 2. Raise it."),
        (NUMBERS, Y, {"num_classes": 4.0}, "`num_classes` must be above the largest label, 2, got 4.0. Raise it."),
        (NUMBERS, Y, {"fractions": (0.5, 0.5)}, "`fractions` must be four numbers above 0 that sum to 1, got (0.5, 0"),
        (NUMBERS, Y, {"fractions": (1, 0, 0, 0)}, "`fractions` must be four numbers above 0 that sum to 1, got (1, 0"),
        (NUMBERS, Y, {"seed": -1}, "`seed` must be an integer of at least 0, got -1. Change it."),
        (NUMBERS, Y, {"seed": None}, "`seed` must be an integer of at least 0, got None. Change it."),
        (NUMBERS, Y, {"kind": "table"}, "`kind` must be one of images, numbers, tokens, got 'table'. Choose one."),
        (NUMBERS, Y, {"kind": "images"}, "`x` must be images of shape [n, H, W], [n, C, H, W] or [n, H, W, C], got"),
        (NUMBERS, Y, {"kind": "tokens"}, "`x` must be integers, got float64. Convert token ids with .astype(int)."),
        (NUMBERS, Y, {"x_test": NUMBERS}, "`y_test` must be given, got None."),
        (NUMBERS, Y, {"y_test": Y}, "`x_test` must be given, got None."),
        (NUMBERS, Y, {"x_test": NUMBERS[:, :3], "y_test": Y}, "`x_test` must have samples of shape (4,), with labels"),
        (NUMBERS, Y, {"x_test": WRONG_NUMBERS, "y_test": Y}, "`x_test` must be finite, got NaN or infinity in 1 of 90"),
        (TOKENS, Y, {}, "`kind` must be given for labelled int64 of shape (90, 6), which may be numbers or tokens."),
        (TOKENS - 1, None, {}, "`x` must be token ids from 0, got -1. Number them from 0."),
        (TOKENS[:, :1], None, {}, "`x` must have two tokens or more in each row, got one. Cut longer windows."),
        (TOKENS[:3], None, {}, "`x` must have 4 samples or more, one for each split, got 3. Give more."),
        (TOKENS, None, {"num_classes": 6}, "`num_classes` must be above the largest label, 6, got 6. Raise it."),
        (TOKENS, Y, {"kind": "tokens", "x_test": TOKENS}, "`x_test` must have samples of shape (6,), with labels if"),
        (PICTURES[..., None, None, :3], Y, {}, "`x` must be images of shape"),
        (PICTURES.reshape(N, 8, 2, 4)[:, :4], Y, {}, "`layout` must be given for `x` of shape (90, 4, 2, 4): channels"),
        (PICTURES.reshape(N, 8, 1, 8), Y, {}, "`layout` must be given for `x` of shape (90, 8, 1, 8): channels"),
        (PICTURES, Y, {"layout": "CHW"}, "`layout` must be 'NCHW' or 'NHWC', got 'CHW'. Choose one, or leave it out."),
    ],
)
def test_what_makes_no_task_is_named_in_one_sentence(x, y, options, sentence):
    with pytest.raises(ValueError, match=r"^`\w+` must ") as caught:
        task_from_arrays(x, y, **options)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_nothing_is_registered_where_arrays_or_settings_are_wrong():
    with pytest.raises(ValueError, match="must be finite"):
        settings_from_arrays("wrong", WRONG_NUMBERS, Y)
    with pytest.raises(ValueError, match="must be square pictures for the host 'cnn', got 8 x 6 pixels"):
        settings_from_arrays("wrong", PICTURES[:, :, :6], Y)
    with pytest.raises(ValueError, match=r"`setting` must be one of .* Did you mean 'horizon'"):
        kasmina_env.register_environment("Mine/Wrong-v0", "", blueprints=("mlp",), horzion=3)
    with pytest.raises(gym.error.Error, match="Malformed environment ID: Mine Wrong"):
        kasmina_env.register_environment("Mine Wrong", "", blueprints=("mlp",))
    assert "wrong" not in TASKS
    assert not {"Mine/Wrong-v0", "Mine Wrong"} & {*PRESETS, *gym.envs.registration.registry}


@pytest.mark.parametrize("env_id", ["Kasmina/Digits-v0", "CartPole-v1"])
def test_an_environment_is_not_replaced(env_id):
    with pytest.raises(ValueError, match=rf"^`env_id` must be new, got '{env_id}', which is registered\."):
        kasmina_env.register_environment(env_id, "", blueprints=("mlp",))


# ── splits ──────────────────────────────────────────────────────────────────────────────────────


def test_all_samples_are_in_one_split_each_with_their_labels():
    x, y = np.arange(3.0 * N)[:, None], np.repeat([0, 1, 2], N)
    found, labels = joined(task_from_arrays(x, y, standardize=False).splits)
    assert sorted(found.flatten().tolist()) == x.flatten().tolist()
    assert np.array_equal(labels, y[found.flatten().long()])


@pytest.mark.parametrize("counts", [(60, 60), (100, 8), (4, 4), (5, 400), (11, 7)], ids=str)
def test_every_class_has_the_same_share_of_each_split_and_a_sample_at_least(counts):
    y = np.repeat([0, 1], counts)
    task = task_from_arrays(np.zeros((len(y), 1)), y, fractions=(0.5, 0.2, 0.2, 0.1))
    for split, fraction in zip(task.splits.values(), (0.5, 0.2, 0.2, 0.1), strict=True):
        for found, count in zip(np.bincount(split.y, minlength=2), counts, strict=True):
            assert found >= 1
            assert abs(found - fraction * count) <= 1 + (count < 10)


def test_classes_are_mixed_within_a_split():
    labels = task_from_arrays(np.zeros((300, 1)), np.repeat([0, 1], 150)).splits["train"].y
    assert 60 < (labels[:-1] != labels[1:]).sum() < 120


def test_splits_follow_from_the_seed_alone():
    made = [joined(task_from_arrays(NUMBERS, Y, seed=seed).splits)[0] for seed in (3, 3, 4)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_making_a_task_draws_from_no_global_stream():
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state()  # noqa: NPY002
    with torch.device("meta"):  # stands for an accelerator that is the default
        task = task_from_arrays(NUMBERS, Y)
    assert (random.getstate(), str(np.random.get_state())) == before[:2]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
    assert all(split.x.device.type == "cpu" for split in task.splits.values())


def test_samples_for_the_test_split_are_the_test_split():
    task = task_from_arrays(NUMBERS, Y, x_test=NUMBERS[:5] + 1, y_test=Y[:5], fractions=(0.2, 0.2, 0.1, 0.5))
    assert [len(split) for split in task.splits.values()] == [36, 36, 18, 5]
    assert torch.equal(task.splits["test"].x, task.prepare(NUMBERS[:5] + 1))
    assert np.array_equal(task.splits["test"].y, Y[:5])


# ── samples ─────────────────────────────────────────────────────────────────────────────────────


def test_numbers_are_standardised_over_the_train_split():
    x = task_from_arrays(NUMBERS, Y).splits["train"].x
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(dim=0, correction=0), torch.tensor([1.0, 1.0, 1.0, 0.0]))


def test_pictures_are_standardised_by_channel():
    x = np.stack([PICTURES, PICTURES // 4, 255 - PICTURES], axis=1)
    found = task_from_arrays(x, Y).splits["train"].x
    assert found.shape[1:] == (3, 8, 8)
    torch.testing.assert_close(found.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(dim=(0, 2, 3), correction=0), torch.ones(3))


@pytest.mark.parametrize("layout", [None, "NHWC"])
def test_channels_may_be_last(layout):
    first = np.stack([PICTURES, PICTURES // 2], axis=1)
    tasks = [task_from_arrays(first, Y), task_from_arrays(first.transpose(0, 2, 3, 1), Y, layout=layout)]
    assert torch.equal(*(joined(task.splits)[0] for task in tasks))


@pytest.mark.parametrize("x, scale", [(NUMBERS, 1), (PICTURES, 255), (PICTURES * 1.0, 1)], ids=["x", "bytes", "floats"])
def test_without_standardizing_only_bytes_are_scaled(x, scale):
    found = joined(task_from_arrays(x, Y, standardize=False).splits)[0]
    assert found.double().sum() == pytest.approx(x.sum() / scale)


@pytest.mark.parametrize("x", [NUMBERS, PICTURES, np.stack([PICTURES] * 3, axis=3)], ids=["numbers", "grey", "colour"])
def test_new_samples_are_prepared_as_those_of_the_task(x):
    task = task_from_arrays(x, Y, x_test=x[:9], y_test=Y[:9])
    assert torch.equal(task.prepare(x[:9]), task.splits["test"].x)


@pytest.mark.parametrize(
    "x, new, sentence",
    [
        (NUMBERS, NUMBERS[:, :3], "`x` must have samples of shape (4,), got (3,). Cut or resize them."),
        (NUMBERS, WRONG_NUMBERS, "`x` must be finite, got NaN or infinity in 1 of 90 samples, first in number 12."),
        (PICTURES, PICTURES / 255, "`x` must be uint8, as in the task, got float64."),
        (PICTURES / 255, PICTURES, "`x` must be no uint8, as in the task, got uint8."),
        (TOKENS, TOKENS + 1, "`x` must have tokens below 7, got 7. Replace unknown ones."),
        (TOKENS, np.zeros((2, 7), dtype=int), "`x` must have samples of shape (6,), got (7,). Cut or resize them."),
    ],
)
def test_new_samples_of_another_kind_are_refused(x, new, sentence):
    prepare = task_from_arrays(x, Y, kind="tokens" if x is TOKENS else None).prepare
    with pytest.raises(ValueError, match=r"^`x` must ") as caught:
        prepare(new)
    assert str(caught.value).startswith(sentence)


# ── tokens ──────────────────────────────────────────────────────────────────────────────────────


def test_tokens_without_labels_are_predicted_from_those_before_them():
    task = task_from_arrays(TOKENS)
    windows = {tuple(row) for row in TOKENS.tolist()}
    for split in task.splits.values():
        assert {tuple(row) for row in torch.cat([split.x, split.y[:, -1:]], dim=1).tolist()} <= windows
        assert torch.equal(split.x[:, 1:], split.y[:, :-1])
    assert (task.num_classes, task.input_shape, task.criterion) == (7, (5,), bits_saved)
    assert task_from_arrays(TOKENS, num_classes=50).num_classes == 50


def test_the_class_of_tokens_is_the_token_behind_the_last():
    task = task_from_arrays(TOKENS, Y, kind="tokens")
    assert (task.num_classes, task.input_shape) == (7 + 3, (6,))
    logits = torch.zeros(4, 6, 2, 10)  # [B, T, N, tokens + classes]
    logits[:, -1, 0, 9], logits[:, -1, 1, 3] = 5.0, 9.0
    loss, is_correct = task.criterion(logits, torch.full((4, 2), 2))
    assert is_correct.tolist() == [[1.0, 0.0]] * 4
    assert loss[0, 1] == pytest.approx(math.log(3))
    assert torch.equal(is_correct, classify_next(logits, torch.full((4, 2), 2), num_tokens=7)[1])


# ── environments ────────────────────────────────────────────────────────────────────────────────

OWN = {
    "numbers": (NUMBERS, Y),
    "integers": (TOKENS, Y, {"kind": "numbers"}),
    "grey": (PICTURES, Y),
    "colour": (np.stack([PICTURES] * 3, axis=1) / 255, Y),
    "28 pixels": (PICTURES.repeat(4, axis=1).repeat(4, axis=2)[:, :28, :28], Y),
    "3 pixels": (PICTURES[:, :3, :3], Y),
    "next token": (TOKENS, None),
    "sequences": (TOKENS, Y, {"kind": "tokens"}),
}


@pytest.mark.parametrize("name", OWN)
def test_an_environment_of_your_own_data_plays_and_gives_a_network_that_reads_them(name):
    x, y, options = (*OWN[name], {})[:3]
    settings = settings_from_arrays(f"own {name}", x, y, **options)
    assert settings["watch_samples"] == 9
    env = gym.make("Kasmina/Spirals-v0", **{**settings, **SMALL, "watch_samples": 5, "score_samples": 5}).unwrapped
    assert play_lively(env)[-1][2]
    task = TASKS.get(f"own {name}")()
    logits = env.network(committed=True)(task.prepare(x[:4, :5] if y is None else x[:4]))
    assert logits.shape[-1] == task.num_classes


def test_a_registered_environment_is_made_by_its_id():
    settings = settings_from_arrays("mine", NUMBERS, Y) | {"horizon": 3}
    kasmina_env.register_environment("Mine/Numbers-v0", "Three kinds of numbers", **settings)
    vec = gym.make_vec("Mine/Numbers-v0", num_envs=2)
    vec.reset(seed=0)
    is_over = [vec.step(np.zeros(2, dtype=int))[2].all() for _ in range(3)]
    assert is_over == [False, False, True]
    assert PRESETS.get("Mine/Numbers-v0").description == "Three kinds of numbers"


@pytest.mark.parametrize("size, stem", [(1, 1), (8, 1), (16, 1), (28, 2), (34, 2), (37, 1), (64, 4), (224, 14)])
def test_large_pictures_are_averaged_down_to_about_16_pixels(size, stem):
    task = task_from_arrays(np.zeros((8, size, size)), np.arange(8) % 2)
    assert settings_for("any", task)["host_settings"]["stem"] == stem


def test_success_lies_between_naming_the_most_frequent_class_and_naming_the_right_one():
    y = np.repeat([0, 1, 2], (60, 30, 10))
    assert settings_for("any", task_from_arrays(np.zeros((100, 2)), y))["success_score"] == pytest.approx(0.8)
