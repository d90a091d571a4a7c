"""Handwritten digits, upright and turned; nothing has to be fetched."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kasmina_env.tasks.base import Split, Task, register_task, split_samples


@register_task("digits")
def digits() -> Task:
    """The 1 797 real 8x8 handwritten digits inside scikit-learn (Alpaydin & Kaynak 1998), scaled to zero mean."""
    table = np.loadtxt(_digits_file(), delimiter=",")  # 64 pixels from 0 to 16 and a label
    x = ((table[:, :-1] - 4.884) / 6.017).astype(np.float32).reshape(-1, 1, 8, 8)
    sizes = {"train": 900, "inner_valid": 256, "outer_valid": 320, "test": 321}
    return Task(split_samples(x, table[:, -1].astype(np.int64), sizes, seed=0), num_classes=10)


def _digits_file() -> Path:
    """File of `sklearn.datasets.load_digits`, without the import, which is slow and draws from Python's `random`."""
    package = find_spec("sklearn")
    folders = (package and package.submodule_search_locations) or ()
    found = [path for folder in folders if (path := Path(folder, "datasets", "data", "digits.csv.gz")).is_file()]
    if not found:
        raise FileNotFoundError("The digits come with scikit-learn, which is not here. Run pip install scikit-learn.")
    return found[0]


@register_task("digits_shifted")
def digits_shifted(degrees: float = 30.0) -> Task:
    """Digits that are turned, for hosts warmed up on upright ones: the data of a network in service have shifted.

    Args:
        degrees: Angle by which the pictures of the four splits are turned; those of the warm-up are not.
    """
    upright = digits()
    splits = {name: Split(turn(split.x, degrees), split.y) for name, split in upright.splits.items()}
    return Task(splits, upright.num_classes, warmup=upright.splits["train"])


def turn(pictures: Tensor, degrees: float) -> Tensor:
    """Turn pictures ``[n, C, H, H]`` about their centre, with bilinear interpolation and repeated borders."""
    size = pictures.shape[-1]
    steps = torch.arange(1 - size, size, 2, dtype=pictures.dtype, device=pictures.device)
    place = steps / size  # of pixels, from -1 to 1
    down, right = torch.meshgrid(place, place, indexing="ij")
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    source = torch.stack([cos * right - sin * down, sin * right + cos * down], dim=-1)
    return F.grid_sample(pictures, source.expand(len(pictures), -1, -1, -1), padding_mode="border", align_corners=False)
