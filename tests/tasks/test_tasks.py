"""Every registered task: four splits that share nothing, the same for everybody, and something to learn in them."""

from __future__ import annotations

import io
import math
import re
import tarfile
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from kasmina_env.networks.hosts import CNNHost, Host, MLPHost, TransformerHost
from kasmina_env.population import Optimizer, Population
from kasmina_env.tasks import SPLITS, TASKS, Split, Task, cifar10, classify, images, register_task
from kasmina_env.tasks.base import Samples, bits_saved, split_samples
from kasmina_env.tasks.cifar10 import parse_batch
from kasmina_env.tasks.fashion_mnist import parse_idx
from kasmina_env.tasks.images import turn
from kasmina_env.tasks.official import different_samples, scale
from kasmina_env.tasks.text import ALPHABET, UNKNOWN

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
def test_every_label_is_in_range_and_of_a_class_in_every_split(name):
    wanted = set(range(task(name).num_classes))
    for split in task(name).splits.values():
        found = set(split.y.flatten().tolist())
        # a rare character is not everywhere
        assert found == wanted if split.y.ndim == 1 else found <= wanted


@every_task
def test_no_sample_is_in_two_splits(name):
    samples = [{row.tobytes() for row in split.x.flatten(1).numpy()} for split in task(name).splits.values()]
    assert len(set.union(*samples)) == sum(map(len, samples))


@every_task
def test_a_task_is_the_same_every_time(name):
    again = TASKS.get(name)()
    for split_name, split in task(name).splits.items():
        assert torch.equal(split.x, again.splits[split_name].x)
        assert torch.equal(split.y, again.splits[split_name].y)


@every_task
def test_a_task_is_the_same_whatever_device_is_the_callers_default(name):
    with torch.device("meta"):  # stands for an accelerator that is the default
        again = TASKS.get(name)()
    assert all(torch.equal(split.x, again.splits[key].x) for key, split in task(name).splits.items())
    assert all(torch.equal(split.y, again.splits[key].y) for key, split in task(name).splits.items())


@every_task
def test_features_that_are_numbers_are_scaled_for_a_network(name):
    x = task(name).splits["train"].x
    if not x.is_floating_point():
        assert x.dtype == torch.int64  # characters
        return
    assert abs(x.mean()) < 0.2
    assert 0.3 < x.std() < 3


def suitable_host(found: Task) -> Host:
    if len(found.input_shape) == 3:
        channels, size, _ = found.input_shape
        stem = 2 if size % 2 == 0 and size > 8 else 1
        return CNNHost(channels, size, found.num_classes, width=8, kernels=(3, 3, 3), stem=stem)
    if not found.splits["train"].x.is_floating_point():
        return TransformerHost(found.num_classes, *found.input_shape, width=16, num_layers=1, num_segments=1)
    return MLPHost(found.input_shape[0], found.num_classes, width=32, depth=2)


@every_task
def test_a_task_can_be_learned(name):
    population = Population(
        suitable_host(task(name)), [0, 1], Optimizer(learning_rate=0.02), criterion=task(name).criterion
    )
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


def test_digits_are_those_of_scikit_learn():
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))[:900]
    split = task("digits").splits["train"]
    assert np.allclose(split.x.flatten(1) * 6.017 + 4.884, pixels[order], atol=1e-5)
    assert np.array_equal(split.y, labels[order])


def test_digits_without_scikit_learn_are_an_error_that_says_so(monkeypatch):
    monkeypatch.setattr(images, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"^The digits come with scikit-learn, which is not here\."):
        TASKS.get("digits")()


def test_pictures_are_turned_where_they_are():
    pictures = torch.rand(2, 1, 8, 8)
    turned = turn(pictures, 90.0)
    with torch.device("meta"):  # stands for an accelerator that is the default
        assert torch.equal(turn(pictures, 90.0), turned)
    torch.testing.assert_close(turned, torch.rot90(pictures, 1, (2, 3)))


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


# ── Fashion-MNIST ───────────────────────────────────────────────────────────────────────────────


def idx(*shape: int, code: int = 8) -> bytes:
    """An IDX file that counts up."""
    header = bytes([0, 0, code, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    return header + bytes(i % 256 for i in range(int(np.prod(shape))))


def test_an_idx_file_is_read_in_its_shape():
    assert np.array_equal(parse_idx(idx(3, 4, 5), 3), np.arange(60).reshape(3, 4, 5))
    assert np.array_equal(parse_idx(idx(300), 1), np.arange(300) % 256)


@pytest.mark.parametrize(
    "contents, sentence",
    [
        (idx(3, 4, 5)[:-1], "`contents` must have 76 bytes for shape (3, 4, 5), got 75. Give a whole file."),
        (idx(3, 4, 5) + b"!", "`contents` must have 76 bytes for shape (3, 4, 5), got 77. Give a whole file."),
        (idx(60), "`contents` must begin as an IDX file of bytes with 3 axes, got '00 00 08 01'. Give another file."),
        (idx(3, 4, 5, code=13), "`contents` must begin as an IDX file of bytes with 3 axes, got '00 00 0d 03'."),
        (idx(3, 4, 5)[:9], "`contents` must begin as an IDX file of bytes with 3 axes, got '00 00 08 03'."),
        (b"", "`contents` must begin as an IDX file of bytes with 3 axes, got ''."),
    ],
    ids=["cut", "too long", "labels", "floats", "cut in the header", "empty"],
)
def test_a_wrong_idx_header_is_named_in_one_sentence(contents, sentence):
    with pytest.raises(ValueError, match=r"^`contents` must ") as caught:
        parse_idx(contents, 3)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_the_official_test_set_stays_the_test_split(name):
    small, large = (TASKS.get(name)(train=100, inner_valid=10, outer_valid=20, test=size) for size in (10, 10_000))
    assert {name: len(split) for name, split in small.splits.items()} == {
        "train": 100,
        "inner_valid": 10,
        "outer_valid": 20,
        "test": 10,
    }
    assert np.bincount(large.splits["test"].y).tolist() == [1000] * 10  # as published
    with pytest.raises(ValueError, match=r"^`sizes` must sum to at most 10000 samples, got \{'test': 10001\}"):
        TASKS.get(name)(test=10_001)


# ── CIFAR-10 ────────────────────────────────────────────────────────────────────────────────────


def batch(labels: list[int], seed: int = 0) -> tuple[bytes, np.ndarray]:
    """A file of the binary version, and its pixels."""
    pixels = np.random.default_rng(seed).integers(256, size=(len(labels), 3072), dtype=np.uint8)
    records = np.concatenate([np.array(labels, dtype=np.uint8)[:, None], pixels], axis=1)
    return records.tobytes(), pixels.reshape(-1, 3, 32, 32)


def test_a_binary_batch_is_labels_and_colour_planes():
    contents, pixels = batch([3, 0, 9])
    samples = parse_batch(contents)
    assert samples.y.tolist() == [3, 0, 9]
    assert np.array_equal(samples.x, pixels)


@pytest.mark.parametrize(
    "contents, sentence",
    [
        (batch([1, 2])[0][:-1], "`contents` must be whole records of 3073 bytes, got 6145 bytes. Give a whole file."),
        (b"", "`contents` must be whole records of 3073 bytes, got 0 bytes. Give a whole file."),
        (batch([1, 10])[0], "`contents` must have labels from 0 to 9, got 10. Give a file of CIFAR-10."),
    ],
    ids=["cut", "empty", "label"],
)
def test_a_wrong_binary_batch_is_named_in_one_sentence(contents, sentence):
    with pytest.raises(ValueError, match=r"^`contents` must ") as caught:
        parse_batch(contents)
    assert str(caught.value) == sentence


def test_the_archive_is_five_training_batches_and_a_test_batch():
    names = [*(f"data_batch_{i}.bin" for i in (2, 1, 5, 4, 3)), "test_batch.bin", "batches.meta.txt"]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for i, name in enumerate(names):
            contents = b"airplane" if name.endswith(".txt") else batch([i, i + 1])[0]
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))
    train, test = cifar10.parse_files({cifar10.ARCHIVE.name: packed.getvalue()})
    assert train.y.tolist() == [1, 2, 0, 1, 4, 5, 3, 4, 2, 3]
    assert test.y.tolist() == [5, 6]
    assert train.x.shape == (10, 3, 32, 32)


# ── synthetic pictures ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("image_size, in_channels, num_classes", [(28, 1, 10), (32, 3, 4), (5, 2, 2), (13, 1, 3)])
def test_synthetic_pictures_have_any_size(image_size, in_channels, num_classes):
    made = TASKS.get("synthetic")(image_size, in_channels, num_classes, train=40, inner_valid=30, outer_valid=20)
    assert made.input_shape == (in_channels, image_size, image_size)
    assert {name: len(split) for name, split in made.splits.items()} == {
        "train": 40,
        "inner_valid": 30,
        "outer_valid": 20,
        "test": 256,
    }


def test_another_seed_makes_other_synthetic_pictures():
    first, other = (TASKS.get("synthetic")(seed=seed).splits["train"].x for seed in (0, 1))
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "name, setting, value",
    [
        ("synthetic", "image_size", 0),
        ("synthetic", "train", -5000),
        ("spirals", "num_classes", 0),
        ("text", "context", 0),
        ("text", "context", -1),
    ],
)
def test_a_count_below_one_is_refused(name, setting, value):
    with pytest.raises(ValueError, match=rf"^`{setting}` must be from 1 to 1048576, got {value}\. Raise it\.$"):
        TASKS.get(name)(**{setting: value})


# ── text ────────────────────────────────────────────────────────────────────────────────────────


def readable(split: Split) -> list[str]:
    """Each window with the character that follows its last."""
    windows = torch.cat([split.x, split.y[:, -1:]], dim=1)
    return ["".join((*ALPHABET, "\ufffd")[i] for i in window) for window in windows.tolist()]


def test_labels_of_text_are_the_next_characters():
    for split in task("text").splits.values():
        assert torch.equal(split.x[:, 1:], split.y[:, :-1])


def test_splits_of_text_are_regions_that_share_no_window_of_a_line():
    """The topics quote each other; a validation that could be learned by heart would measure nothing."""
    regions = {name: "".join(readable(split)) for name, split in task("text").splits.items()}
    for name in ("inner_valid", "outer_valid", "test"):
        windows = [regions[name][i : i + 48] for i in range(0, len(regions[name]) - 48, 48)]
        assert sum(window in regions["train"] for window in windows) <= 0.02 * len(windows)


@pytest.mark.parametrize("num_batches", [1, 10, 60])
def test_quality_of_text_is_that_of_the_bits_per_character_of_all_windows(num_batches):
    """Also where single windows cost more bits than a guess."""
    population, data = Population(suitable_host(task("text")), [0, 1], criterion=bits_saved), task("text").splits
    alpha = np.zeros((2, population.num_slots))
    population.train(*population.draw_minibatches(data["train"], num_batches, 16), alpha)
    quality = population.evaluate(data["test"], alpha)[1][0]
    for row in range(2):
        network = population.network(row, alpha[row]).requires_grad_(False)
        nats = F.cross_entropy(network(data["test"].x).flatten(0, 1), data["test"].y.flatten())
        assert float(quality[row]) == pytest.approx(1 - float(nats) / math.log(97), abs=1e-6)


def test_quality_of_a_network_that_spends_more_bits_than_a_guess_is_0():
    population, alpha = Population(suitable_host(task("text")), [0], criterion=bits_saved), np.zeros((1, 1))
    population._networks.hosts.parameters.mul_(100)
    loss, quality = population.evaluate(task("text").splits["test"], alpha)
    assert loss > math.log(97)
    assert quality == 0


def test_the_vocabulary_is_fixed_and_the_rest_is_unknown():
    assert task("text").num_classes == len(set(ALPHABET)) + 1 == 97
    x = task("text").splits["train"].x
    assert 0 < (x == UNKNOWN).double().mean() < 0.02


def test_a_context_for_which_the_text_is_too_short_is_refused():
    with pytest.raises(ValueError, match=r"^`context` must be at most \d+, got 1000\. The text is too short"):
        TASKS.get("text")(context=1000)


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


def test_a_picture_that_occurs_twice_is_kept_once_and_rather_in_the_test_set():
    def pictures(*values: int) -> Samples:
        return Samples(np.array(values, dtype=np.uint8).reshape(-1, 1, 1, 1), np.array(values))

    train, test = different_samples(pictures(1, 2, 2, 3, 4), pictures(3, 5, 5))
    assert train.y.tolist() == train.x.ravel().tolist() == [1, 2, 4]
    assert test.y.tolist() == test.x.ravel().tolist() == [3, 5]


def test_bytes_are_scaled_by_channel():
    split = Split(torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1), torch.zeros(1))
    with torch.device("meta"):  # stands for an accelerator that is the default
        scaled = scale(split, (0.0, 0.5, 0.2), (1.0, 0.5, 0.1)).x
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(scaled.flatten(), torch.tensor([0.0, 1.0, 0.0]))


def test_a_split_moves_with_its_labels_and_its_tokens_left_whole():
    for x, dtype in ((torch.ones(3, 2), torch.float64), (torch.ones(3, 2, dtype=torch.int64), torch.int64)):
        split = Split(x, torch.arange(3)).to(torch.device("cpu"), torch.float64)
        assert (split.x.dtype, split.y.dtype) == (dtype, torch.int64)


def test_classification_scores_every_sample_of_every_network():
    logits = torch.zeros(2, 3, 4)
    logits[0, :, 1] = 5.0
    loss, is_correct = classify(logits, torch.tensor([[1, 1, 0], [0, 1, 2]]))
    assert is_correct.tolist() == [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    torch.testing.assert_close(loss[1], torch.full((3,), 4.0).log())


def test_labels_at_every_position_are_scored_by_their_mean():
    logits, y = torch.randn(2, 5, 3, 4), torch.randint(4, (2, 3, 5))  # [B, T, N, C] and [B, N, T]
    apart = [classify(logits[:, t], y[:, :, t]) for t in range(5)]
    for found, parts in zip(classify(logits, y), zip(*apart, strict=True), strict=True):
        torch.testing.assert_close(found, torch.stack(parts).mean(dim=0))


def toy_task(**changes) -> Task:
    """A task of two classes, with some of its parts replaced."""
    split = Split(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0]))
    parts = {"splits": dict.fromkeys(SPLITS, split), "num_classes": 2, **changes}
    return Task(**{**parts, "splits": {**dict.fromkeys(SPLITS, split), **parts["splits"]}})


@pytest.mark.parametrize(
    "x, y, sentence",
    [
        (torch.zeros(4, 2), torch.tensor([0, 1, 2, 0]), "labels of int64 from 0 to 1, got torch.int64 from 0 to 2."),
        (torch.zeros(4, 2), torch.tensor([0, -1, 1, 0]), "labels of int64 from 0 to 1, got torch.int64 from -1 to 1."),
        (torch.zeros(4, 2), torch.ones(4), "labels of int64 from 0 to 1, got torch.float32 from 1 to 1."),
        (torch.zeros(4, 2), torch.zeros(3).long(), "a label for each sample, got 3 for 4. Give as many."),
        (torch.zeros(0, 2), torch.zeros(0).long(), "a label for each sample, got 0 for 0. Give as many."),
        (torch.zeros(4, 3), torch.zeros(4).long(), "samples of shape (2,), as train, got (3,)."),
        (torch.full((4, 2), torch.nan), torch.zeros(4).long(), "finite samples, got NaN or infinity."),
        (torch.zeros(4, 2).byte(), torch.zeros(4).long(), "samples of floats, or of int64 for tokens, got torch.uint8"),
    ],
)
def test_a_split_that_is_wrong_is_named_in_one_sentence(x, y, sentence):
    for name, parts in (("test", {"splits": {"test": Split(x, y)}}), ("warmup", {"warmup": Split(x, y)})):
        with pytest.raises(ValueError, match="^" + re.escape(f"`{name}` must have {sentence}")):
            toy_task(**parts)


def test_a_task_without_a_split_is_refused():
    splits = {name: split for name, split in toy_task().splits.items() if name != "test"}
    with pytest.raises(
        ValueError, match=r"^`splits` must be train, inner_valid, outer_valid, test, got train, inner_v"
    ):
        Task(splits, 2)


def test_a_task_is_not_replaced():
    with pytest.raises(ValueError, match="`task` must have a new name, got 'digits' a second time"):
        register_task("digits")(lambda: None)
