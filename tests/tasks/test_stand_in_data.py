"""Environments whose data are not everywhere, on files of noise in the format of the real ones: they work too."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from kasmina_env import PRESETS
from kasmina_env.tasks import DATASETS
from tests.episodes import FORMS, digest, lively_actions, play_lively, small_settings

NUM_TRAIN, NUM_TEST = 700, 100
FILE_IDS = [name for name in PRESETS if PRESETS.get(name).settings["task"] in DATASETS]


def labels(count: int) -> bytes:
    return bytes(i % 10 for i in range(count))


def idx(contents: bytes, *shape: int) -> bytes:
    header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    return gzip.compress(header + contents, 1, mtime=0)


def fashion_mnist_files(rng: np.random.Generator) -> dict[str, bytes]:
    files = {}
    for part, count in (("train", NUM_TRAIN), ("t10k", NUM_TEST)):
        files[f"{part}-images-idx3-ubyte.gz"] = idx(rng.bytes(count * 784), count, 28, 28)
        files[f"{part}-labels-idx1-ubyte.gz"] = idx(labels(count), count)
    return files


def cifar10_files(rng: np.random.Generator) -> dict[str, bytes]:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
            count = NUM_TEST if name.startswith("test") else NUM_TRAIN // 5
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            contents = b"".join(bytes([label]) + rng.bytes(3072) for label in labels(count))
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))
    return {"cifar-10-binary.tar.gz": packed.getvalue()}


MAKERS = {"fashion_mnist": fashion_mnist_files, "cifar10": cifar10_files}


@pytest.fixture(params=range(len(FILE_IDS)), ids=FILE_IDS)  # a parameter that is an id is skipped without its files
def env_id(request, tmp_path, monkeypatch):
    """An id, with files of noise where its data are looked for first."""
    env_id = FILE_IDS[request.param]
    name = PRESETS.get(env_id).settings["task"]
    dataset, contents, files = DATASETS.get(name), MAKERS[name](np.random.default_rng(0)), []
    (tmp_path / name).mkdir()
    for file in dataset.files:
        packed = contents[file.name]
        (tmp_path / name / file.name).write_bytes(packed)
        plain = hashlib.sha256(gzip.decompress(packed)).hexdigest() if file.plain_sha256 else ""
        files.append(replace(file, sha256=hashlib.sha256(packed).hexdigest(), plain_sha256=plain))
    monkeypatch.setattr(f"kasmina_env.tasks.{name}.DATASET", replace(dataset, files=tuple(files)))
    monkeypatch.setenv("KASMINA_DATA", str(tmp_path))
    return env_id


@pytest.mark.parametrize("form", FORMS)
def test_both_checkers_have_nothing_to_say(env_id, form):
    env = gym.make(env_id, action_space=form, **small_settings(env_id)).unwrapped
    check_env(env)
    pytest.importorskip("stable_baselines3.common.env_checker").check_env(env)


def test_score_changes_sum_to_committed_minus_first_score(env_id):
    vec, rng, total = gym.make_vec(env_id, num_envs=12, **small_settings(env_id)), np.random.default_rng(0), 0.0
    first = vec.reset(seed=0)[1]["score"]
    for _ in range(vec.problem.config.horizon):
        infos = vec.step(lively_actions(rng, vec))[4]
        total = total + infos["reward_terms"]["score_change"]
    assert np.allclose(total, infos["committed_score"] - first, rtol=0, atol=1e-6)
    assert infos["num_fossilized"].sum() > 0


def test_the_same_seed_gives_the_same_episode_and_restored_it_goes_on(env_id):
    env, again = (gym.make(env_id, **small_settings(env_id)).unwrapped for _ in range(2))
    assert digest(play_lively(env, seed=3)) == digest(play_lively(again, seed=3))
    play_lively(env, seed=3, num_steps=5)
    saved, actions = env.snapshot(), [0, 0, 0]
    first = digest([env.step(action) for action in actions])
    env.restore(saved)
    assert digest([env.step(action) for action in actions]) == first


def test_its_pictures_drift_as_digits_do(env_id, tmp_path):
    """The drift of `DigitsDrift` is a setting: each network's pictures are inverted from its own step on."""
    events = [[], [[2, "invert", 1.0]]]
    family = {"visible": [], "train": [{"events": found} for found in events], "test": [{"events": []}]}
    path = tmp_path / "family.json"
    path.write_text(json.dumps(family), encoding="utf-8")
    settings = {**small_settings(env_id), "instances": str(path)}
    vec = gym.make_vec(env_id, num_envs=2, **settings)
    vec.reset(seed=[0, 0], options={"instance": [0, 1]})
    losses = np.array([vec.step(np.zeros(2, dtype=np.int64))[4]["train_loss"] for _ in range(4)])
    assert (losses[:2, 0] == losses[:2, 1]).all()
    assert (losses[2:, 0] != losses[2:, 1]).all()
