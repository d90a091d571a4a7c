"""Command lines that cannot be obeyed: each is answered with one clear sentence on stderr, and nothing is written."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys

import pytest

from kasmina_env.networks.tensor_file import describe, to_bytes
from kasmina_env.settings.presets import PRESETS
from tests.cli.running import complaint

SPIRALS, MIX = "Kasmina/Spirals-v0", "Kasmina/DigitsMix-v0"
# Files that a command may name, in the working directory: training settings that are wrong, ...
TRAININGS = {
    "total": {"total_steps": 10**30},
    "float": {"total_steps": 64.5},
    "rows": {"num_envs": 10**9},
    "group": {"group": 3},
    "net": {"net": [10**9]},
    "names": {"net": ["a"]},
    "seed": {"seed": True},
    "prior": {"prior": {"GROW": 1}},
    "weight": {"prior": {"WAIT": 0}},
    "unweighed": {"prior": {"WAIT": 2}, "algorithm": "dqn"},
    "nearness": {"algorithm": "ppo", "nearness": True},
    "horizon": {"settings": {"horizon": 10**7}},
    "length": {"settings": {"horizon": 5, "min_training_steps": 7}},
    "host": {"settings": {"host_settings": {"widht": 3}}},
    "family": {"settings": {"instances": "nope"}},
    "weights": {"settings": {"initial_weights": "taken.safetensors"}},
    "device": {"settings": {"device": "cuda"}},
    "rate": {"hyperparameters": {"learning_rate": "lin_nan"}},
    "gamma": {"hyperparameters": {"gamma": "lin_1"}},
    "steps": {"hyperparameters": {"n_steps": 10**12}},
    "buffer": {"algorithm": "dqn", "num_envs": 2, "hyperparameters": {"buffer_size": 10**13}},
    "quantiles": {"algorithm": "qr_dqn", "num_envs": 2, "hyperparameters": {"policy_kwargs": {"n_quantiles": 0}}},
    "activation": {"num_envs": 2, "hyperparameters": {"policy_kwargs": {"activation_fn": "relu"}}},
}
# ... logs of episodes, ...
LOG = {"kind": "kasmina_env episode", "schema": 2, "id": SPIRALS, "engine": "torch", "num_networks": 1, "seed": 0}
LOG |= {
    "config": {},
    "instance": 0,
    "planted": [],
    "actions": [0],
    "names": ["WAIT"],
    "scores": [0.3, 0.4],
    "versions": {},
}
CONFIG = {"config": dataclasses.asdict(PRESETS.get(SPIRALS).config())}
LOGS = {
    "log_schema": {"schema": 1},
    "log_scores": {"scores": 3},
    "log_words": {"scores": ["x", "y"]},
    "log_nan": {"scores": [float("nan"), 0.3]},
    "log_short": CONFIG | {"scores": [0.3]},
    "log_engine": CONFIG | {"engine": "numba"},
    "log_seed": CONFIG | {"seed": -1},
    "log_instance": CONFIG | {"instance": 7},
    "log_planted": CONFIG | {"planted": [0]},
    "log_action": CONFIG | {"actions": [10**6]},
    "log_setting": {"config": {"horizn": 3}},
    "log_config": {"config": []},
}
# ... and what a policy plays.
PLAYED = {
    "key_of_step": {"steps": {"x": "WAIT"}},
    "late_step": {"steps": {"99": "WAIT"}},
    "list_of_steps": {"steps": []},
    "no_action": {"steps": {"3": "GROW"}},
    "no_word": {"steps": {"3": {}}},
    "rules": {"rules": {}},
    "no_contexts": {"contexts": []},
    "contexts": {"contexts": 3},
    "context": {"contexts": [{"bounds": {}}]},
    "bounds": {"contexts": [{"bounds": {"instance.noise": [0]}, "steps": {}}]},
    "observed": {"contexts": [{"bounds": {"instance.noise": [0, 1]}, "steps": {}}]},
    "id": {"id": "Kasmina/Spiral-v0", "steps": {}},
}
# All of them:
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
    **{f"{name}.json": json.dumps(values) for name, values in TRAININGS.items()},
    **{f"{name}.json": json.dumps({**LOG, **values}) for name, values in LOGS.items()},
    **{f"{name}.json": json.dumps({"id": SPIRALS, **values}) for name, values in PLAYED.items()},
    "deep.json": '{"a":' * 100_000,
    "digits.json": f'{{"total_steps": {"9" * 5000}}}',
    "none.json": "",
    "exit.py": "raise SystemExit(3)",
    "syntax.py": "def (",
    "nothing.py": "",
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
    ("train --config total.json", "`total_steps` must be at most 1000000000000, got 1000000000000000000000000000000."),
    ("train --config float.json", "`total_steps` must be an integer, got 64.5. Change it in `training`."),
    ("train --config rows.json", "`num_envs` must be at most 65536, got 1000000000. Lower it."),
    (f"train {SPIRALS} --config group.json", "`group` must divide the 64 networks, got 3. Choose another one."),
    ("train --config net.json", "`net` must be sizes of at most 65536, got [1000000000]. Lower them."),
    ("train --config names.json", "`net` must be a tuple of integers, got ('a',)."),
    ("train --config seed.json", "`seed` must be an integer, got True."),
    (
        "train --config prior.json",
        "`prior` must be one of WAIT, GERMINATE, ADVANCE, SET_ALPHA_TARGET, PRUNE, FOSSILIZE",
    ),
    ("train --config weight.json", "`prior` must be weights above 0, got 0 for WAIT."),
    ("train --config unweighed.json", "`prior` must be empty for dqn, whose first policy has no weights of operations"),
    ("train --config nearness.json", "`nearness` must be False for ppo, got True. Use maskable_ppo."),
    (f"train {SPIRALS} --config horizon.json", "`horizon` must be an integer from 2 to 100000, got 10000000."),
    (f"train {SPIRALS} --config length.json", "`min_training_steps` must be at most 4 in episodes of 5 steps, got 7."),
    (f"train {SPIRALS} --config host.json", "Did you mean 'width'?"),
    (f"train {SPIRALS} --config family.json", "There is no configs/nope.instances.json."),
    (f"train {SPIRALS} --config weights.json --workers 2", "`initial_weights` must be a safetensors file, got 'taken."),
    (f"train {SPIRALS} --config device.json", "`settings` must be one of task, task_settings,"),
    (
        f"train {SPIRALS} --config rate.json --workers 1",
        "`learning_rate` must be a number of at least 0, got 'lin_nan'.",
    ),
    (f"train {SPIRALS} --config gamma.json --workers 1", "`gamma` must be a number in [0, 1], got 'lin_1'."),
    (f"train {SPIRALS} --config steps.json --workers 1", "`n_steps` must be an integer from 1 to 1000000000, got"),
    (f"train {SPIRALS} --config buffer.json", "`buffer_size` must be an integer from 1 to 1000000000, got"),
    (f"train {SPIRALS} --config quantiles.json", "`hyperparameters` must be such as qr_dqn accepts: "),
    (f"train {SPIRALS} --config activation.json", "`hyperparameters` must be such as maskable_ppo accepts: 'str'"),
    ("train --config deep.json", "`deep.json` must be a JSON file, got another one: maximum recursion depth exceeded"),
    ("train --config digits.json", "`digits.json` must be a JSON file, got another one: Exceeds the limit"),
    ("train --config none.json", "`none.json` must be a JSON file, got another one: Expecting value"),
    (f"train {SPIRALS} --algorithm ''", "`algorithm` must be one of maskable_ppo, ppo, a2c,"),
    (f"train {SPIRALS} --workers 100", "`num_workers` must be 1 on devices other than one CPU, and at most the 64"),
    (f"train {SPIRALS} -o /dev/null", "`out` must be a new or empty folder, got /dev/null."),
    (f"train {SPIRALS} -o /proc/run", "`out` must be in a folder that can be written to, got /proc/run."),
    (f"train {SPIRALS} -o full --resume", "`out` must hold a training run to go on with, got full."),
    ("replay", "Missing from kasmina replay: FILE"),
    ("replay nope.json", "No such file or directory: nope.json."),
    ("replay deep.json", "`deep.json` must be a JSON file, got another one: maximum recursion depth exceeded"),
    ("replay empty.json", "`empty.json` must have the key 'kind', got nothing."),
    ("replay log_schema.json", "`log_schema.json` must be the log of an episode by this version."),
    ("replay log_scores.json", "`scores` must be a tuple of finite numbers, got 3."),
    ("replay log_words.json", "`scores` must be a tuple of finite numbers, got ('x', 'y')."),
    ("replay log_nan.json", "`scores` must be a tuple of finite numbers, got (nan, 0.3)."),
    ("replay log_short.json", "`log_short.json` must have a name for each action, and one score more than actions"),
    ("replay log_engine.json", "`engine` must be one of auto, torch, fused, got 'numba'."),
    ("replay log_seed.json", "`seed` must be an integer of at least 0, got -1."),
    ("replay log_instance.json", "`instance` must be a number from 0 to 0, or one for each of 1 networks, got 7."),
    ("replay log_planted.json", "`planted` must be a list of flat GERMINATE actions, got [0]."),
    ("replay log_action.json", "`log` must hold actions of its problem, got 'WAIT' for 'number 1000000'."),
    ("replay log_setting.json", "`log_setting.json` must hold the settings of this version, got others in augment,"),
    ("replay log_config.json", "`config` must be a mapping of keyword settings, got ()."),
    (f"rollout {SPIRALS} --policy key_of_step.json", "at steps below 24, got 'WAIT' at step x."),
    (f"rollout {SPIRALS} --policy late_step.json", "at steps below 24, got 'WAIT' at step 99."),
    (f"rollout {SPIRALS} --policy list_of_steps.json", "`list_of_steps.json` must map steps to actions, got []."),
    (f"rollout {SPIRALS} --policy no_action.json", "got 'GROW' at step 3. Search again for these settings."),
    (f"rollout {SPIRALS} --policy no_word.json", "got {} at step 3. Search again for these settings."),
    (f"rollout {SPIRALS} --policy rules.json", '`rules.json` must hold a list of rules under "rules".'),
    (f"rollout {SPIRALS} --policy no_contexts.json", "`no_contexts.json` must hold a list of contexts, got []."),
    (f"rollout {SPIRALS} --policy contexts.json", "`contexts.json` must hold a list of contexts, got 3."),
    (f"rollout {SPIRALS} --policy context.json", "`context.json` must hold equal bounds, each two numbers, and steps"),
    (f"rollout {SPIRALS} --policy bounds.json", "`bounds.json` must hold equal bounds, each two numbers, and steps"),
    (
        f"rollout {SPIRALS} --policy observed.json",
        "`observed.json` must have bounds of what is observed, got 'instance",
    ),
    ("export id.json", "Did you mean 'Kasmina/Spirals-v0'?"),
    (f"rollout {SPIRALS} --policy deep.json", "`deep.json` must be a JSON file, got another one: maximum recursion"),
    (f"rollout {SPIRALS} --policy exit.py", "`exit.py` cannot be imported: SystemExit: 3"),
    (f"rollout {SPIRALS} --policy syntax.py", "`syntax.py` cannot be imported: SyntaxError: invalid syntax"),
    (
        f"rollout {SPIRALS} --policy nothing.py",
        "`nothing.py` must register one policy with `register_policy`, got none.",
    ),
    (f"rollout {SPIRALS} --log full", "`log` must be a file, got the folder full. Name a file in it."),
    (f"rollout {SPIRALS} --log empty.json", "`log` must be a new file, got empty.json. Name another one with --log."),
    (f"rollout {SPIRALS} --log taken.safetensors/a.json", "`log` must be in a folder that can be written to"),
    (f"rollout {SPIRALS} -o picture.bmp", "`out` must end in .png, .gif, .mp4, got picture.bmp."),
    ("rollout CartPole-v1", "`id` must be one of Kasmina/Spirals-v0"),
    (f"train {SPIRALS} --algorithm maskable_pp", "Did you mean 'maskable_ppo'?"),
    (f"train {SPIRALS} --steps 0", "`steps` must be at least 1, got 0. Train for some."),
    (f"train {SPIRALS} --steps many", "Error parsing --steps: must be a whole number, got 'many'."),
    (f"train {SPIRALS} --seed -1", "`seed` must be from 0 to"),
    (f"train {SPIRALS} --seed 999999", "`seed` must be from 0 to"),
    (f"train {SPIRALS} --workers 0", "`workers` must be at least 1, got 0."),
    (f"train {SPIRALS} -o full", "`out` must be a new or empty folder, got full. Name another one, or pass --resume."),
    (f"train {SPIRALS} -o taken.safetensors/run", "`out` must be in a folder that can be written to"),
    (f"train {SPIRALS} -o new --resume", "`out` must hold a training run to go on with, got new."),
    ("compare Kasmina/Digit-v0", "Did you mean 'Kasmina/Digits-v0'?"),
    (f"compare {SPIRALS} --episodes 0", "`episodes` must be at least 1, got 0."),
    (f"compare {SPIRALS} --episodes {10**12}", "`episodes` must be at most 100000, got 1000000000000. Play fewer."),
    (
        f"compare {SPIRALS} --without accuracy --policy wait",
        "`without` must be left out where no learned policy plays, got",
    ),
    (f"compare {SPIRALS} --without colour", "`without` must be one of accuracy, gradients, contribution, stage, costs"),
    (f"compare {SPIRALS} --policy syntax.py", "`syntax.py` cannot be imported: SyntaxError: invalid syntax"),
    (f"compare {SPIRALS} -o /proc/new", "`out` must be in a folder that can be written to, got /proc/new."),
    (f"compare {SPIRALS} --workers 0", "`workers` must be at least 1, got 0."),
    (f"compare {SPIRALS} --workers {10**9}", "`workers` must be at most 1024, got 1000000000. Use fewer."),
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
    (f"search {SPIRALS} --per-context --reactive", "must not both be given, got both. Search for one at a time."),
    (f"search {SPIRALS} -o taken.safetensors/a.json", "`out` must be in a folder that can be written to"),
    (f"search {SPIRALS} --workers 0", "`workers` must be at least 1, got 0."),
    (f"search {SPIRALS} --workers {10**9}", "`workers` must be at most 1024, got 1000000000. Use fewer."),
    (f"search {SPIRALS} -o full", "`out` must be a file, got the folder full."),
    (
        f"search {SPIRALS} -o empty.json",
        "`out` must be a new file, got empty.json. Name another one with --out, or pass",
    ),
    ("calibrate Kasmina/Digit-v0", "Did you mean 'Kasmina/Digits-v0'?"),
    (f"calibrate {SPIRALS} --seed -1", "`seed` must be at least 0, got -1"),
    (f"calibrate {SPIRALS} --workers 0", "`workers` must be at least 1, got 0."),
    (f"calibrate {SPIRALS} --workers {10**9}", "`workers` must be at most 1024, got 1000000000. Use fewer."),
    (f"calibrate {SPIRALS} --seeds 2", "`seeds` must be at least 4, got 2."),
    (f"calibrate {SPIRALS} --seeds {10**12}", "`seeds` must be at most 100000, got 1000000000000. Measure less."),
    (f"calibrate {SPIRALS} --schedules -1", "`schedules` must be at least 1, got -1. Measure more."),
    (f"calibrate {SPIRALS} -o full", "`out` must be a file, got the folder full. Name a file in it."),
    (f"calibrate {SPIRALS} --kept 0", "`kept` must be at least 1, got 0."),
    (f"calibrate {SPIRALS} -o empty.json", "`out` must be a new file, got empty.json."),
    ("export", "Missing from kasmina export: POLICY"),
    ("export plateu", "Did you mean 'plateau'?"),
    ("export wait --env-id Kasmina/Digit-v0", "Did you mean 'Kasmina/Digits-v0'?"),
    ("export wait --episode first", "`episode` must be 'best' or a seed, got 'first'."),
    ("export wait --episode -1", "`episode` must be 'best' or a seed, got '-1'."),
    (f"export wait --episodes {10**12}", "`episodes` must be at most 100000, got 1000000000000. Play fewer."),
    ("export late_step.json", "got 'WAIT' at step 99. Search again for these settings."),
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
    (f"bench {SPIRALS} --workers {10**9}", "`workers` must be at most 1024, got 1000000000. Use fewer."),
    (f"bench {SPIRALS} --sizes 8 {10**9}", "`sizes` must be at most 1048576, got 1000000000. Time fewer."),
    (f"bench {SPIRALS} --repeats {10**9}", "`repeats` must be at most 10000, got 1000000000. Measure less."),
    (f"bench {SPIRALS} --growth {10**9}", "`growth` must be at most 1048576, got 1000000000. Time fewer."),
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
