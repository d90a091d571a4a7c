"""Tasks cut from datasets that are published as a training set and a test set of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from kasmina_env.tasks.base import Samples, Split, Task, split_samples
from kasmina_env.tasks.files import Dataset, find, read_all

# Contents of a dataset's files, by published name, to its training and its test samples.
Parse = Callable[[Mapping[str, bytes]], tuple[Samples, Samples]]


def official_task(
    dataset: Dataset,
    parse: Parse,
    sizes: Mapping[str, int],
    mean: float | Sequence[float],
    deviation: float | Sequence[float],
) -> Task:
    """Task in ten classes: the test split is cut from the official test set, the other three from the training set.

    Args:
        dataset: Files, which must lie on this machine.
        parse: Reader of these files.
        sizes: Number of samples of each split.
        mean, deviation: Mean and deviation of pixels in [0, 1]; one for all channels, or one for each.
    """
    stamps = tuple((path, path.stat().st_mtime_ns) for path in find(dataset).values())
    train, test = _samples(dataset, parse, stamps)
    learned = {name: size for name, size in sizes.items() if name != "test"}
    splits = split_samples(*train, learned, seed=0) | split_samples(*test, {"test": sizes["test"]}, seed=0)
    return Task({name: scale(split, mean, deviation) for name, split in splits.items()}, num_classes=10)


@lru_cache(maxsize=2)  # reading takes seconds, and every environment of the task reads
def _samples(dataset: Dataset, parse: Parse, stamps: tuple[tuple[Path, int], ...]) -> tuple[Samples, Samples]:
    """Training and test samples; other paths or times of change in `stamps` make it read again."""
    return different_samples(*parse(read_all(dataset)))


def different_samples(train: Samples, test: Samples) -> tuple[Samples, Samples]:
    """Both sets without repeated pictures: one that occurs twice is kept once, if possible in the test set."""
    first: dict[bytes, int] = {}
    for number, picture in enumerate([*test.x, *train.x]):
        first.setdefault(picture.tobytes(), number)
    numbers = np.fromiter(first.values(), dtype=np.int64)
    in_test = numbers[numbers < len(test.y)]
    in_train = numbers[numbers >= len(test.y)] - len(test.y)
    return train.take(in_train), test.take(in_test)


def scale(split: Split, mean: float | Sequence[float], deviation: float | Sequence[float]) -> Split:
    """Bytes to float32 with about zero mean and unit deviation.

    Args:
        split: Pictures ``[n, C, H, W]`` of bytes.
        mean, deviation: Mean and deviation of pixels in [0, 1]; one for all channels, or one for each.
    """
    x = split.x.to(torch.float32) / 255
    shift, width = (torch.tensor(value, dtype=x.dtype, device=x.device).view(-1, 1, 1) for value in (mean, deviation))
    return Split((x - shift) / width, split.y)
