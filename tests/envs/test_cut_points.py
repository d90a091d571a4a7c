"""Episodes that are cut at random steps: another process goes on from the file exactly as if nothing had happened.

One play is never interrupted, and saved on its way. From each of its files another process takes the same actions, and
must see the same, into the next episode where this one ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.envs.test_fuzz import EMBEDDED, ENGINES
from tests.episodes import digest, lively_actions, run_python, small_vec

FUTURE = 8  # steps; an episode has 10
ROWS = 3


def made(env_id: str, engine: str, num_workers: int) -> Any:
    return small_vec(env_id, ROWS, engine=engine, num_workers=num_workers)


def played(env: Any, num_steps: int, cuts: Iterable[int], folder: Path) -> tuple[list[list[int]], list[str]]:
    """Actions and what each step showed, of a play that is saved before some of its steps."""
    rng, actions, seen = np.random.default_rng(num_steps), [], []
    env.reset(seed=num_steps)
    for step in range(num_steps):
        if step in cuts:
            env.save(folder / f"{step}.safetensors")
        actions.append(lively_actions(rng, env).tolist())
        seen.append(digest(env.step(actions[-1])))
    return actions, seen


def gone_on(env: Any, folder: Path) -> list[list[str]]:
    """What is seen after each cut, if the same actions are taken."""
    actions, seen = json.loads((folder / "actions.json").read_text(encoding="utf-8")), []
    for path in sorted(folder.glob("*.safetensors")):
        env.load(path)
        first = int(path.stem)
        seen.append([digest(env.step(action)) for action in actions[first : first + FUTURE]])
    return seen


def gone_on_elsewhere(env_id: str, engine: str, num_workers: int, folder: Path) -> list[list[str]]:
    """The same in another process, where the rows are spread over other ones."""
    code = f"""
import json, torch
from pathlib import Path
from tests.envs.test_cut_points import gone_on, made
torch.set_num_threads({torch.get_num_threads()})
if __name__ == "__main__":
    env = made({env_id!r}, {engine!r}, {num_workers})
    print(json.dumps(gone_on(env, Path({str(folder)!r}))))
    env.close()
"""
    return json.loads(run_python(code))


def check_cuts(env_id: str, engine: str, num_cuts: int, folder: Path) -> None:
    """Wide layers round as the number of rows says, so that only the fused engine may change the number of workers."""
    num_steps = 4 * num_cuts
    cuts = np.random.default_rng(0).choice(num_steps, num_cuts, replace=False).tolist()
    actions, seen = played(made(env_id, engine, 1), num_steps + FUTURE, cuts, folder)
    (folder / "actions.json").write_text(json.dumps(actions), encoding="utf-8")
    found = gone_on_elsewhere(env_id, engine, 2 if engine == "fused" else 1, folder)
    places = [int(path.stem) for path in sorted(folder.glob("*.safetensors"))]
    assert sorted(places) == sorted(cuts)
    assert found == [seen[place : place + FUTURE] for place in places]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_play_that_was_cut_goes_on_bit_for_bit(engine, tmp_path):
    check_cuts("Kasmina/Spirals-v0", engine, 4, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("env_id", EMBEDDED)
def test_three_hundred_cuts_leave_no_trace(env_id, engine, tmp_path):
    check_cuts(env_id, engine, 300 // len(EMBEDDED) // len(ENGINES), tmp_path)
