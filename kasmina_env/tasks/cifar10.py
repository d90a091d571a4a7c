"""CIFAR-10, from its binary version: no pickle."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from kasmina_env.tasks.base import Samples, Task, different_samples, official_task, register_task
from kasmina_env.tasks.files import DATASETS, find, read

SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32  # bytes: a label, then the red, green and blue planes
MEANS, DEVIATIONS = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training pixels in [0, 1]
PARTS = (tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",))


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


def read_archive(contents: bytes) -> tuple[Samples, Samples]:
    """Training and test samples from the published archive, which is not unpacked to disk."""
    with tarfile.open(fileobj=io.BytesIO(contents), mode="r:gz") as archive:
        files = {Path(member.name).name: archive.extractfile(member) for member in archive if member.isfile()}
        batches = {name: file.read() for name, file in files.items() if file is not None and name.endswith(".bin")}
    train, test = ([parse_batch(batches[name]) for name in names] for names in PARTS)
    return _join(train), _join(test)


def _join(parts: Sequence[Samples]) -> Samples:
    return Samples(np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts]))


@lru_cache(maxsize=1)  # reading takes seconds, and every environment of this task reads
def _samples(path: Path, changed: int) -> tuple[Samples, Samples]:
    """Training and test samples from the archive, which is identified by path and time of change."""
    dataset = DATASETS.get("cifar10")
    return different_samples(*read_archive(read(dataset, dataset.files[0], path)))


@register_task("cifar10")
def cifar10(train: int = 10_000, inner_valid: int = 500, outer_valid: int = 1000, test: int = 1000) -> Task:
    """Colour 32x32 photographs (Krizhevsky 2009), as many as asked for.

    Args:
        train, inner_valid, outer_valid: Samples from the official training set, together at most 50 000.
        test: Samples from the official test set.
    """
    (path,) = find(DATASETS.get("cifar10")).values()
    learned, tested = _samples(path, path.stat().st_mtime_ns)
    sizes = {"train": train, "inner_valid": inner_valid, "outer_valid": outer_valid, "test": test}
    return official_task(learned, tested, sizes, MEANS, DEVIATIONS)
