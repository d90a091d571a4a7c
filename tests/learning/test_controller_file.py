"""A controller as a file: rebuilt from settings and tensors, and played wherever observations and actions are alike."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from kasmina_env import make_problem
from kasmina_env.controllers.policy import play
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.learning.algorithms import ALGORITHMS
from kasmina_env.learning.controller_file import config_of_run, layout_of, load_controller, load_learned, load_policy
from kasmina_env.learning.random_states import random_states
from kasmina_env.learning.train import train
from kasmina_env.networks.tensor_file import DESCRIPTION, to_bytes
from tests.episodes import digest
from tests.learning.test_learners import SMALL, SPIRALS, tiny

OWN = {"maskable_ppo": {"nearness": True, "shared_parts": True}}


@pytest.fixture(scope="module", params=ALGORITHMS)
def trained(request, tmp_path_factory):
    """Settings, model and folder of a finished run of each algorithm."""
    config = tiny(request.param, **OWN.get(request.param, {}))
    run = tmp_path_factory.mktemp(request.param) / "run"
    return config, train(config, run), run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a finished run."""
    run = tmp_path_factory.mktemp("finished") / "run"
    train(tiny("maskable_ppo"), run)
    return run


def resave(path, **values):
    """Change the document, with a checksum that fits."""
    with safe_open(path, "pt") as file:
        document = json.loads(file.metadata()[DESCRIPTION])
    path.write_bytes(to_bytes(json.dumps({**document, **values}), load_file(path)))


def test_what_is_loaded_is_what_was_trained(trained):
    config, model, run = trained
    problem = make_problem(SPIRALS, **SMALL)
    policy = load_policy(load_controller(run), problem)
    assert config_of_run(run) == config
    assert digest(policy.state_dict()) == digest(model.policy.state_dict())
    model.observation_space.seed(0)
    observation = np.stack([model.observation_space.sample() for _ in range(5)])
    assert (
        policy.predict(observation, deterministic=True)[0] == model.predict(observation, deterministic=True)[0]
    ).all()


def test_loading_touches_no_global_random_state(trained):
    before = digest(random_states())
    load_learned(trained[2], make_problem(SPIRALS, **SMALL))
    assert digest(random_states()) == before


def test_the_file_alone_is_enough(finished, tmp_path):
    shutil.copy(finished / "model.safetensors", tmp_path / "mine.safetensors")
    env = KasminaVectorEnv(2, SPIRALS, **SMALL)
    whole, alone = (
        play(env, load_learned(path, env.problem), np.arange(2)) for path in (finished, tmp_path / "mine.safetensors")
    )
    assert (whole.actions == alone.actions).all()


# ── where it plays ──────────────────────────────────────────────────────────────────────────────


def test_digits_and_larger_pictures_have_one_layout():
    digits, *others = (make_problem(f"Kasmina/{name}-v0") for name in ("Digits", "FashionMNIST", "CIFAR10"))
    assert all(layout_of(other) == layout_of(digits) for other in others)
    assert digits.actions.names != others[0].actions.names


def test_a_controller_plays_where_tempos_and_horizon_are_others(finished):
    env = KasminaVectorEnv(2, SPIRALS, **{**SMALL, "horizon": 12, "tempos": (3, 9)})
    played = play(env, load_learned(finished, env.problem), np.arange(2))
    assert played.actions.shape == (2, 12)
    assert played.illegal.sum() == 0


@pytest.mark.parametrize(
    "preset, settings, words",
    [
        (SPIRALS, {"tempos": (2, 9, 11)}, "tempo, actions"),
        (SPIRALS, {"blueprints": ("layer_norm", "lora", "mlp_small")}, "observations, blueprint, actions"),
        (SPIRALS, {"operators": ("ADD", "GATE", "MULTIPLY")}, "observations, operator"),
        ("Kasmina/Digits-v0", {}, "observations, slot, blueprint, actions"),
    ],
)
def test_another_layout_is_refused_in_one_sentence(preset, settings, words, finished):
    problem = make_problem(preset, **{**(SMALL if preset == SPIRALS else {}), **settings})
    with pytest.raises(ValueError, match=r"^`run` must be trained on the observations and actions of ") as caught:
        load_learned(finished, problem)
    assert f"which has another layout: {words}. Train it on this environment." in str(caught.value)


# ── what does not fit ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"schema": 2}, "must have 1 as schema, got 2. Save it with this version."),
        ({"kind": "episodes"}, "must have 'controller' as kind, got 'episodes'"),
        ({"training": {"net": [64, 64, 64]}}, "must be of a controller that can be built here: "),
        ({"training": {"net": [8, 8]}}, "must be of a controller that can be built here: "),
        ({"training": {"algorithm": "dqn"}}, "must be of a controller that can be built here: "),
        ({"training": {"algorithm": "sac"}}, "must be of a controller that can be built here: `algorithm` must be one"),
        ({"training": {"algoritm": "dqn"}}, "Did you mean 'algorithm'?"),
        ({"training": {"hyperparameters": {"policy_kwargs": {"activation_fn": "os.system"}}}}, "can be built here: "),
        ({"training": 3}, "must be of a controller that can be built here: "),
    ],
)
def test_a_document_that_fits_nothing_is_one_sentence(values, sentence, finished, tmp_path):
    path = tmp_path / "model.safetensors"
    shutil.copy(finished / "model.safetensors", path)
    resave(path, **values)
    with pytest.raises(ValueError, match=r"^`.*model\.safetensors` must [^\n]*$") as caught:
        load_learned(path, make_problem(SPIRALS, **SMALL))
    assert sentence in str(caught.value)
