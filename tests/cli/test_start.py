"""How the command starts: at once, without PyTorch, and without the extras it answers in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kasmina_env
from kasmina_env.cli.main import EXTRAS, run, sentence_of
from kasmina_env.settings.presets import PRESETS
from kasmina_env.tasks import DATASETS
from tests.cli.running import complaint, said

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "sklearn", "stable_baselines3", "matplotlib")


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)


def python_without(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command where a module is not installed."""
    code = f"import sys; sys.modules[{module!r}] = None; from kasmina_env.cli.main import run; run({list(words)!r})"
    return python("-c", code)


@pytest.mark.parametrize("words", [["list"], ["--help"], ["train", "--help"], ["calibrate", "--help"], ["--version"]])
def test_what_needs_no_engine_does_not_load_it(words):
    code = f"""
import sys
from kasmina_env.cli.main import run
try:
    run({words!r})
finally:
    print(*(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)
"""
    done = python("-c", code)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert done.stdout


def test_the_package_runs_as_a_module():
    done = python("-m", "kasmina_env", "--version")
    assert (done.returncode, done.stdout) == (0, f"kasmina_env {kasmina_env.__version__}\n")


@pytest.mark.parametrize("words", [[], ["list"], ["train", "--help"]])
@pytest.mark.parametrize("module", ["tyro", "rich"])
def test_a_plain_install_says_which_extra_to_install(module, words):
    done = python_without(module, *words)
    sentence = f"error: This needs {module}, which is not installed. Run: pip install 'kasmina-env[cli]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)


def test_the_version_needs_no_extra():
    assert python_without("tyro", "--version").stdout.startswith("kasmina_env ")


@pytest.mark.parametrize(
    "module, command, extra",
    [
        ("sb3_contrib", "train", "sb3"),
        ("tensorboard", "train", "sb3"),
        ("matplotlib", "compare", "plot"),
        ("matplotlib", "bench", "plot"),
        *[("ray", f"{command} --cluster auto", "ray") for command in ("train", "compare", "search", "calibrate")],
    ],
)
def test_a_command_without_its_extra_says_so_before_it_begins(module, command, extra, tmp_path):
    if module == "ray":
        pytest.importorskip("matplotlib", reason="of two that are not installed, the one that draws is named first")
    done = python_without(module, *command.split(), "Kasmina/Spirals-v0", "-o", str(tmp_path / "new"))
    sentence = f"error: This needs {module}, which is not installed. Run: pip install 'kasmina-env[{extra}]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words, out",
    [
        (["--help"], "Grow neural networks"),
        (["rollout", "Kasmina/Spirals-v0", "--policy", "fixed", "--every", "24"], "committed score"),
        (["replay", "docs/results/samples/spirals/samples/01-fixed-0-1000000.json", "--verify"], "seed 1000000"),
        (["rollout", "Kasmina/Spirals-v0", "--policy", "na\u00efve/one"], "must be a control"),
    ],
    ids=["help", "rollout", "replay", "error"],
)
def test_a_terminal_of_a_legacy_encoding_gets_question_marks_and_no_traceback(words, out):
    legacy = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "kasmina_env", *words], cwd=ROOT, capture_output=True, env={**os.environ, **legacy}
    )
    assert out in (done.stdout + done.stderr).decode("ascii")
    assert b"Traceback" not in done.stderr


def test_every_extra_that_is_named_exists():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"\n{extra} = [" in text for extra in EXTRAS.values())


def test_list_knows_without_the_engine_which_problems_need_files():
    for preset in map(PRESETS.get, PRESETS):
        task = preset.settings["task"]
        assert preset.dataset == (task if task in DATASETS else "")


@pytest.mark.parametrize(
    "code, sentence",
    [
        ("raise ValueError('`seed` must be at least 0.')", "`seed` must be at least 0."),
        ("raise TypeError('`seed` must be an integer.')", "`seed` must be an integer."),
        ("open('/nope.json')", "No such file or directory: /nope.json."),
        ("int('one')", None),
        ("import numpy; numpy.zeros(-1)", None),
        ("[][1]", None),
        ("(lambda: None)(1)", None),
        ("assert False", None),
    ],
)
def test_what_the_package_says_is_a_sentence_and_an_operation_gone_wrong_is_a_bug(code, sentence):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the table has all kinds
        exec(code, {"__name__": "kasmina_env.planted"})
    assert sentence_of(caught.value) == sentence


def test_a_bug_shows_its_traceback(monkeypatch):
    monkeypatch.setattr("kasmina_env.cli.show.PRESETS", None)
    with pytest.raises(TypeError):
        run(["list"])


def test_what_a_check_says_is_printed_as_it_is(capsys):
    assert complaint(capsys, "describe", "[onnx]").endswith("got '[onnx]'.")
    assert "Kasmina/" in said(capsys, "list")
