"""Where commands write, checked before the work is done, so that nothing is lost or overwritten; and what they are."""

from __future__ import annotations

import os
from pathlib import Path


def check_new_folder(out: Path, otherwise: str = "") -> None:
    """Raise one clear sentence where a folder holds anything already.

    Args:
        out: Folder that is going to be written to, there or not.
        otherwise: What one may do instead of naming another one, as the end of a sentence.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"`out` must be a new or empty folder, got {out}. Name another one{otherwise}.")
    _check_can_be_made(out)


def check_new_file(out: Path, overwrite: bool) -> None:
    """Raise one clear sentence where a file cannot be written, or would be lost.

    Args:
        out: File that is going to be written.
        overwrite: Whether it may be there.
    """
    if out.is_dir():
        raise FileExistsError(f"`out` must be a file, got the folder {out}. Name a file in it.")
    if out.exists() and not overwrite:
        raise FileExistsError(f"`out` must be a new file, got {out}. Name another one with --out, or pass --overwrite.")
    _check_can_be_made(out)


def _check_can_be_made(out: Path) -> None:
    """Raise where nothing can be written: the nearest folder above that is there must be one, and writable."""
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise PermissionError(f"`out` must be in a folder that can be written to, got {out}. Name another one.")
