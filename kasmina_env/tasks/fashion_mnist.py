"""Fashion-MNIST, from its IDX files."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np

from kasmina_env.tasks.base import Samples, Task, different_samples, official_task, register_task
from kasmina_env.tasks.files import DATASETS, find, read

UNSIGNED_BYTE = 0x08  # IDX code of the element type
MEAN, DEVIATION = 0.2860, 0.3530  # of the training pixels in [0, 1]


def parse_idx(contents: bytes, num_axes: int) -> np.ndarray:
    """An array of unsigned bytes from the contents of an IDX file (LeCun et al. 1998).

    Args:
        contents: Two zero bytes, type code, number of axes, a big-endian 32-bit size for each, then the elements.
        num_axes: How many there must be.

    Raises:
        ValueError: If the header is another one, or does not fit the length.
    """
    start = 4 + 4 * num_axes
    if contents[:4] != bytes([0, 0, UNSIGNED_BYTE, num_axes]) or len(contents) < start:
        raise ValueError(
            f"`contents` must begin as an IDX file of bytes with {num_axes} axes, got {contents[:4].hex(' ')!r}. "
            "Give another file."
        )
    shape = np.frombuffer(contents, ">u4", num_axes, offset=4).tolist()
    if len(contents) != start + math.prod(shape):
        raise ValueError(
            f"`contents` must have {start + math.prod(shape)} bytes for shape {tuple(shape)}, got {len(contents)}. "
            "Give a whole file."
        )
    return np.frombuffer(contents, np.uint8, offset=start).reshape(shape)


@lru_cache(maxsize=1)  # reading takes a second, and every environment of this task reads
def _samples(paths: tuple[tuple[str, Path, int], ...]) -> tuple[Samples, Samples]:
    """Training and test samples from the files, which are identified by path and time of change."""
    dataset = DATASETS.get("fashion_mnist")
    places = {name: path for name, path, _ in paths}
    contents = {file.name: read(dataset, file, places[file.name]) for file in dataset.files}
    train, test = (
        Samples(
            parse_idx(contents[f"{part}-images-idx3-ubyte.gz"], 3)[:, None],
            parse_idx(contents[f"{part}-labels-idx1-ubyte.gz"], 1).astype(np.int64),
        )
        for part in ("train", "t10k")
    )
    return different_samples(train, test)


@register_task("fashion_mnist")
def fashion_mnist(train: int = 10_000, inner_valid: int = 500, outer_valid: int = 1000, test: int = 1000) -> Task:
    """Grey 28x28 pictures of clothes (Xiao et al. 2017), as many as asked for.

    Args:
        train, inner_valid, outer_valid: Samples from the official training set; together at most 60 000.
        test: Samples from the official test set.
    """
    paths = find(DATASETS.get("fashion_mnist"))
    learned, tested = _samples(tuple((name, path, path.stat().st_mtime_ns) for name, path in paths.items()))
    sizes = {"train": train, "inner_valid": inner_valid, "outer_valid": outer_valid, "test": test}
    return official_task(learned, tested, sizes, MEAN, DEVIATION)
