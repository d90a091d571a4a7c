"""What was lost with a worker is played again in another, bit for bit; where none can take it, the episodes end."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from kasmina_env.episode.core import EpisodeCore
from kasmina_env.episode.lasting import ATTEMPTS, Lasting
from kasmina_env.episode.placement import Here, LostPlaceError, Process
from kasmina_env.episode.problem import make_problem
from kasmina_env.episode.report import LOST
from tests.episodes import digest, small_settings

SPIRALS = "Kasmina/Spirals-v0"
PROBLEM = make_problem(SPIRALS, **small_settings(SPIRALS))
CORE = partial(EpisodeCore, PROBLEM, 3, torch.device("cpu"))
ALL, NO_ACTIONS = np.arange(3), np.zeros(0, dtype=np.int64)


def in_process(is_spare):
    return Process(CORE)


def reset(place, rows=ALL):
    return place.start("reset", rows, 7 + rows, np.zeros(len(rows), dtype=np.int64), NO_ACTIONS)()


def life(place, kill=()):
    """Everything that is seen of episodes; the worker dies before the calls of these numbers."""
    rng, saved = np.random.default_rng(0), None
    seen = [reset(place)]
    for number in range(14):
        if number in kill:
            place._place._process.kill()
        if number == 4:
            saved = place.start("snapshot", ALL[1:])()
        if number == 6:
            seen.append(reset(place, np.array([0, 2])))
            place.start("reseed", np.array([2]), np.array([11]))()
        if number == 9:
            seen.append(place.start("restore", saved, np.array([2, 0]))())
        seen.append(place.start("step", rng.integers(PROBLEM.actions.num_actions, size=3), None)())
    seen += [place.start("state", None)(), place.start("network", 2, True)().state_dict()]
    place.close()()
    return digest(seen)


@pytest.fixture(scope="module")
def expected():
    return life(Here(CORE))


@pytest.mark.parametrize(("every", "kill"), [(1, (3, 7)), (4, (0, 7, 12)), (100, (9,))], ids=str)
def test_episodes_go_on_bit_for_bit_after_their_worker_was_killed(every, kill, expected):
    assert life(Lasting(in_process, 3, every), kill) == expected


def test_what_is_kept_for_a_loss_stays_small():
    place = Lasting(lambda is_spare: Here(CORE), 3, 4)
    reset(place)
    kept = []
    for _ in range(9):
        place.start("step", ALL, None)()
        kept.append(len(place._since))
    assert max(kept) == 4


def test_a_call_that_is_refused_is_not_played_again():
    place = Lasting(in_process, 3, 4)
    reset(place)
    with pytest.raises(ValueError, match="`rows` must lie between 0 and 2"):
        place.start("reseed", np.array([99]), np.array([1]))()
    place._place._process.kill()
    assert place.start("step", ALL, None)().step.tolist() == [1, 1, 1]
    place.close()()


class Mortal:
    """Workers of which only some live: the first, and those from a number on."""

    def __init__(self, healthy_from):
        self.num_made, self.healthy_from = 0, healthy_from

    def __call__(self, is_spare):
        process, self.num_made = Process(CORE), self.num_made + 1
        if 1 < self.num_made < self.healthy_from:
            process._await_core()
            process._process.kill()
        return process


def test_episodes_that_no_worker_can_take_end_with_a_failure_and_a_reset_begins_others():
    place = Lasting(Mortal(2 + ATTEMPTS), 3, 4)
    reset(place)
    before = place.start("step", ALL, None)()
    place._place._process.kill()
    lost = place.start("step", ALL, None)()
    assert (lost.failure == LOST).all()
    assert lost.is_over.all()
    assert not lost.reward.any()
    assert np.array_equal(lost.ending.committed_score, before.score)
    with pytest.raises(LostPlaceError, match=r"^These episodes were lost with their worker\. Reset all of them\.$"):
        place.start("network", 0)
    assert place.start("step", ALL, None)() is lost
    assert digest(reset(place)) == digest(reset(Here(CORE)))
    assert place.start("step", ALL, None)().step.tolist() == [1, 1, 1]
    place.close()()


def test_a_worker_that_cannot_be_replaced_at_all_is_an_error():
    place = Lasting(Mortal(99), 3, 4)
    place._place._await_core()
    place._place._process.kill()
    with pytest.raises(LostPlaceError, match=r"^Worker exited with code -9\."):
        reset(place)
    with pytest.raises(LostPlaceError, match=r"^These episodes were lost with their worker\."):
        place.start("step", ALL, None)
