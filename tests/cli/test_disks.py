"""Disks that are full or may not be written to: one sentence, and what was there before is there still."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kasmina_env.learning.train import train
from kasmina_env.learning.training_config import plain
from tests.cli.running import complaint
from tests.learning.test_learners import tiny

pytest.importorskip("resource", reason="this system cannot limit the size of files")
ROOT = Path(__file__).parents[2]
CONFIG = tiny("maskable_ppo")
LONGER = dataclasses.replace(CONFIG, total_steps=96)
# A command in which no file can grow beyond a size, as on a disk that is full.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.argv = ["kasmina", *{words!r}.split()]
from kasmina_env.cli.main import main
main()
"""
TRAIN = "train --config longer.json -o run"


def answer(code: str, folder: Path) -> tuple[int, str]:
    """Exit status of a process, and the last line of its stderr."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KASMINA_ENGINE": "torch"}
    command = [sys.executable, "-B", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.strip().rpartition("\n")[2]


@pytest.fixture
def folder(tmp_path):
    """A folder with settings of a short run."""
    (tmp_path / "longer.json").write_text(json.dumps(plain(LONGER)), encoding="utf-8")
    return tmp_path


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(folder):
    train(CONFIG, folder / "run")
    before = (folder / "run" / "checkpoint.safetensors").read_bytes()
    code = LIMITED.format(limit=20_000, words=f"{TRAIN} --resume")
    assert answer(code, folder) == (2, "error: File too large: run/checkpoint.safetensors.")
    assert (folder / "run" / "checkpoint.safetensors").read_bytes() == before
    assert train(LONGER, folder / "run", resume=True).num_timesteps == 96


@pytest.mark.parametrize("words", [TRAIN, "rollout Kasmina/Spirals-v0 --every 99 --log log.json", "export wait"])
def test_a_full_disk_is_named_and_no_torn_file_is_left(words, folder):
    status, line = answer(LIMITED.format(limit=100, words=words), folder)
    assert (status, line.startswith("error: File too large: ")) == (2, True)
    assert [path.name for path in folder.iterdir()] == ["longer.json"]


@pytest.mark.parametrize(
    "words, name",
    [
        ("train -o {}/new", "out"),
        ("compare Kasmina/Spirals-v0 -o {}/new", "out"),
        ("search Kasmina/Spirals-v0 -o {}/new.json", "out"),
        ("calibrate Kasmina/Spirals-v0 -o {}/new.json", "out"),
        ("bench Kasmina/Spirals-v0 -o {}/new", "out"),
        ("rollout Kasmina/Spirals-v0 -o {}/new.png", "out"),
        ("rollout Kasmina/Spirals-v0 --log {}/new.json", "log"),
    ],
)
def test_a_folder_that_is_read_only_is_named_before_any_work(words, name, tmp_path, capsys):
    place = tmp_path
    if os.geteuid() == 0:  # permissions do not bind root, but in /proc nobody makes a file
        place = Path("/proc")
    else:
        place.chmod(0o555)
    sentence = complaint(capsys, *words.format(place).split())
    assert sentence.startswith(f"error: `{name}` must be in a folder that can be written to, got {place}/new")
