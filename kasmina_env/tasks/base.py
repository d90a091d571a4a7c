"""What a task is: data in four splits, a loss, and a quality in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from kasmina_env.registry import Registry

SPLITS = ("train", "inner_valid", "outer_valid", "test")


@dataclass(frozen=True)
class Split:
    """Samples and their labels."""

    x: Tensor  # [n, C, H, W] or [n, C]
    y: Tensor  # [n] int64

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device, dtype: torch.dtype) -> Split:
        return Split(self.x.to(device, dtype), self.y.to(device))


@dataclass(frozen=True)
class Task:
    """A classification problem.

    Attributes:
        splits: "train" the networks learn from; "inner_valid" the controller sees; the score is measured on
            "outer_valid"; "test" is reported at the end and seen by nobody.
        num_classes: Number of labels.
    """

    splits: Mapping[str, Split]
    num_classes: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.splits["train"].x.shape[1:])


def classify(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and quality of every sample of every network, in the precision of the logits.

    Args:
        logits: ``[B, N, num_classes]``.
        y: Labels ``[B, N]``.

    Returns:
        Cross-entropy in nats ``[B, N]`` and correctness 0 or 1 ``[B, N]``; logits that are not finite are not correct.
    """
    loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view_as(y)
    is_correct = (logits.argmax(dim=-1) == y) & loss.isfinite()
    return loss, is_correct.to(logits.dtype)


def split_samples(
    x: NDArray[np.float32], y: NDArray[np.int64], sizes: Mapping[str, int], seed: int
) -> dict[str, Split]:
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
    """Register a function that makes a `Task` from keyword settings; a duplicate name raises."""

    def decorate(make: MakeT) -> MakeT:
        TASKS.register(name, make)
        return make

    return decorate
