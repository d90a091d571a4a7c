"""Ctrl-C and SIGTERM: one line, the usual exit status and no traceback, whatever the command is doing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = {signal.SIGINT: (130, "Interrupted."), signal.SIGTERM: (143, "Terminated.")}
# Runs a command in which the first import of a module has the process send itself a signal.
AT_IMPORT = """
import os, sys
class Sender:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            try:
                os.kill(os.getpid(), {number})
            except BaseException:
                pass  # as some module does on the way
sys.meta_path.insert(0, Sender())
sys.argv = ["kasmina", *{words!r}]
from kasmina_env.cli.main import main
main()
"""
# Runs a command whose function is replaced.
AT_WORK = """
import os, sys
from kasmina_env.cli import interrupts, main, show
def work():
    interrupts.begin_work()
    {work}
show.list_ids = work
sys.argv = ["kasmina", "list"]
main.main()
"""


def python(code: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("number", LINES)
@pytest.mark.parametrize("module", ["rich", "tyro", "torch", "sb3_contrib"])
def test_a_signal_while_modules_are_imported_ends_the_process_at_once(module, number, tmp_path):
    words = ["train", "-o", str(tmp_path / "run")]
    status, line = LINES[number]
    assert python(AT_IMPORT.format(module=module, number=int(number), words=words)) == (status, "", f"{line}\n")


@pytest.mark.parametrize("number", LINES)
def test_a_signal_at_work_lets_the_command_clean_up(number):
    work = f"""
    try:
        os.kill(os.getpid(), {int(number)})
    finally:
        print("saved")
"""
    status, line = LINES[number]
    assert python(AT_WORK.format(work=work)) == (status, "saved\n", f"{line}\n")


@pytest.mark.parametrize(
    "work",
    [
        "raise ImportError('initialization failed') from KeyboardInterrupt()",
        "try:\n        raise KeyboardInterrupt\n    finally:\n        [][1]",
    ],
)
def test_an_error_that_a_signal_brought_about_is_no_bug(work):
    assert python(AT_WORK.format(work=work)) == (130, "", "Interrupted.\n")


def test_a_signal_that_was_switched_off_stays_so():
    code = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    work = f"os.kill(os.getpid(), {int(signal.SIGINT)}); print('done')"
    assert python(code + AT_WORK.format(work=work)) == (0, "done\n", "")


def test_a_training_that_is_stopped_says_how_to_go_on(tmp_path):
    path, folder = tmp_path / "tiny.json", tmp_path / "run"
    settings = {"batches_per_step": 1, "batch_size": 8, "watch_samples": 16, "score_samples": 16}
    path.write_text(json.dumps({"num_envs": 4, "hyperparameters": {"batch_size": 48}, "settings": settings}))
    words = ["train", "Kasmina/Spirals-v0", "-o", str(folder), "--config", str(path)]
    command = [sys.executable, "-m", "kasmina_env", *words]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as training:
        assert training.stderr.readline().startswith("Training maskable_ppo on Kasmina/Spirals-v0")
        training.send_signal(signal.SIGINT)
        *_, last = training.stderr.read().splitlines()
    sentence = f"Interrupted. What was trained is in {folder}; the same command with --resume goes on."
    assert (training.returncode, last) == (130, sentence)
