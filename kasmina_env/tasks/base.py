"""Tasks: data in four splits, with a loss and a quality."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kasmina_env.settings.registry import Registry
from kasmina_env.tasks.files import DATASETS, Dataset

SPLITS = ("train", "inner_valid", "outer_valid", "test")


class Samples(NamedTuple):
    """Samples as arrays, channels first, and their labels."""

    x: NDArray[Any]  # [n, ...]
    y: NDArray[np.int64]  # [n], or [n, T]

    def take(self, index: NDArray[np.int64]) -> Samples:
        """Samples by number."""
        return Samples(self.x[index], self.y[index])


@dataclass(frozen=True)
class Noise:
    """Noise of a split, drawn once. Each network takes as much of it as the conditions it trains under say."""

    inputs: Tensor  # [n, ...] standard normal, added to the samples after scaling
    labels: Tensor  # [n] a wrong label for each sample
    chance: Tensor  # [n] uniform in [0, 1): a label is wrong where this is below a network's label noise


@dataclass(frozen=True)
class Split:
    """Samples and their labels. Samples that are integers are tokens."""

    x: Tensor  # [n, C, H, W] or [n, F], or [n, T] int64
    y: Tensor  # [n], or [n, T], int64
    noise: Noise | None = None
    changed: Tensor | None = None  # [V, n, ...] the samples after each change of a drift, the first unchanged

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device, dtype: torch.dtype) -> Split:
        """Copy without noise, on another device; tokens stay integers."""
        return Split(self.x.to(device, dtype if self.x.is_floating_point() else None), self.y.to(device))

    def head(self, size: int) -> Split:
        """The first samples."""
        noise = self.noise and Noise(*(tensor[:size] for tensor in vars(self.noise).values()))
        changed = None if self.changed is None else self.changed[:, :size]
        return Split(self.x[:size], self.y[:size], noise, changed)


def with_noise(split: Split, num_classes: int, seed: int) -> Split:
    """Split with noise for each sample, the same for all networks.

    Args:
        split: Samples of numbers, with one label each.
        num_classes: Number of labels, at least 2.
        seed: Seed of the draw.
    """
    if not split.x.is_floating_point() or split.y.ndim != 1:
        raise ValueError("`label_noise` and `pixel_noise` must be 0 for tokens, got more. Leave them out.")
    rng = np.random.default_rng(seed)
    inputs = torch.from_numpy(rng.standard_normal(split.x.shape)).to(split.x)
    other = torch.from_numpy(rng.integers(1, num_classes, len(split))).to(split.y)
    chance = torch.from_numpy(rng.random(len(split))).to(split.x)
    return replace(split, noise=Noise(inputs, (split.y + other) % num_classes, chance))


# Function from logits [B, N, num_classes] and labels [B, N], or with T positions [B, T, N, num_classes] and [B, N, T],
# to loss and quality of every sample of every network, [B, N] each. The quality of a network is the mean of these,
# clamped to [0, 1] afterwards: clamped samples would bend the mean. On a GPU the function is recorded and replayed, so
# it must not wait for the device (`item`, a mask as index), copy to it, or count its calls.
Criterion = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def losses(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy in nats, ``[B, N]``, or ``[B, T, N]`` where each of T positions has a label."""
    labels = y.movedim(1, -1)
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none").view(labels.shape)


def over_positions(values: Tensor) -> Tensor:
    """Mean over positions, where there are any: ``[B, N]``."""
    return values if values.ndim == 2 else values.mean(dim=1)


def classify(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Criterion of classification.

    Args:
        logits: Predictions ``[B, N, num_classes]`` or ``[B, T, N, num_classes]``.
        y: Labels ``[B, N]`` or ``[B, N, T]``.

    Returns:
        Cross-entropy in nats and share of correct labels, ``[B, N]`` each. Predictions that are not finite are wrong.
    """
    loss = losses(logits, y)
    is_correct = (logits.argmax(dim=-1) == y.movedim(1, -1)) & loss.isfinite()
    return over_positions(loss), over_positions(is_correct.to(logits.dtype))


def classify_next(logits: Tensor, y: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
    """Criterion of classifying sequences: the class is one more token, predicted behind the last one.

    Args:
        logits: Predictions ``[B, T, N, num_tokens + classes]``; only those of classes count.
        y: Labels ``[B, N]``.
        num_tokens: Number of different tokens.

    Returns:
        As `classify`.
    """
    return classify(logits[:, -1, :, num_tokens:], y)


def bits_saved(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Criterion of predicting characters or other tokens.

    Quality is ``1 - bits per token / log2(num_classes)``: 1 for certainty, 0 for a guess in which all tokens are
    equally likely, below 0 for a worse one. It is linear in the bits, so its mean is that of all tokens.

    Args:
        logits: Predictions ``[B, T, N, num_classes]``.
        y: Next tokens ``[B, N, T]``.

    Returns:
        Cross-entropy in nats and quality, ``[B, N]`` each; quality is 0 where the loss is not finite.
    """
    loss = over_positions(losses(logits, y))
    return loss, torch.where(loss.isfinite(), 1 - loss / math.log(logits.shape[-1]), 0)


@dataclass(frozen=True)
class Task:
    """Samples whose labels, or next tokens, are to be predicted.

    Attributes:
        splits: Networks learn from "train", the controller sees "inner_valid", the score is measured on "outer_valid",
            and "test" is reported at the end and seen by nobody.
        num_classes: Number of logits: of labels, or of tokens.
        criterion: Loss and quality; by default cross-entropy and accuracy.
        warmup: Samples that hosts are trained on before an episode; None for "train".
        prepare: Function that makes new samples ready for a network of this task.

    Raises:
        ValueError: If a split is missing or empty, samples differ in shape or are not finite, or labels are not
            integers from 0 to `num_classes` - 1.
    """

    splits: Mapping[str, Split]
    num_classes: int
    criterion: Criterion = classify
    warmup: Split | None = None
    prepare: Callable[[ArrayLike], Tensor] | None = None

    def __post_init__(self) -> None:
        if set(self.splits) != set(SPLITS):
            raise ValueError(f"`splits` must be {', '.join(SPLITS)}, got {', '.join(self.splits) or 'none'}. Make all.")
        for name, split in self.splits.items():
            _check_split(name, split, self)
        if self.warmup is not None:
            _check_split("warmup", self.warmup, self)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.splits["train"].x.shape[1:])


def _check_split(name: str, split: Split, task: Task) -> None:
    x, y = split.x, split.y
    if len(x) != len(y) or not len(x):
        raise ValueError(f"`{name}` must have a label for each sample, got {len(y)} for {len(x)}. Give as many.")
    if tuple(x.shape[1:]) != task.input_shape:
        raise ValueError(f"`{name}` must have samples of shape {task.input_shape}, as train, got {tuple(x.shape[1:])}.")
    if x.dtype != torch.int64 and not x.is_floating_point():
        raise ValueError(f"`{name}` must have samples of floats, or of int64 for tokens, got {x.dtype}. Convert them.")
    if not x.isfinite().all():
        raise ValueError(f"`{name}` must have finite samples, got NaN or infinity. Leave them out, or fill them in.")
    low, high = int(y.min()), int(y.max())
    if y.dtype != torch.int64 or low < 0 or high >= task.num_classes:
        raise ValueError(
            f"`{name}` must have labels of int64 from 0 to {task.num_classes - 1}, got {y.dtype} from {low} to {high}."
        )


def split_samples(x: NDArray[Any], y: NDArray[np.int64], sizes: Mapping[str, int], seed: int) -> dict[str, Split]:
    """Shuffle samples and cut them into splits of the given sizes.

    Args:
        x: Samples ``[n, ...]``.
        y: Labels ``[n]``.
        sizes: Number of samples of each split, at least 1; their sum is at most n.
        seed: Seed of the shuffle. Registered tasks fix it, so that everybody has the same splits.
    """
    if min(sizes.values()) < 1:
        raise ValueError(f"`sizes` must be at least 1 each, got {dict(sizes)}. Give every split a sample.")
    if sum(sizes.values()) > len(y):
        raise ValueError(f"`sizes` must sum to at most {len(y)} samples, got {dict(sizes)}. Make a split smaller.")
    order = np.random.default_rng(seed).permutation(len(y))
    splits, start = {}, 0
    for name, size in sizes.items():
        index = order[start : start + size]
        splits[name] = Split(torch.from_numpy(x[index]), torch.from_numpy(y[index]))
        start += size
    return splits


TASKS: Registry[Callable[..., Task]] = Registry("task")
MakeT = TypeVar("MakeT", bound=Callable[..., Task])


def register_task(name: str) -> Callable[[MakeT], MakeT]:
    """Register a function that makes a `Task` from keyword settings; a name that is taken raises.

    Settings annotated with one of `kasmina_env.settings.config.KINDS` are checked before the function is called.
    """

    def decorate(make: MakeT) -> MakeT:
        TASKS.register(name, make)
        return make

    return decorate


def register_dataset(dataset: Dataset) -> Callable[[MakeT], MakeT]:
    """Register the files of a dataset and the function that makes its `Task`, both under the dataset's name."""

    def decorate(make: MakeT) -> MakeT:
        DATASETS.register(dataset.name, dataset)
        return register_task(dataset.name)(make)

    return decorate
