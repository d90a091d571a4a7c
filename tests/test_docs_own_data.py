"""The commands on the page on your own data train, compare and export; `test_docs` runs the Python on it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kasmina_env import load_network
from tests.episodes import run_python

PAGE = Path(__file__).parents[1] / "docs" / "your-own-data.md"
PYTHON, COMMANDS = (
    re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for language in ("python", "bash")
)
FEW = {"train": ["--steps", "64", "--workers", "1"], "compare": ["--episodes", "2"], "export": ["--episodes", "2"]}


@pytest.mark.needs("matplotlib")
def test_commands_of_the_page_train_compare_and_export_with_its_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PAGE.parents[1]))
    make_data, my_flowers, *_ = PYTHON
    run_python(make_data)
    quick = my_flowers.replace("**settings", "**settings | {'horizon': 4, 'batches_per_step': 1, 'batch_size': 8}")
    (tmp_path / "my_flowers.py").write_text(quick, encoding="utf-8")
    for line in COMMANDS[0].splitlines():
        _, command, *words = line.split()
        done = subprocess.run([sys.executable, "-m", "kasmina_env", command, *words, *FEW[command]], check=False)
        assert done.returncode == 0, line
    network = load_network("flowers.safetensors")
    assert network(torch.zeros(2, 4)).shape == (2, 3)
