"""Checks of arguments, made before any work is done, so that nothing is lost, overwritten or announced in vain."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

MOST_EPISODES = 100_000  # seeds of one split do not run into those of another


def check_at_least(name: str, value: float, least: int, way_out: str) -> None:
    """Raise one clear sentence if a number is too small.

    Args:
        name: Argument as it is called in Python.
        value: Value given.
        least: Smallest value that makes sense.
        way_out: Advice, as a sentence.
    """
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}, got {value}. {way_out}")


def check_at_most(name: str, value: float, most: float, way_out: str) -> None:
    """Raise one clear sentence if a number is too large; see `check_at_least`."""
    if value > most:
        raise ValueError(f"`{name}` must be at most {most}, got {value}. {way_out}")


def check_installed(module: str) -> None:
    """Raise as an import would if a module that is needed later is not installed."""
    if find_spec(module) is None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def check_new_folder(out: Path, otherwise: str = "") -> None:
    """Raise one clear sentence if a folder holds anything already, or cannot be made.

    Args:
        out: Folder to write to.
        otherwise: Alternative to naming another one, as the end of a sentence.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"`out` must be a new or empty folder, got {out}. Name another one{otherwise}.")
    _check_writable("out", out, out)


def check_new_file(
    out: Path, overwrite: bool = False, otherwise: str = ", or pass --overwrite", name: str = "out"
) -> None:
    """Raise one clear sentence if a file cannot be written, or would be lost.

    Args:
        out: File to write.
        overwrite: Whether it may be there.
        otherwise: Alternative to naming another one, as the end of a sentence.
        name: Argument as it is called in Python.
    """
    if out.is_dir():
        raise FileExistsError(f"`{name}` must be a file, got the folder {out}. Name a file in it.")
    if out.exists() and not overwrite:
        raise FileExistsError(f"`{name}` must be a new file, got {out}. Name another one with --{name}{otherwise}.")
    _check_writable(name, out, out.parent)


def _check_writable(name: str, out: Path, folder: Path) -> None:
    """Raise if a folder cannot be written to, or cannot be made; permissions alone do not tell."""
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise PermissionError(
            f"`{name}` must be in a folder that can be written to, got {out}. Name another one."
        ) from error
