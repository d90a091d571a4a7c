"""Progress: a plain line a minute where nobody looks at a terminal."""

from __future__ import annotations

import pytest

from kasmina_env.cli.progress import Lines, duration, step_counter


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log():
    """Lines that were written, a clock, and progress that uses them."""
    lines, clock = [], Clock()
    return lines, clock, Lines("training", 60_000, clock=clock, write=lines.append)


def test_a_line_a_minute_says_steps_speed_time_left_and_score(log):
    lines, clock, progress = log
    progress.advance(0)
    clock.now += 90
    progress.advance(9000, "score 0.512")
    assert lines == ["training: 9000 of 60000 steps, 100 steps/s, 8 min left, score 0.512"]


def test_between_two_minutes_nothing_is_written(log):
    lines, clock, progress = log
    for second in range(0, 181, 10):
        clock.now = 1000.0 + second
        progress.advance(second)
    assert [line.split()[1] for line in lines] == ["60", "120", "180"]


def test_the_speed_of_a_resumed_run_counts_from_where_it_was(log):
    lines, clock, progress = log
    progress.advance(50_000)
    clock.now += 100
    progress.advance(51_000)
    assert lines == ["training: 51000 of 60000 steps, 10 steps/s, 15 min left"]


def test_the_last_line_says_how_long_it_took(log):
    lines, clock, progress = log
    progress.advance(60_000, "score 0.6")
    clock.now += 7 * 3600
    progress.finish()
    assert lines == ["training: 60000 of 60000 steps, 7 h 0 min in all, score 0.6"]


def test_nothing_is_said_of_what_never_began(log):
    lines, _, progress = log
    progress.finish()
    assert lines == []


@pytest.mark.parametrize(
    "seconds, words", [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (6000, "1 h 40 min")]
)
def test_durations_are_in_the_unit_people_would_use(seconds, words):
    assert duration(seconds) == words


def test_a_counter_adds_up_and_writes_to_stderr(capsys):
    with step_counter("playing", 10) as on_step:
        on_step(3)
        on_step(4)
    assert capsys.readouterr() == ("", "playing: 7 of 10 steps, 0 s in all\n")
