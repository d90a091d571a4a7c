"""Tasks made of your own arrays: checked, cut into four stratified splits, standardised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kasmina_env.settings.config import is_int
from kasmina_env.tasks.base import SPLITS, Samples, Split, Task, bits_saved, classify, classify_next

Kind = Literal["images", "numbers", "tokens"]
Layout = Literal["NCHW", "NHWC"]
Array = NDArray[Any]
Integers = NDArray[np.int64]
SHAPES = {"images": "[n, H, W], [n, C, H, W] or [n, H, W, C]", "numbers": "[n, F]", "tokens": "[n, T]"}
NUM_AXES = {"images": (3, 4), "numbers": (2,), "tokens": (2,)}
FRACTIONS = (0.6, 0.1, 0.15, 0.15)
MOST_CHANNELS = 4  # the longest axis that is taken for that of channels unasked


@dataclass(frozen=True, eq=False)
class Preparation:
    """Makes new samples ready for a network, as those of its task were.

    Attributes:
        kind: Content of the samples.
        layout: Axes of pictures; None where their shape tells.
        shape: Shape of one sample, channels first.
        mean, deviation: Mean and deviation over the train split, ``[C, 1, 1]`` for pictures and ``[F]`` for numbers;
            0 and 1 where nothing is standardised.
        num_tokens: Number of different tokens; 0 for pictures and numbers.
        is_bytes: Whether the samples are bytes, which in pictures go to 255 and not to 1.
    """

    kind: Kind
    layout: Layout | None
    shape: tuple[int, ...]
    mean: Array
    deviation: Array
    num_tokens: int = 0
    is_bytes: bool = False

    def __call__(self, x: ArrayLike) -> Tensor:
        """Samples ``[n, ...]`` as networks read them; of tokens there may be fewer in each than in the task's."""
        found = _read_samples("x", x, self.kind, self.layout)
        shape = found.shape[1:]
        if not (shape[0] <= self.shape[0] if self.num_tokens else shape == self.shape):
            raise ValueError(f"`x` must have samples of shape {self.shape}, got {shape}. Cut or resize them.")
        if self.kind == "images" and (found.dtype == np.uint8) is not self.is_bytes:
            raise ValueError(f"`x` must be {'' if self.is_bytes else 'no '}uint8, as in the task, got {found.dtype}.")
        if self.num_tokens and found.max() >= self.num_tokens:
            raise ValueError(f"`x` must have tokens below {self.num_tokens}, got {found.max()}. Replace unknown ones.")
        return self.scaled(found)

    def scaled(self, x: Array) -> Tensor:
        """Checked samples as a tensor; all but tokens are standardised."""
        if self.num_tokens:
            return torch.from_numpy(x)
        return torch.from_numpy(((x - self.mean) / self.deviation).astype(np.float32))


def task_from_arrays(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    x_test: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    kind: Kind | None = None,
    layout: Layout | None = None,
    num_classes: int | None = None,
    fractions: Sequence[float] = FRACTIONS,
    standardize: bool = True,
    seed: int = 0,
) -> Task:
    """Make a task of your own samples and labels.

    Every class has the same share of each split. Samples that occur twice, or windows of tokens that overlap, may fall
    into different splits: remove them first. `Task.prepare` makes new samples ready for a network of the task.

    Args:
        x: Pictures ``[n, H, W]``, ``[n, C, H, W]`` or ``[n, H, W, C]``, numbers ``[n, F]``, or token ids ``[n, T]``.
        y: Labels ``[n]``, integers from 0. Without them tokens are predicted, each from those before it.
        x_test, y_test: Samples of the test split; `x` and `y` are then cut into the other three.
        kind: Content of `x`: "images", "numbers" or "tokens". It must be given only for labelled integers of two
            axes, which may be numbers or tokens.
        layout: Axes of pictures, "NCHW" or "NHWC". It must be given only where the shape leaves it open.
        num_classes: Number of labels, or of different tokens where these are predicted; by default those that occur.
        fractions: Shares of the splits train, inner_valid, outer_valid and test, which sum to 1.
        standardize: Give each channel of pictures and each number mean 0 and deviation 1 over the train split.
        seed: Seed of the shuffle.

    Raises:
        ValueError: If the arrays do not make a task. The message says what to change.
    """
    kind = kind or _find_kind(x, y)
    given = _read("", x, y, kind, layout)
    has_test, has_classes = x_test is not None or y_test is not None, given.y.ndim == 1
    tested = [_read("_test", x_test, y_test, kind, layout)] if has_test else []
    for samples in tested:
        _check_alike(samples, given)
    num_labels = _count_labels([given, *tested], num_classes, has_classes)
    strata = given.y if has_classes else np.zeros(len(given.y), dtype=np.int64)
    index = _cut(strata, _shares(fractions, has_test), seed)
    parts = [*map(given.take, index), *tested]
    num_tokens = 0
    if kind == "tokens":
        num_tokens = 1 + max(int(part.x.max()) for part in parts) if has_classes else num_labels
    prepare = Preparation(
        kind=kind,
        layout=layout,
        shape=given.x.shape[1:],
        **_statistics(parts[0].x, kind, standardize),
        num_tokens=num_tokens,
        is_bytes=given.x.dtype == np.uint8,
    )
    splits = {
        name: Split(prepare.scaled(part.x), torch.from_numpy(part.y)) for name, part in zip(SPLITS, parts, strict=True)
    }
    if kind != "tokens":
        return Task(splits, num_labels, classify, prepare=prepare)
    if not has_classes:
        return Task(splits, num_tokens, bits_saved, prepare=prepare)
    # As GPTs classify: a class is one more token, the one that would follow.
    return Task(splits, num_tokens + num_labels, partial(classify_next, num_tokens=num_tokens), prepare=prepare)


# ── reading and checking ────────────────────────────────────────────────────────────────────────


def _as_array(name: str, values: ArrayLike) -> Array:
    try:
        found = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"`{name}` must be one array, got entries of different shapes. Make them equal.") from error
    if found.dtype.kind not in "biuf":
        raise ValueError(
            f"`{name}` must be numbers, got {found.dtype}. Number names with np.unique(names, return_inverse=True)[1]."
        )
    return found


def _check_alike(tested: Samples, given: Samples) -> None:
    """Raise a ``ValueError`` unless samples of the test split are of the same kind as the others."""
    if (tested.x.shape[1:], tested.y.ndim) != (given.x.shape[1:], given.y.ndim):
        raise ValueError(
            f"`x_test` must have samples of shape {given.x.shape[1:]}, with labels if `x` has some, got "
            f"{tested.x.shape[1:]}. Give samples of the same kind."
        )


def _find_kind(x: ArrayLike, y: ArrayLike | None) -> Kind:
    found = _as_array("x", x)
    if found.ndim > 2:
        return "images"
    if found.dtype.kind == "f":
        return "numbers"
    if y is None:
        return "tokens"
    raise ValueError(
        f"`kind` must be given for labelled {found.dtype} of shape {found.shape}, which may be numbers or tokens. Pass "
        "kind='numbers' or kind='tokens'."
    )


def _read(suffix: str, x: ArrayLike | None, y: ArrayLike | None, kind: Kind, layout: Layout | None) -> Samples:
    """Samples and labels, checked; what the next tokens are is in the samples themselves."""
    for name, values in (("x", x), ("y", y)):
        if values is None and not (name == "y" and kind == "tokens"):
            raise ValueError(f"`{name}{suffix}` must be given, got None. Only tokens are predicted without labels.")
    assert x is not None
    samples = _read_samples(f"x{suffix}", x, kind, layout)
    if y is not None:
        return Samples(samples, _read_labels(f"y{suffix}", y, f"x{suffix}", len(samples)))
    if samples.shape[1] < 2:
        raise ValueError(f"`x{suffix}` must have two tokens or more in each row, got one. Cut longer windows.")
    return Samples(samples[:, :-1], samples[:, 1:])


def _read_samples(name: str, x: ArrayLike, kind: Kind, layout: Layout | None) -> Array:
    if kind not in NUM_AXES:
        raise ValueError(f"`kind` must be one of {', '.join(NUM_AXES)}, got {kind!r}. Choose one.")
    found = _as_array(name, x)
    if found.ndim not in NUM_AXES[kind] or not found.size:
        raise ValueError(f"`{name}` must be {kind} of shape {SHAPES[kind]}, got {found.shape}. Reshape it.")
    if kind == "tokens":
        return _check_whole(name, found, "token ids")
    is_bad = ~(np.abs(found) <= np.finfo(np.float32).max).reshape(len(found), -1).all(axis=1)  # NaN is not, either
    if is_bad.any():
        raise ValueError(
            f"`{name}` must be finite, got NaN or infinity in {is_bad.sum()} of {len(found)} samples, first in number "
            f"{is_bad.argmax()}. Leave them out, or fill them in."
        )
    return _channels_first(name, found, layout) if kind == "images" else found


def _channels_first(name: str, x: Array, layout: Layout | None) -> Array:
    if layout not in (None, "NCHW", "NHWC"):
        raise ValueError(f"`layout` must be 'NCHW' or 'NHWC', got {layout!r}. Choose one, or leave it out.")
    if x.ndim == 3:
        return x[:, None]
    is_first, is_last = (x.shape[axis] <= MOST_CHANNELS for axis in (1, 3))
    if layout is None and is_first == is_last:
        raise ValueError(
            f"`layout` must be given for `{name}` of shape {x.shape}: channels may be the second or the last axis. "
            "Pass layout='NCHW' or layout='NHWC'."
        )
    return x if layout == "NCHW" or (layout is None and is_first) else np.moveaxis(x, 3, 1)


def _read_labels(name: str, y: ArrayLike, x_name: str, num_samples: int) -> Integers:
    found = _as_array(name, y)
    if found.shape != (num_samples,):
        raise ValueError(
            f"`{name}` must be one label for each of the {num_samples} samples of `{x_name}`, got shape {found.shape}. "
            "Give as many."
        )
    return _check_whole(name, found, "labels")


def _check_whole(name: str, found: Array, words: str) -> Integers:
    """Integers from 0, as int64."""
    if found.dtype.kind == "f":
        raise ValueError(f"`{name}` must be integers, got {found.dtype}. Convert {words} with .astype(int).")
    if found.min() < 0:
        raise ValueError(f"`{name}` must be {words} from 0, got {found.min()}. Number them from 0.")
    return found.astype(np.int64)


def _count_labels(every: Sequence[Samples], num_classes: int | None, has_classes: bool) -> int:
    """Number of labels, or of tokens where these are predicted."""
    found = np.unique(np.concatenate([samples.y.ravel() for samples in every]))
    if not has_classes:
        found = np.union1d(found, np.concatenate([samples.x.ravel() for samples in every]))
    largest = int(found[-1])
    if num_classes is not None and (not is_int(num_classes) or num_classes <= largest):
        raise ValueError(f"`num_classes` must be above the largest label, {largest}, got {num_classes}. Raise it.")
    if len(found) < 2:
        raise ValueError(f"`y` must have two different labels or more, got only {largest}. There is nothing to learn.")
    if has_classes and num_classes is None and len(found) <= largest:
        missing = np.setdiff1d(np.arange(largest), found)[0]
        raise ValueError(
            f"`y` must have every label from 0 to {largest}, got none of {missing}. Renumber them with "
            "np.unique(y, return_inverse=True)[1], or pass num_classes."
        )
    return num_classes or largest + 1


# ── splits ──────────────────────────────────────────────────────────────────────────────────────


def _shares(fractions: Sequence[float], has_test: bool) -> Array:
    """Shares of the splits that are cut: all four, or the three before the test split."""
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.shape != (len(SPLITS),) or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"`fractions` must be four numbers above 0 that sum to 1, got {fractions}. Change them.")
    shares = shares[: len(SPLITS) - has_test]
    return np.asarray(shares / shares.sum())


def _cut(strata: Integers, shares: Array, seed: int) -> list[Integers]:
    """Numbers of the samples of each split, shuffled; each has its share of every stratum, and at least one sample.

    Args:
        strata: Stratum of each sample ``[n]``.
        shares: Share of each split; they sum to 1.
        seed: Seed of the shuffle.
    """
    if not is_int(seed) or seed < 0:
        raise ValueError(f"`seed` must be an integer of at least 0, got {seed!r}. Change it.")
    rng, count = np.random.default_rng(seed), len(shares)
    parts: list[list[Integers]] = [[] for _ in shares]
    for stratum in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == stratum))
        if len(members) < count:
            of_class = f" of label {stratum}" if strata.any() else ""
            raise ValueError(
                f"`x` must have {count} samples{of_class} or more, one for each split, got {len(members)}. Give more."
            )
        ends = np.maximum(np.rint(np.cumsum(shares) * len(members)).astype(np.int64), 1)
        # each split ends behind the one before it, and leaves a sample to each one after it
        ends = np.maximum.accumulate(ends - np.arange(count)) + np.arange(count)
        ends = np.minimum(ends, len(members) - count + 1 + np.arange(count))
        for part, chosen in zip(parts, np.split(members, ends[:-1]), strict=True):
            part.append(chosen)
    return [rng.permutation(np.concatenate(part)) for part in parts]


def _statistics(x: Array, kind: Kind, standardize: bool) -> dict[str, Array]:
    """Mean and deviation of each channel ``[C, 1, 1]`` or number ``[F]``; 0 and 1, for bytes 255, where not asked."""
    if kind == "tokens" or not standardize:
        return {"mean": np.zeros(1), "deviation": np.full(1, 255.0 if x.dtype == np.uint8 else 1.0)}
    axes = (0, 2, 3) if kind == "images" else (0,)
    mean = np.asarray(np.mean(x, axis=axes, dtype=np.float64, keepdims=True))[0]
    deviation = np.asarray(np.std(x, axis=axes, dtype=np.float64, keepdims=True))[0]
    return {"mean": mean, "deviation": np.where(deviation > 0, deviation, 1.0)}
