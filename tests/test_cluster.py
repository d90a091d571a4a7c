"""Networks in Ray actors on two nodes do what they do in processes, also when actors and nodes are lost."""

from __future__ import annotations

import gc
import os
import pickle
import signal
from functools import partial

import numpy as np
import pytest

from kasmina_env import KasminaVectorEnv
from kasmina_env.comparison.arms import compare_arms
from kasmina_env.controllers.halving import Effort, Round
from kasmina_env.controllers.policy import play as play_policy
from kasmina_env.controllers.scripted import Wait
from kasmina_env.controllers.search import search
from kasmina_env.envs.workers import ALONE, Workers
from kasmina_env.episode import ray_actor
from kasmina_env.episode.problem import make_problem
from kasmina_env.episode.ray_actor import RayActor
from kasmina_env.episode.report import LOST
from kasmina_env.learning.controller_file import load_controller
from kasmina_env.learning.train import train
from kasmina_env.learning.training_config import TrainingConfig
from tests.cli.running import complaint, said
from tests.episodes import WAIT, digest, mixed_actions, networks_of, small_settings, small_vec

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'kasmina-env[ray]'")
SPIRALS = "Kasmina/Spirals-v0"
SMALL_NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
EVERYWHERE = [ALONE, Workers(2), Workers(2, "ray")]
TINY = TrainingConfig(
    preset=SPIRALS,
    algorithm="maskable_ppo",
    num_envs=4,
    total_steps=96,
    hyperparameters={"n_steps": 12, "batch_size": 48},
    settings={"horizon": 6, "batches_per_step": 1, "batch_size": 8, "watch_samples": 16, "score_samples": 16},
)


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**SMALL_NODE, "include_dashboard": False})
    cluster.add_node(**SMALL_NODE)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def in_actors(num_envs=4, num_workers=2, **settings):
    return small_vec(SPIRALS, num_envs, placement="ray", num_workers=num_workers, **settings)


def asked(place, question):
    """Answer of the process that runs an actor."""
    return ray.get(place._place._actor.__ray_call__.remote(question))


def node_of(place):
    return asked(place, lambda server: ray.get_runtime_context().get_node_id())


def kill(place):
    os.kill(asked(place, lambda server: os.getpid()), signal.SIGKILL)


def kill_an_actor():
    """Kill one of the actors that are at work, whoever holds it."""
    actors = [thing for thing in gc.get_objects() if type(thing) is RayActor and thing._end.alive]
    ray.kill(actors[-1]._actor)


class Killing:
    """Callback that kills an actor when it is called for the n-th time."""

    def __init__(self, number):
        self.number = number

    def __call__(self, *news):
        self.number -= 1
        if self.number == 0:
            kill_an_actor()


def life(vec, disturbances=None):
    """Digest of everything that is seen of episodes that end, are forked and taken back."""
    rng, seen = np.random.default_rng(0), [vec.reset(seed=3)]
    for step in range(14):
        (disturbances or {}).get(step, lambda: None)()
        seen.append(vec.step(mixed_actions(rng, vec)))
        if step == 3:
            vec.copy_rows([3, 0], [1, 2], rng_seeds=[7, 8])
    seen.append(networks_of(vec))
    vec.close()
    return digest(seen)


# ── the same numbers ────────────────────────────────────────────────────────────────────────────


def test_rows_in_actors_on_two_nodes_live_the_life_of_processes_bit_for_bit(cluster):
    vec = in_actors()
    vec.reset(seed=0)
    assert len({node_of(place) for place in vec.episodes._places}) == 2
    assert life(vec) == life(small_vec(SPIRALS, num_workers=2))


def test_a_search_finds_the_same_everywhere(cluster):
    problem = make_problem(SPIRALS, **small_settings(SPIRALS))
    effort = Effort(num_structured=6, num_random=2, rounds=(Round(9, 0, 2), Round(2, 1, 4)))
    found = [search(problem, effort=effort, workers=workers) for workers in EVERYWHERE]
    assert len({digest(each.plan, each.actions, each.returns) for each in found}) == 1


def test_a_comparison_is_the_same_everywhere_and_when_an_actor_is_killed(cluster):
    arms, settings = {"random": ["random"]}, small_settings(SPIRALS)
    found = [compare_arms(SPIRALS, arms, 6, workers=workers, **settings) for workers in EVERYWHERE]
    found.append(compare_arms(SPIRALS, arms, 6, on_step=Killing(5), workers=EVERYWHERE[-1], **settings))
    assert len({digest(each) for each in found}) == 1


def test_commands_play_on_a_cluster(cluster, tmp_path, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    words = ["compare", SPIRALS, "--policies", "wait", "--episodes", "3", "--out"]
    said(capsys, *words, here), said(capsys, *words, there, "--cluster", "auto")
    for name in ("comparison.json", "episodes.csv"):
        assert (here / name).read_text(encoding="utf-8") == (there / name).read_text(encoding="utf-8")


# ── losses ──────────────────────────────────────────────────────────────────────────────────────


def test_rows_go_on_bit_for_bit_when_actors_are_killed(cluster):
    vec = in_actors(snapshot_every=4)
    first, second = vec.episodes._places
    killed = life(vec, {1: lambda: kill(first), 7: lambda: kill(second), 8: lambda: kill(first)})
    assert killed == life(small_vec(SPIRALS, devices=["cpu"] * 2))


def test_rows_of_a_lost_node_go_on_elsewhere_bit_for_bit(cluster):
    third = cluster.add_node(**SMALL_NODE)
    cluster.wait_for_nodes()
    vec = in_actors(num_workers=3, snapshot_every=4)
    went_on = life(vec, {6: lambda: cluster.remove_node(third, allow_graceful=False)})
    assert went_on == life(small_vec(SPIRALS, devices=["cpu"] * 3))


def test_a_training_goes_on_when_an_actor_is_killed(cluster, tmp_path):
    train(TINY, tmp_path / "undisturbed", num_workers=2)
    train(TINY, tmp_path / "disturbed", Killing(9), num_workers=2, placement="ray")
    one, other = (load_controller(tmp_path / run) for run in ("undisturbed", "disturbed"))
    assert (one.steps, one.layout, digest(one.tensors)) == (other.steps, other.layout, digest(other.tensors))


def test_rows_that_no_node_can_take_fail_and_the_others_go_on(cluster, monkeypatch):
    vec = in_actors()
    vec.reset(seed=0)
    kill(vec.episodes._places[1])
    monkeypatch.setattr(ray_actor, "PATIENCE", 0.01)
    _, _, terminated, _, infos = vec.step([WAIT] * 4)
    assert infos["failure"].tolist() == [0, 0, LOST, LOST]
    assert terminated.tolist() == [False, False, True, True]
    monkeypatch.undo()
    assert vec.step([WAIT] * 4)[4]["step"].tolist() == [2, 2, 0, 0]  # they begin anew
    vec.close()


def test_lost_episodes_are_not_counted_in_a_comparison(cluster, monkeypatch):
    vec = in_actors()
    monkeypatch.setattr(ray_actor, "PATIENCE", 0.01)
    with pytest.raises(RuntimeError, match=r"^Episodes were lost with a worker, and no other could take them\. Play"):
        play_policy(vec, Wait(vec.problem), np.arange(4), Killing(2))
    vec.close()


# ── what is refused ─────────────────────────────────────────────────────────────────────────────


def test_more_actors_than_the_cluster_has_cores_are_refused(cluster):
    with pytest.raises(ValueError, match=r"^`num_workers` must be at most 2, the CPUs of this Ray cluster, got 9\. "):
        in_actors(9, num_workers=9)


@pytest.mark.parametrize("places", [{"num_workers": 5}, {"devices": ["cpu"] * 2}], ids=str)
def test_actors_without_rows_and_lists_of_devices_are_refused(places):
    with pytest.raises(
        ValueError, match=r"^`num_workers` must be at most the 4 networks in Ray actors, and `devices` "
    ):
        KasminaVectorEnv(4, SPIRALS, placement="ray", **places)


def test_an_error_in_making_a_core_arrives_as_it_is(cluster):
    place = RayActor(partial(int, "seven"), "cpu")
    with pytest.raises(ValueError, match=r"^invalid literal for int\(\) with base 10: 'seven'"):
        place.start("reset")


def test_episodes_in_actors_are_not_copied(cluster):
    vec = in_actors()
    with pytest.raises(TypeError, match=r"^An environment in Ray actors cannot be pickled or copied\."):
        pickle.dumps(vec)
    vec.close()


@pytest.mark.parametrize("address", ["no such address", "127.0.0.1:1", "ray://127.0.0.1:none", "auto"])
def test_a_cluster_that_is_not_there_is_one_sentence(address, capsys, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:2")
    meant = "127.0.0.1:2" if address == "auto" else address
    sentence = f"`cluster` must be 'auto' or the address of a Ray cluster to join, got {meant!r}: "
    assert sentence in complaint(capsys, "search", SPIRALS, "--cluster", address, "--out", "none.json")
