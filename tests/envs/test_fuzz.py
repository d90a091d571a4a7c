"""Random operations on environments, in any order: what is promised holds after each of them.

A twin is asked for the same, but for what must change nothing: calls that are refused, files, pictures and masks. Where
the environment goes through a file, the twin goes through memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from kasmina_env.lifecycle.state import Op
from tests.envs.test_refused import NOT_ACTIONS, REFUSED, REFUSED_BY_VECTOR
from tests.episodes import (
    FORMS,
    IDS,
    dead_row,
    digest,
    illegal_actions,
    in_form,
    lively_actions,
    mixed_actions,
    op_actions,
    small_env,
    small_vec,
)

EMBEDDED = [env_id for env_id in IDS if not any(name in env_id for name in ("Fashion", "CIFAR"))]
ENGINES = ["torch", *(["fused"] if find_spec("numba") else [])]
ROWS = 3
SENTENCE = r"^`[^`]+` must [^\n]+[.?]$"
LATEST = 3  # snapshots and files that are kept
NUM_CASES = 40  # of each id, 250 steps each
ONLY_IN_FAMILIES = {"split": "test", "instance": 0}  # is refused there alone


@dataclass
class Ledger:
    """First score of each row's episode, and the changes of it that were paid since."""

    first: np.ndarray = field(default_factory=lambda: np.zeros(ROWS))  # [N]
    paid: np.ndarray = field(default_factory=lambda: np.zeros(ROWS))  # [N]

    def begin(self, rows: Any, score: np.ndarray) -> None:
        self.first[rows], self.paid[rows] = score[rows], 0.0

    def take(self, rows: Any) -> Ledger:
        return Ledger(self.first[rows].copy(), self.paid[rows].copy())

    def put(self, rows: Any, other: Ledger) -> None:
        self.first[rows], self.paid[rows] = other.first, other.paid


@dataclass
class Play:
    """An environment, its twin and what has been kept from them."""

    env: Any
    twin: Any
    rng: np.random.Generator
    folder: Path
    mode: AutoresetMode | None  # None: a single environment
    form: str  # of actions
    ledger: Ledger = field(default_factory=Ledger)
    kept: list[tuple[Any, Any, Ledger]] = field(default_factory=list)  # snapshots of the environment and of the twin
    files: dict[Path, tuple[Any, Ledger]] = field(default_factory=dict)  # with snapshots of the twin
    num_steps: int = 0  # all rows together

    @property
    def pair(self) -> tuple[Any, Any]:
        return self.env, self.twin

    @property
    def is_vector(self) -> bool:
        return self.mode is not None

    @property
    def num_rows(self) -> int:
        return ROWS if self.is_vector else 1

    @property
    def report(self) -> Any:
        return self.env.episodes.report

    def over(self) -> np.ndarray:
        """Rows that have ended, by themselves or at the time limit ``[N]``."""
        return self.env._is_done(self.report).copy() if self.is_vector else self.report.is_over.copy()

    def both(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of both, which answer alike."""
        answer, other = (getattr(one, method)(*args, **kwargs) for one in self.pair)
        assert digest(answer) == digest(other)
        return answer

    def some_rows(self) -> np.ndarray:
        """Different rows, at least one."""
        return self.rng.permutation(self.num_rows)[: self.rng.integers(1, self.num_rows + 1)]

    def named(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Rows as an argument; a single environment takes none."""
        return (rows,) if self.is_vector else ()


# ── steps and resets ────────────────────────────────────────────────────────────────────────────


def entry(value: Any, row: int) -> Any:
    """The value of a row; that of a single environment is a plain one."""
    return np.atleast_1d(value)[row]


def check_observation(play: Play, obs: np.ndarray) -> None:
    assert play.env.observation_space.contains(obs)
    assert np.isfinite(obs).all()


def step(play: Play, choose: Callable[[np.random.Generator, Any], np.ndarray]) -> None:
    """A step of all rows; those that are over, and that nobody else resets, begin anew before it."""
    over = play.over()
    if over.any() and play.mode is not AutoresetMode.NEXT_STEP:
        reset(play, np.flatnonzero(over))
        over[:] = False
    actions, mask = choose(play.rng, play.env), play.report.mask.copy()
    sent = in_form(play.env, actions)
    seen = play.both("step", sent if play.is_vector else sent[0])
    play.num_steps += play.num_rows
    check_observation(play, seen[0])
    for row in range(play.num_rows):
        if over[row]:
            assert entry(seen[1], row) == 0
        else:
            account(play, row, seen, is_legal=mask[row, actions[row]])
    ended = over if play.mode is AutoresetMode.NEXT_STEP else (seen[2] | seen[3])
    if over.any() or play.mode is AutoresetMode.SAME_STEP:
        play.ledger.begin(np.flatnonzero(ended), play.report.score)


def account(play: Play, row: int, seen: Any, is_legal: bool) -> None:
    """Check what a step shows of a row that took part in it, and enter it in the ledger."""
    _, reward, terminated, truncated, infos = seen
    is_done = entry(terminated, row) or entry(truncated, row)
    own = infos["final_info"] if is_done and play.mode is AutoresetMode.SAME_STEP else infos
    terms = {name: entry(own["reward_terms"][name], row) for name in play.env.problem.reward.terms}
    assert sum(terms.values()) == pytest.approx(entry(reward, row), abs=1e-12)
    assert entry(own["action_legal"], row) == is_legal
    play.ledger.paid[row] += terms["score_change"]
    if entry(terminated, row):
        owed = entry(own["committed_score"], row) - play.ledger.first[row]
        assert play.ledger.paid[row] == pytest.approx(owed, abs=1e-9)


def reset(play: Play, rows: np.ndarray) -> None:
    """Fresh episodes in some rows; those that begin all follow from a seed."""
    options: dict[str, Any] = {}
    if play.env.problem.is_family and play.rng.random() < 0.5:
        options["split"] = str(play.rng.choice(["train", "test"]))
    if play.rng.random() < 0.3:
        options["planted"] = play.rng.choice(op_actions(play.env, Op.GERMINATE), size=2).tolist()
    if play.is_vector:
        options["reset_mask"] = np.isin(np.arange(play.num_rows), rows)
    seed = int(play.rng.integers(1000)) if play.rng.random() < 0.5 else None
    if not play.env.episodes.is_reset:
        seed = 0
    with others_untouched(play, rows):
        obs, _ = play.both("reset", seed=seed, options=options)
    check_observation(play, obs)
    play.ledger.begin(rows, play.report.score)


@contextmanager
def others_untouched(play: Play, rows: np.ndarray) -> Iterator[None]:
    """Rows but these are the same before and after."""
    rest = np.setdiff1d(np.arange(play.num_rows), rows)
    before = digest(play.env.snapshot(rest)) if len(rest) else ""
    yield
    assert (digest(play.env.snapshot(rest)) if len(rest) else "") == before


# ── episodes as values ──────────────────────────────────────────────────────────────────────────


def keep(play: Play) -> None:
    rows = play.some_rows()
    play.kept = [*play.kept, (*(one.snapshot(*play.named(rows)) for one in play.pair), play.ledger.take(rows))][
        -LATEST:
    ]


def restore(play: Play) -> None:
    if not play.kept:
        return keep(play)
    *saved, ledger = play.kept[play.rng.integers(len(play.kept))]
    rows = play.rng.permutation(play.num_rows)[: len(saved[0])]
    with others_untouched(play, rows):
        for one, its in zip(play.pair, saved, strict=True):
            one.restore(its, *play.named(rows))
    play.ledger.put(rows, ledger)
    return None


def save(play: Play) -> None:
    path = play.folder / f"{play.rng.integers(LATEST)}.safetensors"
    play.env.save(path, overwrite=True)
    play.files[path] = (play.twin.snapshot(), play.ledger.take(slice(None)))


def load(play: Play) -> None:
    if not play.files:
        return save(play)
    path = list(play.files)[play.rng.integers(len(play.files))]
    saved, ledger = play.files[path]
    play.env.load(path)
    play.twin.restore(saved)
    play.ledger.put(slice(None), ledger)
    return None


def copy(play: Play) -> None:
    target = play.some_rows()
    source = play.rng.integers(play.num_rows, size=len(target))
    seeds = play.rng.integers(2**40, size=len(target)).tolist() if play.rng.random() < 0.5 else None
    with others_untouched(play, target):
        play.both("copy_rows", source, target, rng_seeds=seeds)
    play.ledger.put(target, play.ledger.take(source))


def poison(play: Play) -> None:
    """NaN in the host of one row."""
    row = int(play.rng.integers(play.num_rows))
    dead_row(play.env, row), dead_row(play.twin, row)


# ── what changes nothing ────────────────────────────────────────────────────────────────────────


def look(play: Play) -> None:
    panels = play.env.render()
    assert len(panels) == play.num_rows if play.is_vector else panels.strip()
    row = (int(play.rng.integers(play.num_rows)),) if play.is_vector else ()
    assert play.env.network(*row).state_dict()
    assert play.env.action_masks().any()


def ask_in_vain(play: Play) -> None:
    """A call that is refused."""
    table = REFUSED_BY_VECTOR if play.is_vector else REFUSED
    method = str(play.rng.choice(list(table)))
    arguments = table[method][play.rng.integers(len(table[method]))]
    is_allowed_here = arguments.get("options") == ONLY_IN_FAMILIES and not play.env.problem.is_family
    if not is_allowed_here:
        refused(getattr(play.env, method), **arguments)


def step_in_vain(play: Play) -> None:
    if play.over().any() and play.mode is not AutoresetMode.NEXT_STEP:
        return
    bad = NOT_ACTIONS[play.form]
    refused(play.env.step, bad[play.rng.integers(len(bad))])


def load_in_vain(play: Play) -> None:
    """A file that was cut short or changed."""
    if not play.files:
        return save(play)
    content = next(iter(play.files)).read_bytes()
    place, path = int(play.rng.integers(len(content))), play.folder / "broken.safetensors"
    changed = bytes([content[place] ^ 4]) + content[place + 1 :]
    path.write_bytes(content[:place] + (changed if play.rng.random() < 0.5 else b""))
    refused(play.env.load, path)
    return None


def refused(method: Callable[..., Any], *args: Any, **arguments: Any) -> None:
    with pytest.raises((ValueError, OSError), match=SENTENCE):
        method(*args, **arguments)


OPERATIONS: dict[Callable[[Play], None], float] = {  # with their weights
    partial(step, choose=lively_actions): 10,
    partial(step, choose=mixed_actions): 4,
    partial(step, choose=illegal_actions): 2,
    lambda play: reset(play, play.some_rows()): 1,
    **dict.fromkeys((keep, restore, save, load, look), 1),
    **dict.fromkeys((ask_in_vain, step_in_vain, load_in_vain), 1),
    poison: 0.3,
    copy: 1,
}
OF_VECTORS = (copy,)


def fuzz(play: Play, num_steps: int) -> None:
    """Operations until so many steps have been taken."""
    names = [one for one in OPERATIONS if play.is_vector or one not in OF_VECTORS]
    weights = np.array([OPERATIONS[one] for one in names])
    reset(play, np.arange(play.num_rows))
    while play.num_steps < num_steps:
        operation = names[play.rng.choice(len(names), p=weights / weights.sum())]
        operation(play)
        assert digest(play.report) == digest(play.twin.episodes.report)
    assert digest(play.env.snapshot()) == digest(play.twin.snapshot())


def start(env_id: str, number: int, engine: str, folder: Path) -> Play:
    """Every fourth case is about the single environment; the others go through the ways of vectors to reset rows."""
    mode, form = [None, *AutoresetMode][number % 4], FORMS[number // 4 % 2]
    settings: dict[str, Any] = {"engine": engine, "action_space": form, "render_mode": "ansi"}
    if mode is None:
        pair = small_env(env_id, **settings), small_env(env_id, **settings)
    else:
        settings |= {"autoreset_mode": mode, "max_episode_steps": 7 if number % 3 == 2 else None}
        pair = small_vec(env_id, ROWS, **settings), small_vec(env_id, ROWS, **settings)
    return Play(*pair, np.random.default_rng(number), folder, mode, form)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("env_id", EMBEDDED)
def test_what_is_promised_holds_after_any_operation(env_id, engine, tmp_path):
    number = EMBEDDED.index(env_id) + 2 * ENGINES.index(engine)  # so that all kinds have a turn
    fuzz(start(env_id, number, engine, tmp_path), num_steps=45)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(100, 100 + NUM_CASES))
@pytest.mark.parametrize("env_id", EMBEDDED)
def test_ten_thousand_steps_break_no_promise(env_id, number, tmp_path):
    fuzz(start(env_id, number, ENGINES[number // 8 % len(ENGINES)], tmp_path), num_steps=10_000 // NUM_CASES)
