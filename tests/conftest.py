"""How the suite runs: what is skipped and why, how many threads, which hypothesis examples."""

from __future__ import annotations

import os
import signal
from functools import cache
from importlib.util import find_spec

import hypothesis
import pytest
import torch

from kasmina_env.settings.presets import PRESETS
from kasmina_env.tasks.files import DATASETS, find

hypothesis.settings.register_profile("kasmina", derandomize=True, deadline=None, max_examples=30, database=None)
hypothesis.settings.load_profile("kasmina")

# Tests name the device they are about.
os.environ.pop("KASMINA_DEVICE", None)
# A shell that starts the suite in the background has it ignore Ctrl-C, which some tests are about.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Networks this small gain nothing from threads, which only wait for each other where the cores are shared.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --slow."""
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


@cache
def missing_data(name: str) -> str:
    """Why an environment or a task of this name cannot be made here; empty if nothing is missing."""
    task = PRESETS.get(name).settings["task"] if name in PRESETS else name
    try:
        if task in DATASETS:
            find(DATASETS.get(task))
    except FileNotFoundError as error:
        return str(error)
    return ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, each with its reason, what this run or this machine cannot do."""
    skip_reasons = {
        "slow": "" if config.getoption("--slow") else "slow: give --slow to run it",
        "gpu": "" if torch.cuda.is_available() else "gpu: no CUDA device here",
    }
    for item in items:
        for mark, reason in skip_reasons.items():
            if reason and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))
        for module in (name for mark in item.iter_markers("needs") for name in mark.args if find_spec(name) is None):
            item.add_marker(pytest.mark.skip(reason=f"needs {module}, which is not installed"))
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        for reason in filter(None, (missing_data(value) for value in parameters if isinstance(value, str))):
            item.add_marker(pytest.mark.skip(reason=reason))
