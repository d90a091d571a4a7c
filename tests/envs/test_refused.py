"""A call that is refused is answered in one sentence and changes nothing: the future is that of a twin not asked."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector import AutoresetMode

from tests.episodes import FORMS, digest, in_form, lively_actions, play_lively, small_env, small_vec

MIX = "Kasmina/DigitsMix-v0"
NOT_SEEDS = [-1, 1.5, "x", True, {}, b"abc", np.array(5), [5, -1, 2], [5, "x", 3], [1, 2], np.ones(3), [[1], [2, 3]]]
NOT_OPTIONS = [
    *(3, [], "split", {"dificulty": 1}, {3: 1}),
    *({"split": split} for split in ("tset", None, 3, ["train"])),
    *({"instance": instance} for instance in (-1, 9999, 1.0, True, "a", [0] * 9, [0, "a", 1], [[0], [1, 2]], {})),
    *({"planted": planted} for planted in (1, "x", [0], [10**9], [-1], [1.0], [True], [[1]], [[1], [1, 2]], ["x"])),
    {"split": "test", "instance": 0},
]
NOT_MASKS = [
    True,
    [True],
    [False] * 3,
    [1, 0, 1],
    np.array([0, 1, 2]),
    "abc",
    [0.5] * 3,
    [[True]] * 3,
    [[True], [], []],
]
NOT_ROWS = [3, -1, None, "abc", [], [3], [-1], [0.0], [True, False, True], [[0], [1]], [[0], [1, 2]], [None]]
NOT_SNAPSHOTS = [None, 3, "saved", {}]
# arguments that are refused, by method
REFUSED = {
    "reset": [
        *({"seed": seed} for seed in NOT_SEEDS),
        *({"options": options, "seed": 3} for options in NOT_OPTIONS),
    ],
    "restore": [{"saved": saved} for saved in NOT_SNAPSHOTS],
    "save": [{"path": "episodes.pkl", "overwrite": True}],
    "load": [{"path": path} for path in ("episodes.pkl", "missing.safetensors")],
}
REFUSED_BY_VECTOR = {
    **REFUSED,
    "reset": [
        *REFUSED["reset"],
        *({"options": {"reset_mask": mask, "split": "test"}, "seed": 3} for mask in NOT_MASKS),
    ],
    "snapshot": [{"rows": rows} for rows in NOT_ROWS if rows is not None],
    "network": [{"row": row} for row in [*NOT_ROWS, 1.0, True]],
    "copy_rows": [
        *({"source": rows, "target": [0], "rng_seeds": [1]} for rows in NOT_ROWS),
        *({"source": [0], "target": rows} for rows in NOT_ROWS),
        *({"source": [0, 1], "target": target} for target in ([2, 2], [2], [0, 1, 2])),
        *(
            {"source": [0], "target": [1], "rng_seeds": seeds}
            for seeds in (3, "x", [], [None], [-1], [1, 2], [2**63], [1.0])
        ),
    ],
}
NOT_ACTIONS = {
    "flat": [-7, 10**6, 1.5, True, None, "x", np.nan, [[0], [1, 2]], [], 2**64 - 1],
    "factored": [0, [0] * 6, [0] * 6 + [99], [-1] + [0] * 6, [0.0] * 7, None, [[0], [1, 2]]],
}


def future(env):
    """Everything that is still to come: the rest of the episode, the next one, and what is drawn after it."""
    rng, seen = np.random.default_rng(1), []
    for _ in range(14):
        actions = in_form(env, lively_actions(rng, env))
        seen.append(env.step(actions if hasattr(env, "num_envs") else actions[0]))
        if not hasattr(env, "num_envs") and seen[-1][2]:
            seen.append(env.reset())
    return digest(seen, env.reset(), env.snapshot(), env.np_random.random())


def twins(make, num_steps=3, **settings):
    """Two equal environments in the middle of an episode."""
    pair = make(MIX, **settings), make(MIX, **settings)
    for env in pair:
        play_lively(env, seed=7, num_steps=num_steps)
    return pair


def assert_refused(method, calls):
    """Each call raises one sentence that names an argument."""
    for arguments in calls:
        with pytest.raises((ValueError, OSError), match=r"^`\w+` must [^\n]+[.?]$"):
            method(**arguments)


@pytest.mark.parametrize("method", REFUSED)
def test_what_an_environment_refuses_changes_nothing(method):
    env, twin = twins(small_env)
    before = digest(env.snapshot())
    assert_refused(getattr(env, method), REFUSED[method])
    assert digest(env.snapshot()) == before
    assert future(env) == future(twin)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("method", REFUSED_BY_VECTOR)
def test_what_a_vector_refuses_changes_nothing(method, mode):
    env, twin = twins(small_vec, num_envs=3, autoreset_mode=mode, horizon=20)
    before = digest(env.snapshot())
    assert_refused(getattr(env, method), REFUSED_BY_VECTOR[method])
    assert digest(env.snapshot()) == before
    assert future(env) == future(twin)


@pytest.mark.parametrize("form", FORMS)
def test_actions_that_are_refused_change_nothing(form):
    env, twin = twins(small_env, action_space=form)
    assert_refused(env.step, [{"action": action} for action in NOT_ACTIONS[form]])
    assert future(env) == future(twin)
    vec, other = twins(small_vec, action_space=form, num_envs=3)
    good = in_form(vec, np.zeros(3, dtype=np.int64)).tolist()
    assert_refused(vec.step, [{"actions": action} for action in [*NOT_ACTIONS[form], good[:2]]])
    among_good = [action for action in NOT_ACTIONS[form] if action is not True]  # which NumPy makes a 1 beside integers
    assert_refused(vec.step, [{"actions": [*good[:2], action]} for action in among_good])
    assert future(vec) == future(other)


@pytest.mark.parametrize("make", [small_env, small_vec])
def test_episodes_of_another_problem_are_refused_and_change_nothing(make):
    env, twin = twins(make)
    for settings in ({"horizon": 12}, {"param_price": 0.5}, {"dtype": "float64"}):
        other = make(MIX, **settings)
        other.reset(seed=0)
        assert_refused(env.restore, [{"saved": other.snapshot()}])
    assert future(env) == future(twin)


@pytest.mark.parametrize("make", [small_env, small_vec])
def test_a_first_reset_that_is_refused_leaves_the_next_one_alone(make):
    env, twin = make(MIX), make(MIX)
    assert_refused(env.reset, REFUSED["reset"])
    for one in (env, twin):
        one.reset(seed=4)
    assert future(env) == future(twin)


@pytest.mark.parametrize("make", [small_env, small_vec])
def test_a_closed_environment_refuses_everything_with_gymnasiums_own_error(make):
    env = make(MIX, render_mode="ansi")
    play_lively(env, num_steps=2)
    saved, is_vector = env.snapshot(), make is small_vec
    env.close(), env.close()
    calls = {"reset": (), "step": ([0] * 4 if is_vector else 0,), "snapshot": (), "restore": (saved,), "render": ()}
    calls |= {"network": (0,) if is_vector else (), **({"copy_rows": ([0], [1])} if is_vector else {})}
    for method, arguments in calls.items():
        with pytest.raises(ClosedEnvironmentError, match=r"^The environment is closed\. Make a new one\.$"):
            getattr(env, method)(*arguments)
