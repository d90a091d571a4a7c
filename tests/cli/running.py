"""Running a command in this process, and what it says."""

from __future__ import annotations

import pytest

from kasmina_env.cli.main import run


def said(capsys, *words: object) -> str:
    """What a command that succeeds prints as its result, in one line."""
    capsys.readouterr()
    run([str(word) for word in words])
    return " ".join(capsys.readouterr().out.split())


def complaint(capsys, *words: object) -> str:
    """What a command that is refused prints about it, in one line; it prints nothing else."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run([str(word) for word in words])
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert not err.startswith("error: ") or err.count("\n") == 1
    return " ".join(err.split())
