"""Problems to train on. A new one is one file here with one decorated function."""

from kasmina_env.settings.registry import import_members
from kasmina_env.tasks.base import (
    SPLITS,
    TASKS,
    Measure,
    Noise,
    Split,
    Task,
    classify,
    register_dataset,
    register_task,
    with_noise,
)
from kasmina_env.tasks.files import DATASETS

__all__ = [
    "DATASETS",
    "SPLITS",
    "TASKS",
    "Measure",
    "Noise",
    "Split",
    "Task",
    "classify",
    "register_dataset",
    "register_task",
    "with_noise",
]

import_members(__name__, __path__)
