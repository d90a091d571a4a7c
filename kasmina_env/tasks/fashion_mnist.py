"""Fashion-MNIST, from its IDX files."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from kasmina_env.tasks.base import Samples, Task, register_dataset
from kasmina_env.tasks.files import DataFile, Dataset
from kasmina_env.tasks.official import official_task

DATASET = Dataset(
    "fashion_mnist",
    "70 000 grey 28x28 pictures of clothes in 10 classes (Xiao et al. 2017)",
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    (
        DataFile(
            "train-images-idx3-ubyte.gz",
            26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        DataFile(
            "train-labels-idx1-ubyte.gz",
            29_515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        DataFile(
            "t10k-images-idx3-ubyte.gz",
            4_422_102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        DataFile(
            "t10k-labels-idx1-ubyte.gz",
            5_148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    ("/usr/share/datasets/fashion-mnist",),  # Debian's package dataset-fashion-mnist
)
UNSIGNED_BYTE = 0x08  # IDX code of the element type
MEAN, DEVIATION = 0.2860, 0.3530  # of the training pixels in [0, 1]


def parse_idx(contents: bytes, num_axes: int) -> np.ndarray:
    """Array of unsigned bytes from the contents of an IDX file (LeCun et al. 1998).

    Args:
        contents: Two zero bytes, type code, number of axes, a big-endian 32-bit size for each, then the elements.
        num_axes: Number of axes that there must be.

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


def parse_files(contents: Mapping[str, bytes]) -> tuple[Samples, Samples]:
    """Training and test samples from the contents of the four files, by name."""
    train, test = (
        Samples(
            parse_idx(contents[f"{part}-images-idx3-ubyte.gz"], 3)[:, None],
            parse_idx(contents[f"{part}-labels-idx1-ubyte.gz"], 1).astype(np.int64),
        )
        for part in ("train", "t10k")
    )
    return train, test


@register_dataset(DATASET)
def fashion_mnist(train: int = 10_000, inner_valid: int = 500, outer_valid: int = 1000, test: int = 1000) -> Task:
    """Grey 28x28 pictures of clothes (Xiao et al. 2017), as many as asked for.

    Args:
        train, inner_valid, outer_valid: Samples from the official training set; together at most 60 000.
        test: Samples from the official test set.
    """
    sizes = {"train": train, "inner_valid": inner_valid, "outer_valid": outer_valid, "test": test}
    return official_task(DATASET, parse_files, sizes, MEAN, DEVIATION)
