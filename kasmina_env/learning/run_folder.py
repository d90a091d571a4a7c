"""Folder of a training run: made at once with the settings in it, and trained in by one process at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from kasmina_env.learning.controller_file import OLD
from kasmina_env.learning.training_config import TRAINING, TrainingConfig, load_training_config, plain
from kasmina_env.settings.documents import write_document

LOCK = ".lock"  # is there for good; what counts is who has it open


def make_run_folder(run: Path, config: TrainingConfig) -> None:
    """Make a folder with the settings in it: both are there, or neither is.

    Raises:
        FileExistsError: If there is a folder with something in it.
    """
    check_new_run(run)
    run.parent.mkdir(parents=True, exist_ok=True)
    staged = run.with_name(f".{run.name}.{os.getpid()}.tmp")
    staged.mkdir()
    try:
        write_document(staged / TRAINING, plain(config))
        if run.is_dir():
            run.rmdir()  # it is empty
        staged.rename(run)
    finally:
        for path in (staged / TRAINING, staged):
            if path.exists():
                path.unlink() if path.is_file() else path.rmdir()


def check_new_run(run: Path) -> None:
    """Raise a ``FileExistsError`` where a folder holds anything already."""
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise FileExistsError(f"`out` must be a new or empty folder, got {run}. Name another one, or resume.")


def check_resumable(run: Path, config: TrainingConfig) -> None:
    """Raise one clear sentence where a folder holds no run of these settings, `total_steps` aside."""
    if not (run / TRAINING).is_file():
        old = [name for name in OLD if (run / name).is_file()]
        why = f" with {old[0]} of an earlier version, which is not read any more" if old else ""
        raise FileNotFoundError(f"`out` must hold a training run to go on with, got {run}{why}. Train without resume.")
    found = plain(load_training_config(run / TRAINING))
    for key, value in plain(config).items():
        if key != "total_steps" and found[key] != value:
            raise ValueError(
                f"`{key}` must be {found[key]!r} as in {run}, got {value!r}. Resume with the same settings."
            )


def keep_config(run: Path, config: TrainingConfig) -> None:
    """Put the settings of a resumed run down, if they are others than before."""
    if load_training_config(run / TRAINING) != config:
        write_document(run / TRAINING, plain(config), overwrite=True)


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keep other processes from training in a folder; the lock ends with this process, however that ends.

    Files that were being written by one that was killed are removed.

    Raises:
        RuntimeError: If another one is training there.
    """
    try:
        with FileLock(run / LOCK, timeout=0):
            for left in run.rglob(".*.tmp"):  # by a process that was killed while it wrote
                left.unlink()
            yield
    except Timeout as error:
        raise RuntimeError(
            f"`out` must be trained in by one process at a time, got {run}, where another one is training. Wait for "
            "it, or name another folder."
        ) from error
