"""CIFAR-10, from its binary version: no pickle."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kasmina_env.tasks.base import Samples, Task, register_dataset
from kasmina_env.tasks.files import DataFile, Dataset
from kasmina_env.tasks.official import official_task

ARCHIVE = DataFile(
    "cifar-10-binary.tar.gz",
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
DATASET = Dataset(
    "cifar10",
    "60 000 colour 32x32 photographs in 10 classes (Krizhevsky 2009), the binary version",
    ("https://www.cs.toronto.edu/~kriz/",),
    (ARCHIVE,),
)
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32  # bytes: a label, then the red, green and blue planes
MEANS, DEVIATIONS = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training pixels in [0, 1]
TRAIN_BATCHES, TEST_BATCHES = tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",)


def parse_batch(contents: bytes) -> Samples:
    """Samples from one file of the binary version.

    Raises:
        ValueError: If it is not made of whole records with labels from 0 to 9.
    """
    if not contents or len(contents) % RECORD:
        raise ValueError(
            f"`contents` must be whole records of {RECORD} bytes, got {len(contents)} bytes. Give a whole file."
        )
    records = np.frombuffer(contents, np.uint8).reshape(-1, RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() > 9:
        raise ValueError(f"`contents` must have labels from 0 to 9, got {labels.max()}. Give a file of CIFAR-10.")
    return Samples(records[:, 1:].reshape(-1, *SHAPE), labels)


def parse_files(contents: Mapping[str, bytes]) -> tuple[Samples, Samples]:
    """Training and test samples from the contents of the published archive, which is not unpacked to disk."""
    with tarfile.open(fileobj=io.BytesIO(contents[ARCHIVE.name]), mode="r:gz") as archive:
        files = {Path(member.name).name: archive.extractfile(member) for member in archive if member.isfile()}
        batches = {name: file.read() for name, file in files.items() if file is not None and name.endswith(".bin")}
    return _join(batches, TRAIN_BATCHES), _join(batches, TEST_BATCHES)


def _join(batches: Mapping[str, bytes], names: Sequence[str]) -> Samples:
    parts = [parse_batch(batches[name]) for name in names]
    return Samples(np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts]))


@register_dataset(DATASET)
def cifar10(train: int = 10_000, inner_valid: int = 500, outer_valid: int = 1000, test: int = 1000) -> Task:
    """Colour 32x32 photographs (Krizhevsky 2009), as many as asked for.

    Args:
        train, inner_valid, outer_valid: Samples from the official training set; together at most 50 000.
        test: Samples from the official test set.
    """
    sizes = {"train": train, "inner_valid": inner_valid, "outer_valid": outer_valid, "test": test}
    return official_task(DATASET, parse_files, sizes, MEANS, DEVIATIONS)
