"""Environments on disk: what is loaded goes on bit for bit, and a file that does not fit changes nothing."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kasmina_env.networks.tensor_file import DESCRIPTION, to_bytes
from tests.episodes import (
    IDS,
    SMALL,
    digest,
    in_form,
    lively_actions,
    play_lively,
    run_python,
    small_env,
    small_vec,
)

SPIRALS = "Kasmina/Spirals-v0"
CUTS = (0, 3, 10)  # steps; the horizon is 10


def at(env, num_steps):
    """An environment that has come so far."""
    if num_steps:
        play_lively(env, seed=num_steps, num_steps=num_steps)
    else:
        env.reset(seed=5)
    return env


def future(env, num_steps=14):
    """Everything that is seen from here on, in episodes that follow too."""
    rng, seen = np.random.default_rng(7), []
    for _ in range(num_steps):
        if env.unwrapped.episodes.report.is_over[0] and not hasattr(env, "num_envs"):
            seen.append(env.reset())
        actions = in_form(env, lively_actions(rng, env))
        seen.append(env.step(actions if hasattr(env, "num_envs") else actions[0]))
    return digest(seen, env.snapshot().generators)


# ── going on ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("make", [small_env, small_vec])
@pytest.mark.parametrize("env_id", IDS)
def test_a_fresh_environment_goes_on_bit_for_bit(env_id, make, tmp_path):
    for cut in CUTS:
        env, path = at(make(env_id), cut), tmp_path / f"{cut}.safetensors"
        env.save(path)
        again = make(env_id)
        again.load(path)
        assert digest(again.snapshot().episodes.content.state) == digest(env.snapshot().episodes.content.state)
        assert future(again) == future(env)


def test_another_process_goes_on_bit_for_bit(tmp_path):
    wanted, kinds = [], [("small_env", "flat", 4), ("small_vec", "factored", 9), ("small_vec", "flat", 10)]
    for number, (make, form, cut) in enumerate(kinds):
        env = at(globals()[make](SPIRALS, action_space=form), cut)
        env.save(tmp_path / f"{number}.safetensors")
        wanted.append(future(env))
    code = f"""
import torch
from tests.envs.test_saving import SPIRALS, future, small_env, small_vec
torch.set_num_threads({torch.get_num_threads()})
for number, (make, form, _) in enumerate({kinds}):
    env = globals()[make](SPIRALS, action_space=form)
    env.load(f"{tmp_path}/{{number}}.safetensors")
    print(future(env))
"""
    assert run_python(code).split() == wanted


def test_an_environment_in_use_goes_on_from_a_file(tmp_path):
    env, other = at(small_env(SPIRALS), 4), at(small_env(SPIRALS), 7)
    env.save(tmp_path / "a.safetensors")
    other.load(tmp_path / "a.safetensors")
    assert future(other) == future(env)


def test_saving_changes_nothing(tmp_path):
    env, undisturbed = at(small_vec(SPIRALS), 4), at(small_vec(SPIRALS), 4)
    env.save(tmp_path / "a.safetensors")
    env.save(tmp_path / "a.safetensors", overwrite=True)
    assert future(env) == future(undisturbed)


def test_what_was_loaded_is_the_environment_s_own(tmp_path):
    env, first, second = at(small_vec(SPIRALS), 4), small_vec(SPIRALS), small_vec(SPIRALS)
    saved = env.snapshot()
    first.restore(saved), second.restore(saved)
    assert future(first) == future(second) == future(env)


def test_the_engine_that_was_at_work_goes_on(tmp_path):
    env = at(small_vec(SPIRALS, engine="torch"), 4)
    env.save(tmp_path / "a.safetensors")
    again = small_vec(SPIRALS)
    again.load(tmp_path / "a.safetensors")
    assert future(again) == future(env)


@pytest.mark.parametrize("before, after", [(2, 1), (1, 2)])
def test_rows_are_spread_over_other_processes(before, after, tmp_path):
    env = at(small_vec(SPIRALS, num_workers=before, dtype="float64"), 6)
    env.save(tmp_path / "a.safetensors")
    again = small_vec(SPIRALS, num_workers=after, dtype="float64")
    again.load(tmp_path / "a.safetensors")
    actions = lively_actions(np.random.default_rng(0), env)
    one, other = env.step(actions), again.step(actions)
    assert np.allclose(one[0], other[0], atol=1e-6)
    assert np.allclose(one[1], other[1], atol=1e-6)
    env.close(), again.close()


@pytest.mark.parametrize("kind", ["PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_any_generator_of_numpy_is_kept(kind, tmp_path):
    env = small_env(SPIRALS)
    env.reset(seed=0)
    env.np_random = np.random.Generator(getattr(np.random, kind)(3))
    env.reset()
    env.save(tmp_path / "a.safetensors")
    again = small_env(SPIRALS)
    again.load(tmp_path / "a.safetensors")
    assert digest(again.reset()) == digest(env.reset())


# ── what does not fit ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "a.safetensors"
    at(small_vec(SPIRALS), 6).save(path)
    return path


def refusal(env, path):
    """The sentence of a refused load, after which the environment is as it was."""
    before = digest(env.snapshot())
    with pytest.raises(ValueError, match=r"^`.*a\.safetensors` must ") as caught:
        env.load(path)
    assert digest(env.snapshot()) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def resave(path, **values):
    """Change the document, with a checksum that fits."""
    with safe_open(path, "pt") as file:
        document = json.loads(file.metadata()[DESCRIPTION])
    path.write_bytes(to_bytes(json.dumps({**document, **values}), load_file(path)))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: small_vec(SPIRALS, learning_rate=0.5), "of an equal problem, got .* with another learning_rate"),
        (lambda: small_vec("Kasmina/Digits-v0"), "of an equal problem, got Kasmina/Spirals-v0 with another task"),
        (lambda: small_vec(SPIRALS, num_envs=5), "with rows 5, got 4"),
        (lambda: small_vec(SPIRALS, dtype="float64"), "with dtype torch.float64, got torch.float32"),
    ],
)
def test_episodes_of_another_environment_are_refused(make, words, saved):
    env = make()
    env.reset(seed=0)
    assert re.search(words, refusal(env, saved))


@pytest.mark.parametrize(
    "values, words",
    [
        ({"schema": 2}, "must have 1 as schema, got 2"),
        ({"kind": "grown network"}, "must have 'episodes' as kind, got 'grown network'"),
        ({"parts": {}}, "whose observations are others of the same names"),
        ({"content": ["object", {}]}, "Content has no episodes"),
        ({"content": 3}, "must hold episodes as this version has them"),
        ({"content": ["object", {"episodes": ["array", "int64"]}]}, "'episodes.episodes' is no CoreSnapshot"),
    ],
)
def test_a_file_of_another_version_is_refused(values, words, saved):
    resave(saved, **values)
    assert words in refusal(at(small_vec(SPIRALS), 3), saved)


def test_no_cut_goes_unnoticed(saved):
    content, env = saved.read_bytes(), at(small_vec(SPIRALS), 3)
    for place in range(0, len(content), len(content) // 20):
        saved.write_bytes(content[:place])
        assert "must be a whole .safetensors file" in refusal(env, saved)


def test_no_flipped_bit_goes_unnoticed(saved):
    content, env = saved.read_bytes(), at(small_vec(SPIRALS), 3)
    for place in range(0, len(content), len(content) // 60):
        saved.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert "must be" in refusal(env, saved)


def test_other_tensors_are_refused(saved):
    with safe_open(saved, "pt") as file:
        header = file.metadata()
    save_file({"a": torch.zeros(1)}, saved, header)
    assert "got content of another checksum" in refusal(at(small_vec(SPIRALS), 3), saved)


def test_a_file_that_exists_is_kept(saved):
    content = saved.read_bytes()
    with pytest.raises(FileExistsError, match="`path` must be new"):
        at(small_vec(SPIRALS), 2).save(saved)
    assert saved.read_bytes() == content
    assert [path.name for path in saved.parent.iterdir()] == ["a.safetensors"]


def test_there_is_nothing_to_save_before_the_first_reset(tmp_path):
    with pytest.raises(RuntimeError, match="There are no episodes yet"):
        small_env(SPIRALS).save(tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError, match="`path` must be a file that exists"):
        small_env(SPIRALS).load(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"`path` must end in \.safetensors, got 'a\.pkl'"):
        small_env(SPIRALS).load(tmp_path / "a.pkl")


def test_the_first_episodes_are_those_of_all_rows(saved):
    env = small_vec(SPIRALS)
    part = at(small_vec(SPIRALS), 3).snapshot([1, 2])
    with pytest.raises(RuntimeError, match="must be those of all rows"):
        env.restore(part, [0, 1])


def test_an_environment_that_is_closed_is_not_saved(saved):
    env = at(small_vec(SPIRALS, **SMALL), 1)
    env.close()
    with pytest.raises(Exception, match="closed"):
        env.save(saved, overwrite=True)
