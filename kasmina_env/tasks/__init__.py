"""Problems to train on. A new one is one file with one decorated function, imported here."""

from kasmina_env.tasks import cifar10, fashion_mnist, images, spirals, synthetic, text
from kasmina_env.tasks.base import (
    SPLITS,
    TASKS,
    Measure,
    Noise,
    Split,
    Task,
    classify,
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
    "cifar10",
    "classify",
    "fashion_mnist",
    "images",
    "register_task",
    "spirals",
    "synthetic",
    "text",
    "with_noise",
]
