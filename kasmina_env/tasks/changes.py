"""Changes of pictures: what may happen to the data of a network in service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kasmina_env.settings.registry import Registry
from kasmina_env.tasks.base import Split
from kasmina_env.tasks.images import turn

# Pictures [n, C, H, W] of about zero mean and unit deviation, an amount, and a random stream, to changed pictures.
Apply = Callable[[Tensor, float, np.random.Generator], Tensor]
CHANGES: Registry[Apply] = Registry("change")


@dataclass(frozen=True)
class Change:
    """A change of all samples by some amount."""

    name: str
    amount: float


UNCHANGED = Change("none", 0.0)


def register_change(name: str) -> Callable[[Apply], Apply]:
    """Register a function ``(pictures, amount, rng) -> pictures`` as a change; a duplicate name raises."""

    def decorate(apply: Apply) -> Apply:
        CHANGES.register(name, apply)
        return apply

    return decorate


@register_change("none")
def unchanged(pictures: Tensor, amount: float, rng: np.random.Generator) -> Tensor:
    """The pictures as they are."""
    return pictures


@register_change("turn")
def turned(pictures: Tensor, amount: float, rng: np.random.Generator) -> Tensor:
    """Turned about the middle, by degrees."""
    return turn(pictures, amount)


@register_change("invert")
def inverted(pictures: Tensor, amount: float, rng: np.random.Generator) -> Tensor:
    """Light and dark exchanged, to a share from 0 to 1."""
    return pictures * (1 - 2 * amount)


@register_change("mirror")
def mirrored(pictures: Tensor, amount: float, rng: np.random.Generator) -> Tensor:
    """Left and right exchanged."""
    return pictures.flip(-1)


@register_change("shift")
def shifted(pictures: Tensor, amount: float, rng: np.random.Generator) -> Tensor:
    """Moved to the right by whole pixels, or to the left by fewer than none; borders are repeated."""
    width, step = pictures.shape[-1], round(amount)
    columns = (torch.arange(width, device=pictures.device) - step).clamp(0, width - 1)
    return pictures[..., columns]


@register_change("brightness")
def brightened(pictures: Tensor, amount: float, rng: np.random.Generator) -> Tensor:
    """Brighter by standard deviations of the pixels."""
    return pictures + amount


@register_change("contrast")
def contrasted(pictures: Tensor, amount: float, rng: np.random.Generator) -> Tensor:
    """Contrast multiplied."""
    return pictures * amount


@register_change("blur")
def blurred(pictures: Tensor, amount: float, rng: np.random.Generator) -> Tensor:
    """Each pixel mixed with the mean of its 3x3 neighbourhood, to a share from 0 to 1."""
    around = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return pictures + amount * (around - pictures)


@register_change("noise")
def noisy(pictures: Tensor, amount: float, rng: np.random.Generator) -> Tensor:
    """Noise added, by its standard deviation; the same for everybody."""
    return pictures + amount * torch.from_numpy(rng.standard_normal(pictures.shape)).to(pictures)


def with_changes(split: Split, changes: Sequence[Change], seed: int) -> Split:
    """The split with all its samples after each of V changes.

    Args:
        split: Pictures and their labels.
        changes: V changes, the first of which is `UNCHANGED`.
        seed: Seed of what is random in changes.
    """
    if split.x.ndim != 4 or not split.x.is_floating_point():
        raise ValueError("`instances` must have events for pictures only, got some for other data. Leave them out.")
    versions = [CHANGES.get(c.name)(split.x, c.amount, np.random.default_rng([seed, i])) for i, c in enumerate(changes)]
    return replace(split, changed=torch.stack(versions))
