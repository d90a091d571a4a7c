"""Command lines that cannot be obeyed: each is answered with one clear sentence on stderr, and nothing is written."""

from __future__ import annotations

import shlex
import sys

import pytest

from kasmina_env.networks.tensor_file import describe, to_bytes
from tests.cli.running import complaint

SPIRALS, MIX = "Kasmina/Spirals-v0", "Kasmina/DigitsMix-v0"
# Files that a command may name, in the working directory.
FILES = {
    "text.json": "no json",
    "list.json": "[]",
    "key.json": '{"total_stepps": 1}',
    "kind.json": '{"total_steps": "60000"}',
    "zero.json": '{"total_steps": 0}',
    "algorithm.json": '{"algorithm": "maskable_pp"}',
    "preset.json": '{"preset": "Kasmina/Digit-v0"}',
    "setting.json": '{"settings": {"horizn": 3}}',
    "hyperparameter.json": '{"hyperparameters": {"learning_rte": 1}, "num_envs": 2}',
    "empty.json": "{}",
    "full/precious": "",
    "taken.safetensors": "precious",
    "broken.py": "1 / 0",
}
BAD = [
    ("", "Missing subcommand"),
    ("nope", "Unrecognized options: nope"),
    ("--nope", "Unrecognized options: --nope"),
    ("list all", "Unrecognized options: all"),
    ("list --import nope", "There is no module 'nope' here or installed."),
    ("list --import nope.py", "`nope.py` must be a .py file that exists."),
    ("list --import broken.py", "`broken.py` cannot be imported: ZeroDivisionError: division by zero"),
    ("describe", "Missing from kasmina describe: ID"),
    ("describe Kasmina/Digit-v0", "Did you mean 'Kasmina/Digits-v0'?"),
    ("describe nope:Kasmina/Digits-v0", "There is no module 'nope' here or installed."),
    ("check Kasmina/Digit-v0", "Did you mean 'Kasmina/Digits-v0'?"),
    ("rollout", "Missing from kasmina rollout: ID"),
    ("rollout Kasmina/Digit-v0", "Did you mean 'Kasmina/Digits-v0'?"),
    (f"rollout {SPIRALS} --every 0", "`every` must be at least 1, got 0"),
    (f"rollout {SPIRALS} --every often", "Error parsing --every: must be a whole number, got 'often'."),
    (f"rollout {SPIRALS} --seed -1", "`seed` must be at least 0, got -1"),
    (f"rollout {SPIRALS} --seed 1.5", "Error parsing --seed: must be a whole number, got '1.5'."),
    (f"rollout {SPIRALS} --policy plateu", "Did you mean 'plateau'?"),
    (f"rollout {SPIRALS} --policy runs/typo", "`runs/typo` must be a control, or a file or folder that exists"),
    (f"rollout {SPIRALS} --policy text.json", "`text.json` must be a JSON file"),
    (f"rollout {SPIRALS} --policy empty.json", "`empty.json` must have the key 'id'"),
    (f"rollout {SPIRALS} --policy full", "`run` must be a folder with a finished training run, got 'full'"),
    (f"rollout {SPIRALS} --policy nope.py", "`nope.py` must be a .py file that exists."),
    (f"rollout {SPIRALS} --policy broken.py", "`broken.py` cannot be imported: ZeroDivisionError"),
    ("train Kasmina/Digit-v0", "Did you mean 'Kasmina/Digits-v0'?"),
    ("train --config /nope.json", "`config` must be a JSON file that exists, got /nope.json."),
    ("train --config full", "`config` must be a JSON file that exists, got full."),
    ("train --config text.json", "`text.json` must be a JSON file, got another one"),
    ("train --config list.json", "`list.json` must hold a JSON object, got []."),
    ("record", "Missing from kasmina record: ID"),
    ("record Kasmina/Digit-v0 -o new-v0", "Did you mean 'Kasmina/Digits-v0'?"),
    (f"record {SPIRALS} -o new-v0 --episodes 0", "`episodes` must be at least 1, got 0."),
    (f"record {SPIRALS} -o new-v0 --seed -1", "`seed` must be at least 0, got -1."),
    ("train --config key.json", "Did you mean 'total_steps'?"),
    ("train --config kind.json", "`total_steps` must be an integer, got '60000'."),
    ("train --config zero.json", "`total_steps` must be at least 1, got 0."),
    ("train --config algorithm.json", "Did you mean 'maskable_ppo'?"),
    ("train --config preset.json", "Did you mean 'Kasmina/Digits-v0'?"),
    ("train --config setting.json", "Did you mean 'horizon'?"),
    (f"train {SPIRALS} --config hyperparameter.json", "Did you mean 'learning_rate'?"),
    ("train --config key.json --algorithm ppo", "`config` names an algorithm itself"),
    (f"train {SPIRALS} --algorithm maskable_pp", "Did you mean 'maskable_ppo'?"),
    (f"train {SPIRALS} --steps 0", "`total_steps` must be at least 1, got 0."),
    (f"train {SPIRALS} --steps many", "Error parsing --steps: must be a whole number, got 'many'."),
    (f"train {SPIRALS} --seed -1", "`seed` must be from 0 to"),
    (f"train {SPIRALS} --seed 999999", "`seed` must be from 0 to"),
    (f"train {SPIRALS} --workers 0", "`workers` must be at least 1, got 0."),
    (f"train {SPIRALS} -o full", "`out` must be a new or empty folder, got full. Name another one, or pass --resume."),
    (f"train {SPIRALS} -o taken.safetensors/run", "`out` must be in a folder that can be written to"),
    (f"train {SPIRALS} -o new --resume", "`out` must hold a training run to go on with, got new."),
    ("compare Kasmina/Digit-v0", "Did you mean 'Kasmina/Digits-v0'?"),
    (f"compare {SPIRALS} --episodes 0", "`episodes` must be at least 1, got 0."),
    (f"compare {SPIRALS} --workers 0", "`workers` must be at least 1, got 0."),
    (f"compare {SPIRALS} --split validate", "'validate'"),
    (f"compare {SPIRALS} --policies wait wait", "`policies` must each be named once, got 'wait' 2 times."),
    (f"compare {SPIRALS} --policy plateu", "Did you mean 'plateau'?"),
    (f"compare {SPIRALS} --run nowhere", "`run` must be a folder with a finished training run, got 'nowhere'."),
    (f"compare {SPIRALS} --run mine=nowhere", "`run` must be a folder with a finished training run, got 'nowhere'."),
    (f"compare {SPIRALS} -o full", "`out` must be a new or empty folder, got full."),
    ("search Kasmina/Digit-v0", "Did you mean 'Kasmina/Digits-v0'?"),
    (f"search {SPIRALS} --seed -1", "`seed` must be at least 0, got -1"),
    (f"search {SPIRALS} --facts param_price", "`facts` must be left out without --per-context, got param_price."),
    (f"search {SPIRALS} --per-context", "`env_id` must be of a family with visible facts"),
    (f"search {MIX} --per-context --facts rent", "`facts` must be one of"),
    (f"search {SPIRALS} --workers 0", "`workers` must be at least 1, got 0."),
    (f"search {SPIRALS} -o full", "`out` must be a file, got the folder full."),
    (
        f"search {SPIRALS} -o empty.json",
        "`out` must be a new file, got empty.json. Name another one with --out, or pass",
    ),
    ("calibrate Kasmina/Digit-v0", "Did you mean 'Kasmina/Digits-v0'?"),
    (f"calibrate {SPIRALS} --seed -1", "`seed` must be at least 0, got -1"),
    (f"calibrate {SPIRALS} --workers 0", "`workers` must be at least 1, got 0."),
    (f"calibrate {SPIRALS} --seeds 2", "`seeds` must be at least 4, got 2."),
    (f"calibrate {SPIRALS} --kept 0", "`kept` must be at least 1, got 0."),
    (f"calibrate {SPIRALS} -o empty.json", "`out` must be a new file, got empty.json."),
    ("export", "Missing from kasmina export: POLICY"),
    ("export plateu", "Did you mean 'plateau'?"),
    ("export wait --env-id Kasmina/Digit-v0", "Did you mean 'Kasmina/Digits-v0'?"),
    ("export wait --episode first", "`episode` must be 'best' or a seed, got 'first'."),
    ("export wait --episodes 0", "`episodes` must be at least 1, got 0."),
    ("export wait -o net.zip", "`path` must end in .safetensors, .pt2, .onnx, got 'net.zip'."),
    ("export wait -o taken.safetensors", "`path` must be new, got taken.safetensors, which exists."),
    ("export full", "`run` must be a folder with a finished training run, got 'full'."),
    ("bench Kasmina/Digit-v0", "Did you mean 'Kasmina/Digits-v0'?"),
    (f"bench {SPIRALS} --steps 0", "`steps` must be at least 1, got 0."),
    (f"bench {SPIRALS} --steps 24", "`steps` must be below 24, the length of an episode of Kasmina/Spirals-v0"),
    (f"bench {SPIRALS} --repeats 0", "`repeats` must be at least 1, got 0."),
    (f"bench {SPIRALS} --sizes 8 0", "`sizes` must be at least 1, got 0."),
    (f"bench {SPIRALS} --sizes", "`sizes` must be at least one number of networks"),
    (f"bench {SPIRALS} --workers 0", "`workers` must be at least 1, got 0."),
    (f"bench {SPIRALS} --growth -1", "`growth` must be at least 0, got -1."),
    (f"bench {SPIRALS} -o taken.safetensors", "`out` must be in a folder that can be written to"),
    ("data", "Missing subcommand"),
    ("data nope", "Unrecognized options: nope"),
    ("data fetch", "Missing from kasmina data fetch: NAME"),
    ("data fetch fashionmnist", "Did you mean 'fashion_mnist'?"),
    ("data verify cifar", "Did you mean 'cifar10'?"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with the files; gives what is in it."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return lambda: {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("line, sentence", BAD, ids=[line for line, _ in BAD])
def test_what_is_wrong_is_said_and_nothing_is_written(line, sentence, here, capsys):
    before = here()
    assert sentence in complaint(capsys, *shlex.split(line))
    assert here() == before


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_named(device, here, monkeypatch, capsys):
    monkeypatch.setenv("KASMINA_DEVICE", device)
    before = here()
    sentence = complaint(capsys, "train", SPIRALS)
    assert sentence.startswith(f"error: `KASMINA_DEVICE` must be a device that PyTorch can use here, got '{device}'")
    assert here() == before


def test_a_run_of_other_actions_is_not_played(here, tmp_path, capsys):
    layout = {"training": {"preset": "Kasmina/Digits-v0"}, "layout": {}, "steps": 0}
    (tmp_path / "full" / "model.safetensors").write_bytes(to_bytes(describe("controller", 1, layout), {}))
    sentence = complaint(capsys, "rollout", SPIRALS, "--policy", "full")
    assert f"`run` must be trained on the observations and actions of {SPIRALS}" in sentence
