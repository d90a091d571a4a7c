"""Arguments that make no environment: each is named in one sentence, before anything is made."""

from __future__ import annotations

import inspect
from functools import partial

import gymnasium as gym
import numpy as np
import pytest

import kasmina_env
from kasmina_env import PRESETS, KasminaEnv, KasminaVectorEnv, make_problem
from kasmina_env.episode.data import make_task
from kasmina_env.networks.blueprints import BLUEPRINTS
from kasmina_env.networks.hosts import HOSTS
from kasmina_env.tasks import TASKS

SPIRALS = "Kasmina/Spirals-v0"
OF_BOTH = [
    ("action_space", "discrete", "`action_space` must be one of flat, factored, got 'discrete'."),
    ("action_space", {}, "`action_space` must be one of flat, factored, got {}."),
    ("observation", None, "`observation` must be one of flat, dict, got None."),
    ("observation", "box", "`observation` must be one of flat, dict, got 'box'."),
    ("render_mode", "human", "`render_mode` must be one of None, ansi, rgb_array, got 'human'."),
    ("render_mode", [], "`render_mode` must be one of None, ansi, rgb_array, got []."),
    ("device", "", "`device` must be a device that PyTorch can use here, got ''"),
    ("device", "meta", "`device` must be a device that PyTorch can use here, got 'meta'"),
    ("device", True, "`device` must be a device that PyTorch can use here, got True"),
    ("device", [], "`device` must be a device that PyTorch can use here, got []"),
    ("dtype", "int8", "`dtype` must be one of float32, float64, got 'int8'."),
    ("dtype", np.float32, "`dtype` must be one of float32, float64, got <class 'numpy.float32'>."),
    ("engine", "numba", "`engine` must be one of auto, torch, fused, got 'numba'."),
    ("engine", [], "`engine` must be one of auto, torch, fused, got []."),
    ("horizon", np.int64(5), "`horizon` must be an integer from 2 to 100000, got np.int64(5). Change it."),
    ("blueprints", {"mlp"}, "`blueprints` must be a non-empty menu of different blueprint names, got {'mlp'}."),
    ("blueprints", ("nope",), "`blueprint` must be one of"),
    ("blueprints", ("attention",), "`blueprints` must accept vector features, got 'attention'. Choose from mlp_small"),
    ("host", "nope", "`host` must be one of cnn, mlp, transformer, got 'nope'."),
    (
        "host_settings",
        {3: 3},
        "`host_settings` must be one of in_features, num_classes, width, depth, is_linear, got 3",
    ),
    ("host_settings", {"width": 10**9}, "`width` must be from 1 to 1048576, got 1000000000. Lower it."),
    ("host_settings", {"depth": 10**6}, "`depth` must be from 1 to 256, got 1000000. Lower it."),
    (
        "host_settings",
        {"width": 10**5},
        "`host_settings` must make a host of at most 1073741824 parameters, got 10000700003. Make it",
    ),
    ("host_settings", {"width": 0}, "`width` must be from 1 to 1048576, got 0. Raise it."),
    ("host_settings", {"in_features": 3}, "`host_settings` must fit samples of shape (2,), got a host for (3,)."),
    ("host_settings", {"num_classes": 2}, "`host_settings` must fit the 3 classes of the task, got a host for 2."),
    ("task", "nope", "`task` must be one of"),
    ("task", "digits", "`host_settings` must fit samples of shape (1, 8, 8), got a host for (2,)."),
    (
        "task_settings",
        {"noise": float("nan")},
        "`noise` must be a finite number, got nan. Change it in `task_settings`",
    ),
    ("task_settings", {"noise": -1}, "`noise` must be a number from 0 to 1000, got -1. Change it in `task_settings`."),
    ("task_settings", {"noise": 1e300}, "`noise` must be a number from 0 to 1000, got 1e+300."),
    ("task_settings", {"turns": float("inf")}, "`turns` must be a finite number, got inf."),
    ("task_settings", {"size": 3}, "`task_settings` must be one of num_classes, turns, noise, got 'size'."),
    ("initial_weights", "nope", "`initial_weights` must be a file that exists, got 'nope'. Correct the path."),
    ("instances", "nope", "There is no configs/nope.instances.json. Name a family"),
    ("instances", "nope.json", "`instances` must name a file that exists, got 'nope.json'."),
    ("reward", "nope", "`reward` must be one of score, sparse, loss, contribution, got 'nope'."),
    ("watch_samples", 257, "`watch_samples` must be at most 256, got 257. Ask for fewer."),
    ("preset", 3, "`id` must be one of Kasmina/Spirals-v0,"),
    ("preset", [], "`id` must be one of Kasmina/Spirals-v0,"),
    ("preset", "Kasmina/Spiral-v0", "Did you mean 'Kasmina/Spirals-v0'?"),
]
OF_VECTORS = [
    ({"num_envs": 0}, "`num_envs` must be an integer from 1 to 1048576, got 0. Change it."),
    ({"num_envs": True}, "`num_envs` must be an integer from 1 to 1048576, got True. Change it."),
    ({"num_envs": 2.0}, "`num_envs` must be an integer from 1 to 1048576, got 2.0. Change it."),
    ({"num_envs": 10**30}, "`num_envs` must be an integer from 1 to 1048576, got 1000000000000000000000000000000."),
    ({"num_workers": 0}, "`num_workers` must be an integer from 1 to 1024, got 0. Change it."),
    ({"num_workers": "2"}, "`num_workers` must be an integer from 1 to 1024, got '2'. Change it."),
    ({"num_workers": 3}, "`num_workers` must be 1 on devices other than one CPU, and at most the 2 networks, got 3."),
    ({"num_workers": 2, "devices": ["cpu", "cpu"]}, "`num_workers` must be 1 on devices other than one CPU, and"),
    ({"num_workers": 2, "initial_weights": "nope"}, "`initial_weights` must be a file that exists, got 'nope'."),
    ({"num_workers": 2, "task": "nope"}, "`task` must be one of"),
    ({"devices": "cpu"}, "`devices` must be a list of device names, got 'cpu'."),
    ({"devices": {"cpu"}}, "`devices` must be a list of device names, got {'cpu'}."),
    ({"devices": [3.5]}, "`device` must be a device that PyTorch can use here, got 3.5"),
    ({"devices": ["cpu"] * 3}, "`devices` and `num_workers` must be at most the 2 networks, got 3. Name fewer"),
    ({"devices": ["cpu"], "device": "cpu"}, "`device` must be left out beside `devices`, got 'cpu'."),
    ({"autoreset_mode": None}, "`autoreset_mode` must be one of"),
    ({"autoreset_mode": "never"}, "`autoreset_mode` must be one of"),
    ({"max_episode_steps": 0}, "`max_episode_steps` must be an integer of at least 1, or None, got 0. Change it."),
    ({"max_episode_steps": 1.5}, "`max_episode_steps` must be an integer of at least 1, or None, got 1.5. Change it."),
    ({"num_envs": 2000, "num_workers": 1025}, "`num_workers` must be an integer from 1 to 1024, got 1025. Change"),
    ({"num_envs": 2000, "devices": ["cpu"] * 1025}, "`devices` must be at most 1024 names, got 1025. Name fewer."),
    (
        {"num_envs": 2**20, "host_settings": {"width": 2**10}},
        "`num_envs` must be at most 16272 for networks of 1055747 parameters, got 1048576. Make fewer, or",
    ),
    ({"engine": "fused", "dtype": "float64"}, "`engine` must be 'torch' or 'auto' here, got 'fused': the fused engine"),
]


def sentence(error: BaseException) -> str:
    """What an exception says, in one line."""
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize("name, value, words", OF_BOTH, ids=lambda value: repr(value)[:40])
def test_what_makes_no_environment_is_named(name, value, words):
    for make in (KasminaEnv, lambda preset, **settings: KasminaVectorEnv(2, preset, **settings)):
        with pytest.raises((ValueError, KeyError, FileNotFoundError)) as caught:
            make(**{"preset": SPIRALS, name: value})
        assert words in sentence(caught.value)


@pytest.mark.parametrize("arguments, words", OF_VECTORS, ids=lambda value: repr(value)[:40])
def test_what_makes_no_vector_is_named(arguments, words):
    with pytest.raises((ValueError, KeyError, FileNotFoundError)) as caught:
        KasminaVectorEnv(**{"num_envs": 2, "preset": SPIRALS, **arguments})
    assert words in sentence(caught.value)


MAKERS = {"host": HOSTS, "task": TASKS}
SIZES = [
    (kind, name, setting)
    for kind, registry in MAKERS.items()
    for name in registry
    for setting, parameter in inspect.signature(registry.get(name), eval_str=True).parameters.items()
    if parameter.annotation is int and setting != "seed"
]


@pytest.mark.parametrize("kind, name, setting", SIZES)
@pytest.mark.parametrize("value", [10**9, 10**30])
def test_every_size_has_a_limit(kind, name, setting, value):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make_task(make_problem(SPIRALS, **{kind: name, f"{kind}_settings": {setting: value}, "blueprints": ("mlp",)}))
    assert str(value) in sentence(caught.value)


def test_an_engine_of_the_environment_variable_is_refused_as_early(monkeypatch):
    monkeypatch.setenv("KASMINA_ENGINE", "fused")
    for make in (KasminaEnv, partial(KasminaVectorEnv, 2), partial(KasminaVectorEnv, 2, num_workers=2)):
        with pytest.raises(
            ValueError, match=r"^`KASMINA_ENGINE` must be 'torch' or 'auto' here, got 'fused': the fused"
        ):
            make(SPIRALS, dtype="float64")
    monkeypatch.setenv("KASMINA_ENGINE", "numba")
    with pytest.raises(ValueError, match=r"^`KASMINA_ENGINE` must be one of auto, torch, fused, got 'numba'\.$"):
        KasminaEnv(SPIRALS)


def test_settings_are_left_out_beside_a_problem():
    with pytest.raises(ValueError, match=r"^Settings must be left out beside a problem, got horizon\.$"):
        KasminaEnv(make_problem(SPIRALS), horizon=5)


@pytest.mark.parametrize("name", [3, "", " ", None])
@pytest.mark.parametrize("register", ["register_host", "register_task", "register_reward", "register_policy"])
def test_a_name_is_a_word(register, name):
    with pytest.raises(ValueError, match=r"^`\w+` must have a name in words, got "):
        getattr(kasmina_env, register)(name)(dict)


@pytest.mark.parametrize("topologies", [(), ("images",), ("image", 3)])
def test_a_blueprint_is_for_features_that_there_are(topologies):
    with pytest.raises(ValueError, match=r"^`topologies` must be some of image, vector, tokens, got "):
        kasmina_env.register_blueprint("wrong", topologies=topologies)
    assert "wrong" not in BLUEPRINTS


def test_what_was_refused_is_not_registered():
    assert not {3, "", " ", None} & {*TASKS, *PRESETS, *gym.registry}
