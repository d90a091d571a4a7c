"""Files that are whole or not there: written beside their place, brought to the disk, and only then renamed."""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def check_new(path: Path) -> None:
    """Raise a ``FileExistsError`` if the file exists."""
    if path.exists():
        raise FileExistsError(f"`path` must be new, got {path}, which exists. Name another one.")


def write_file(path: Path, content: bytes, overwrite: bool = False) -> None:
    """Write a file as a whole; what was there before stays until all of the new content is on the disk.

    Args:
        path: File to write; its folder is made.
        content: All of it.
        overwrite: Whether to replace a file that exists.

    Raises:
        FileExistsError: If the file exists and may not be replaced.
        OSError: If it cannot be written; then nothing has changed.
    """
    if not overwrite:
        check_new(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # not named where a disk is full
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_document(path: Path, document: Mapping[str, Any], overwrite: bool = False, indent: int = 2) -> None:
    """Write a JSON object as a whole, see `write_file`.

    Args:
        path: File to write.
        document: Plain JSON values.
        overwrite: Whether to replace a file that exists.
        indent: Columns of each level.

    Raises:
        ValueError: If a value is not one that JSON has; then nothing has changed.
    """
    write_file(path, (to_json(path.name, document, indent) + "\n").encode(), overwrite)


def to_json(name: str, document: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON text of a document; a ``ValueError`` names it where a value is not one that JSON has."""
    try:
        return json.dumps(document, indent=indent, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"`{name}` must hold plain JSON values: {error}.") from error


def read_document(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON object with these keys from a file; anything else is a ``ValueError`` of one sentence."""
    try:
        return from_json(str(path), path.read_text(encoding="utf-8"), *keys)
    except UnicodeDecodeError as error:
        raise ValueError(f"`{path}` must be a JSON file, got another one: {error}. Name or write it anew.") from error


def from_json(name: str, text: str, *keys: str) -> dict[str, Any]:
    """JSON object with these keys from a text; anything else is a ``ValueError`` of one sentence."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"`{name}` must be a JSON file, got another one: {error}. Name or write it anew.") from error
    if not isinstance(found, dict):
        raise ValueError(f"`{name}` must hold a JSON object, got {reprlib.repr(found)}. Name or write it anew.")
    missing = [key for key in keys if key not in found]
    if missing:
        got = ", ".join(found) or "nothing"
        raise ValueError(f"`{name}` must have the key {missing[0]!r}, got {got}. Name or write it anew.")
    return found
