"""What a task is: data in four splits, a loss, and a quality in [0, 1]."""

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
    """What may be wrong with samples, drawn once; every network takes as much of it as its conditions say."""

    inputs: Tensor  # [n, ...] standard normal, added to the samples
    labels: Tensor  # [n] a wrong label
    chance: Tensor  # [n] uniform in [0, 1): the label is wrong where this is below a network's label noise


@dataclass(frozen=True)
class Split:
    """Samples and their labels. Integers, such as characters, stay integers wherever the samples go."""

    x: Tensor  # [n, C, H, W] or [n, C], or [n, T] int64
    y: Tensor  # [n], or [n, T], int64
    noise: Noise | None = None
    changed: Tensor | None = None  # [V, n, ...] the samples after each change of a drift, the first unchanged

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device, dtype: torch.dtype) -> Split:
        """Before noise is added: it is drawn where the samples are."""
        return Split(self.x.to(device, dtype if self.x.is_floating_point() else None), self.y.to(device))

    def head(self, size: int) -> Split:
        """The first samples."""
        noise = self.noise and Noise(*(tensor[:size] for tensor in vars(self.noise).values()))
        changed = None if self.changed is None else self.changed[:, :size]
        return Split(self.x[:size], self.y[:size], noise, changed)


def with_noise(split: Split, num_classes: int, seed: int) -> Split:
    """The split with something that may be wrong with each sample, the same for everybody.

    Args:
        split: Of features and one label each.
        num_classes: Number of labels, at least 2.
        seed: Of the draw.
    """
    if not split.x.is_floating_point() or split.y.ndim != 1:
        raise ValueError("`label_noise` and `pixel_noise` must be 0 for tokens, got more. Leave them out.")
    rng = np.random.default_rng(seed)
    inputs = torch.from_numpy(rng.standard_normal(split.x.shape)).to(split.x)
    other = torch.from_numpy(rng.integers(1, num_classes, len(split))).to(split.y)
    chance = torch.from_numpy(rng.random(len(split))).to(split.x)
    return replace(split, noise=Noise(inputs, (split.y + other) % num_classes, chance))


# Logits [B, N, num_classes] and labels [B, N], or one of each for T positions, [B, T, N, num_classes] and [B, N, T], to
# the loss and the quality of every sample of every network, [B, N] each. The quality of a network is the mean of those
# of its samples, clamped to [0, 1]: clamping samples would bend that mean. On a GPU it is recorded and replayed: it
# must not wait for the device (`item`, a mask as index) or copy to it, nor count how often it is called.
Measure = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def losses(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy in nats at every position: ``[B, N]``, or ``[B, T, N]`` for a label at each of T positions."""
    labels = y.movedim(1, -1)
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none").view(labels.shape)


def over_positions(values: Tensor) -> Tensor:
    """Mean over the positions of a sample, where it has them: to ``[B, N]``."""
    return values if values.ndim == 2 else values.mean(dim=1)


def classify(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and quality of every sample of every network, in the precision of the logits: a `Measure`.

    Args:
        logits: ``[B, N, num_classes]`` or ``[B, T, N, num_classes]``.
        y: Labels ``[B, N]`` or ``[B, N, T]``.

    Returns:
        Cross-entropy in nats ``[B, N]`` and share of correct labels ``[B, N]``; logits that are not finite are not
        correct.
    """
    loss = losses(logits, y)
    is_correct = (logits.argmax(dim=-1) == y.movedim(1, -1)) & loss.isfinite()
    return over_positions(loss), over_positions(is_correct.to(logits.dtype))


def classify_next(logits: Tensor, y: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
    """Loss and quality of classifying sequences: a `Measure`. The class is read off as the token behind the last one.

    Args:
        logits: Predictions ``[B, T, N, num_tokens + classes]``; those of tokens are left out.
        y: Labels ``[B, N]``.
        num_tokens: Number of different tokens.
    """
    return classify(logits[:, -1, :, num_tokens:], y)


def bits_saved(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and quality of predicting characters or other tokens: a `Measure`.

    Quality is ``1 - bits per token / log2(num_classes)``: 0 for a guess in which all tokens are equally likely, below 0
    for a worse one, 1 for certainty. It is a straight line, so the mean over samples is that of their bits. A sample
    with a loss that is not finite counts 0.

    Args:
        logits: Predictions ``[B, T, N, num_classes]``.
        y: Next tokens ``[B, N, T]``.
    """
    loss = over_positions(losses(logits, y))
    return loss, torch.where(loss.isfinite(), 1 - loss / math.log(logits.shape[-1]), 0)


@dataclass(frozen=True)
class Task:
    """A problem of giving labels to samples, or to each position of a sample.

    Attributes:
        splits: "train" the networks learn from; "inner_valid" the controller sees; the score is measured on
            "outer_valid"; "test" is reported at the end and seen by nobody.
        num_classes: Number of labels.
        measure: Loss and quality; by default cross-entropy and accuracy.
        warmup: What hosts are trained on before an episode, if not on "train".
        prepare: Makes new samples ready for a network of this task.
    """

    splits: Mapping[str, Split]
    num_classes: int
    measure: Measure = classify
    warmup: Split | None = None
    prepare: Callable[[ArrayLike], Tensor] | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.splits["train"].x.shape[1:])


def split_samples(x: NDArray[Any], y: NDArray[np.int64], sizes: Mapping[str, int], seed: int) -> dict[str, Split]:
    """Shuffle once with a fixed seed and cut into splits of the given sizes.

    Args:
        x: Samples ``[n, ...]``.
        y: Labels ``[n]``.
        sizes: Number of samples of each split, at least 1; their sum must not exceed n.
        seed: Of the shuffle: the same for everybody, so that a split is a fact and not a draw.
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
    """Register a function that makes a `Task` from keyword settings; a duplicate name raises.

    Settings annotated with one of `kasmina_env.settings.config.KINDS` are checked before it is called.
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
