"""Tasks to train networks on. A new one is one file here with one decorated function."""

from kasmina_env.settings.registry import import_members
from kasmina_env.tasks.arrays import task_from_arrays
from kasmina_env.tasks.base import (
    SPLITS,
    TASKS,
    Criterion,
    Noise,
    Split,
    Task,
    classify,
    register_dataset,
    register_task,
    with_noise,
)
from kasmina_env.tasks.files import DATASETS
from kasmina_env.tasks.own import settings_for, settings_from_arrays

__all__ = [
    "DATASETS",
    "SPLITS",
    "TASKS",
    "Criterion",
    "Noise",
    "Split",
    "Task",
    "classify",
    "register_dataset",
    "register_task",
    "settings_for",
    "settings_from_arrays",
    "task_from_arrays",
    "with_noise",
]

import_members(__name__, __path__)
