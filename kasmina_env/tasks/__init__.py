"""Problems to train on. A new one is one file with one decorated function, imported here."""

from kasmina_env.tasks import images, spirals
from kasmina_env.tasks.base import SPLITS, TASKS, Split, Task, classify, register_task

__all__ = ["SPLITS", "TASKS", "Split", "Task", "classify", "images", "register_task", "spirals"]
