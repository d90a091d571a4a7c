"""Pictures moved and mirrored at random while a minibatch is gathered, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kasmina_env.population.stack import RandomStream

MAX_SHIFT = 1 / 8  # of the size of the picture


def draw_moves(stream: RandomStream, shape: tuple[int, ...], size: int, augment: str) -> NDArray[np.int64]:
    """How each sample of one network is changed: rows down, columns right, 1 where then mirrored, ``[*shape, 3]``.

    Args:
        stream: Random stream of the network.
        shape: Shape of the samples.
        size: Height and width of a picture.
        augment: A name in `kasmina_env.settings.config.AUGMENTATIONS` other than "none".
    """
    reach = int(size * MAX_SHIFT)
    return stream.integers((-reach, -reach, 0), (reach + 1, reach + 1, 1 + (augment == "shift_flip")), (*shape, 3))


def gather_moved(pictures: Tensor, index: Tensor, moves: Tensor) -> Tensor:
    """Take samples and change them in one gather; what a shift uncovers repeats the border.

    Args:
        pictures: ``[n, C, H, W]``, square.
        index: Which, ``[...]``.
        moves: From `draw_moves`, ``[..., 3]``.

    Returns:
        ``[..., C, H, W]``.
    """
    size = pictures.shape[-1]
    place = torch.arange(size, device=pictures.device)
    down, right, is_mirrored = (moves[..., [i]] for i in range(3))
    rows = (place - down).clamp(0, size - 1)  # [..., H]
    columns = (torch.where(is_mirrored == 1, size - 1 - place, place) - right).clamp(0, size - 1)  # [..., W]
    # indices on both sides of the channels put them last
    taken = pictures[index[..., None, None], :, rows[..., :, None], columns[..., None, :]]
    return taken.movedim(-1, -3)


def check_pictures(input_shape: Sequence[int], augment: str) -> None:
    """Raise a ``ValueError`` unless samples of this shape can be changed as asked for."""
    if augment != "none" and (len(input_shape) != 3 or input_shape[1] != input_shape[2]):
        raise ValueError(
            f"`augment` must be 'none' for samples that are not square pictures, got {augment!r} for shape "
            f"{tuple(input_shape)}. Leave it out."
        )
