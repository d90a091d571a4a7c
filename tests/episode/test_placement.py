"""Episodes are the same in this thread, in several and in processes, and a place that is lost says so."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError

from kasmina_env import KasminaVectorEnv
from kasmina_env.episode.episodes import Episodes
from kasmina_env.episode.placement import Process
from kasmina_env.episode.problem import make_problem
from tests.episodes import (
    IDS,
    ROOT,
    WAIT,
    assert_close,
    digest,
    mixed_actions,
    networks_of,
    play,
    shown,
    small_vec,
)

MIX, SPIRALS = "Kasmina/DigitsMix-v0", "Kasmina/Spirals-v0"  # hosts of several variants and noisy data; small ones
THREADS = {"devices": ["cpu"] * 3}
N = 7


def in_places(env_id=MIX, num_envs=N, **places):
    return small_vec(env_id, num_envs, dtype="float64", **places)


@pytest.fixture(scope="module")
def in_two_processes():
    vec = in_places(num_workers=2)
    yield vec
    vec.close()


@pytest.fixture
def workers():
    """Two processes, of two rows each, that a test may end."""
    vec = small_vec(SPIRALS, num_workers=2)
    vec.reset(seed=0)
    yield vec
    vec.close()


def life(vec):
    """Everything seen of episodes that end, are reset, forked and taken back; and the networks in the end."""
    rng, steps, saved = np.random.default_rng(0), [], None
    vec.reset(seed=3)
    for step in range(16):
        steps.append(shown(vec.step(mixed_actions(rng, vec)), slice(None)))
        if step == 3:
            vec.copy_rows([6, 1, 1], [0, 5, 2], rng_seeds=[7, 8, 9])
        if step == 5:
            vec.reset(options={"reset_mask": np.arange(N) % 3 == 0, "planted": [1]})
        if step == 7:
            saved = vec.snapshot([5, 0, 6])
        if step == 13:
            vec.restore(saved, [1, 6, 2])
    return steps, [vec.network(row, is_committed).state_dict() for row in range(N) for is_committed in (False, True)]


def assert_same_life(one, other):
    for (mine, yours), kind in zip(zip(life(one), life(other), strict=True), ("steps", "networks"), strict=True):
        for step, (seen, wanted) in enumerate(zip(mine, yours, strict=True)):
            assert seen.keys() == wanted.keys(), (kind, step)
            assert_close(seen, wanted)


# ── the same episodes everywhere ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("env_id", IDS)
def test_rows_in_threads_live_the_life_of_one_population(env_id):
    assert_same_life(in_places(env_id, **THREADS), in_places(env_id))


def test_rows_in_processes_live_the_life_of_one_population(in_two_processes):
    assert_same_life(in_two_processes, in_places())


def test_a_snapshot_goes_on_in_other_places_and_another_number_of_them(in_two_processes):
    rng, in_three, here = np.random.default_rng(1), in_places(num_workers=3), in_places()
    places = [in_two_processes, in_three, in_places(**THREADS), here]
    for vec in places:
        vec.reset(seed=9)
    play(here, [mixed_actions(rng, here) for _ in range(4)])
    actions = rng.integers(here.single_action_space.n, size=(12, N))
    saved, wanted = here.snapshot(), [shown(step, slice(None)) for step in play(here, actions)]
    for vec in places:
        vec.restore(saved)
        saved = vec.snapshot()  # from here it goes to the next place
        for step, expected in zip(play(vec, actions), wanted, strict=True):
            assert_close(shown(step, slice(None)), expected)
    in_three.close()


@pytest.mark.parametrize("places", [THREADS, {"num_workers": 2}], ids=["threads", "processes"])
def test_a_snapshot_brings_back_every_row_bit_for_bit_in_its_own_place(places):
    vec, rng = in_places(SPIRALS, **places), np.random.default_rng(2)
    vec.reset(seed=2)
    play(vec, [mixed_actions(rng, vec) for _ in range(4)])
    saved, actions = vec.snapshot(), rng.integers(vec.single_action_space.n, size=(9, N))
    first = digest(play(vec, actions), networks_of(vec))
    vec.restore(saved)
    assert digest(play(vec, actions), networks_of(vec)) == first
    vec.close()


def test_a_copy_of_episodes_in_threads_goes_on_like_them():
    vec = in_places(SPIRALS, **THREADS)
    vec.reset(seed=0)
    vec.step([1] * N)
    copies = [deepcopy(vec), pickle.loads(pickle.dumps(vec))]
    expected = digest(play(vec, [[WAIT] * N] * 3))
    assert [digest(play(copy, [[WAIT] * N] * 3)) for copy in copies] == [expected] * 2


@pytest.mark.parametrize("places", [{}, THREADS, {"num_workers": 2}], ids=["here", "threads", "processes"])
def test_facts_at_a_limit_and_noisy_test_data_come_from_the_place_of_the_row(places):
    here, there = in_places(max_episode_steps=2), in_places(max_episode_steps=2, **places)
    last = []
    for vec in (here, there):
        vec.reset(seed=5)
        last.append(shown(play(vec, [[1] * N] * 2)[-1], slice(None)))
    assert_close(*last)
    assert last[0]["test_accuracy"].all()
    assert np.allclose(here.episodes.test_data(6).x, there.episodes.test_data(6).x)
    assert there.episodes.ending(6).committed_score == pytest.approx(last[0]["committed_score"][[6]])
    there.close()


# ── what is refused ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("settings", [{"num_workers": 4}, {"num_workers": 2, "devices": ["cpu", "cpu"]}], ids=str)
def test_workers_that_have_nothing_to_do_are_refused(settings):
    with pytest.raises(ValueError, match=r"^`num_workers` must be 1 on devices other than one CPU, and at most the 3 "):
        KasminaVectorEnv(3, SPIRALS, **settings)


def test_more_places_than_networks_are_refused():
    with pytest.raises(ValueError, match=r"^`devices` and `num_workers` must be at most the 3 networks, got 4\. "):
        KasminaVectorEnv(3, SPIRALS, devices=["cpu"] * 4)


def test_rows_that_do_not_exist_and_a_first_reset_of_some_are_refused():
    episodes, zero = Episodes(make_problem(SPIRALS), 3, devices=("cpu", "cpu")), np.zeros(2, dtype=np.int64)
    with pytest.raises(RuntimeError, match=r"^The first episodes must be those of all rows\. Call "):
        episodes.reset(np.array([0, 2]), zero, zero)
    with pytest.raises(ValueError, match=r"^`rows` must lie between 0 and 2, got \[3\]\. Name rows that exist\.$"):
        episodes.network(3)


def test_only_episodes_in_one_place_have_a_core_to_look_into():
    with pytest.raises(ValueError, match=r"^The episodes must be in one place, got several\. Make them without "):
        small_vec(SPIRALS, **THREADS).episodes.local  # noqa: B018


def test_actors_without_ray_are_one_sentence_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"needs? ray, which is not installed\. Run: pip install 'kasmina-env"
    ):
        small_vec(SPIRALS, placement="ray")


def test_a_placement_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"^`placement` must be one of local, ray, got 'cloud'\."):
        small_vec(SPIRALS, placement="cloud")


def test_a_daemon_process_is_told_that_it_may_not_have_workers(monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(RuntimeError, match=r"^`num_workers` must be 1 in a daemon process, which may not start oth"):
        small_vec(SPIRALS, num_workers=2)


def test_a_script_without_main_guard_is_told_so_in_one_sentence(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"import kasmina_env\nkasmina_env.KasminaVectorEnv(2, {SPIRALS!r}, num_workers=2).reset()\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    sentence = "A script that uses workers keeps its code under `if __name__ == '__main__':`."
    *_, last = done.stderr.splitlines()
    assert last == f"RuntimeError: Worker exited with code 1 while it started. {sentence}"
    assert "bootstrapping" not in done.stderr
    assert done.returncode == 1


# ── places that fail ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("places", [THREADS, {"num_workers": 2}], ids=["threads", "processes"])
def test_an_error_in_one_place_is_raised_when_all_have_finished_and_leaves_no_answer_behind(places):
    vec = in_places(SPIRALS, **places)
    vec.reset(seed=0)
    before = digest(networks_of(vec))
    with pytest.raises(ValueError, match="`rows` must lie between"):
        vec.episodes._run("snapshot", [(0, (np.array([99]),)), (1, (np.array([0]),))])
    with pytest.raises(AttributeError, match="no_such_method"):
        vec.episodes._run("no_such_method", [(1, ()), (0, ())])
    assert digest(networks_of(vec)) == before
    assert vec.step([WAIT] * N)[4]["step"].tolist() == [1] * N
    vec.close()


def test_what_a_worker_cannot_make_is_refused_before_it_is_started():
    with pytest.raises(FileNotFoundError, match=r"^`initial_weights` must be a file that exists, got 'nowhere'\."):
        small_vec(SPIRALS, num_workers=2, initial_weights="nowhere")


def test_an_error_in_making_a_worker_arrives_as_it_is():
    place = Process(partial(int, "seven"))
    with pytest.raises(ValueError, match=r"^invalid literal for int\(\) with base 10: 'seven'"):
        place.start("reset")
    with pytest.raises(RuntimeError, match=r"^The workers of this environment were closed\. Make the environment anew"):
        place.start("reset")


def test_a_worker_that_was_killed_is_reported_and_the_other_still_answers(workers):
    rescued, place = digest(workers.network(0).state_dict()), workers.episodes._places[1]
    place._process.kill()
    with pytest.raises(RuntimeError, match=r"^Worker exited with code -9\. Make the environment anew, with fewer ne"):
        workers.step([WAIT] * 4)
    with pytest.raises(RuntimeError, match=r"^The workers of this environment were closed\. Make the environment anew"):
        workers.step([WAIT] * 4)
    assert workers.network(0).state_dict().keys() == workers.network(1).state_dict().keys()
    assert digest(workers.network(0).state_dict()) != rescued  # it took both steps


def test_a_worker_that_is_terminated_still_gives_its_networks_away(workers):
    for place in workers.episodes._places:
        os.kill(place._process.pid, signal.SIGTERM)
    workers.step([WAIT] * 4)
    assert len(workers.snapshot()) == 4


def test_a_call_that_was_interrupted_leaves_no_answer_to_the_next_one(workers, monkeypatch):
    place = workers.episodes._places[0]
    pipe = place._pipe

    class Interrupted:
        def __getattr__(self, name):
            return getattr(pipe, name)

        def recv_bytes(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(place, "_pipe", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        workers.step([WAIT] * 4)
    for row in (0, 3):
        with pytest.raises(ClosedEnvironmentError, match=r"^The environment is closed\. Make a new one\.$"):
            workers.network(row)


def test_episodes_in_processes_are_not_copied():
    vec = small_vec(SPIRALS, num_workers=2)
    for copy in (deepcopy, pickle.dumps):
        with pytest.raises(
            TypeError, match=r"^An environment with `num_workers` above 1 cannot be pickled or copied\."
        ):
            copy(vec)
    vec.close()


# ── the end ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("places", [{}, THREADS, {"num_workers": 2}], ids=["here", "threads", "processes"])
def test_closed_episodes_say_that_they_are(places):
    episodes, rows = Episodes(make_problem(SPIRALS), 3, **places), np.zeros(3, dtype=np.int64)
    episodes.close()
    episodes.close()
    with pytest.raises(RuntimeError, match=r"^The episodes are closed\. Make the environment anew\.$"):
        episodes.reset(np.arange(3), rows, rows)


def test_workers_end_at_once_and_in_silence_whatever_they_do(workers, capfd):
    starting, actions = small_vec(SPIRALS, num_workers=3), np.zeros(2, dtype=np.int64)
    for place in workers.episodes._places:
        for _ in range(30):
            place.start("step", actions)  # nobody waits for an answer
    began = time.perf_counter()
    workers.close(), starting.close()
    assert time.perf_counter() - began < 1
    assert not any(place._process.is_alive() for vec in (workers, starting) for place in vec.episodes._places)
    assert capfd.readouterr() == ("", "")


def test_workers_of_an_environment_that_nobody_holds_end():
    processes = [place._process for place in small_vec(SPIRALS, num_workers=2).episodes._places]
    assert not any(process.is_alive() for process in processes)
