"""Files that are whole or not there: a payload, and beside it a JSON document that describes it and has its checksum.

Both are written to temporary files, brought to the disk, and only then renamed; nothing is ever pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def document_path(path: Path) -> Path:
    """The JSON document beside a payload."""
    return path.with_suffix(".json")


def check_new(path: Path) -> None:
    """Raise a ``FileExistsError`` if a payload or its document exists."""
    for file in (path, document_path(path)):
        if file.exists():
            raise FileExistsError(f"`path` must be new, got {file}, which exists. Name another one.")


def read_document(path: Path, *keys: str) -> dict[str, Any]:
    """A JSON object with these keys from a file; anything else raises one clear sentence."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of the encoding as well
        raise ValueError(f"`{path}` must be a JSON file, got another one: {error}. Name or write it anew.") from error
    if not isinstance(found, dict):
        raise ValueError(f"`{path}` must hold a JSON object, got {reprlib.repr(found)}. Name or write it anew.")
    _check_keys(path, found, keys)
    return found


def _check_keys(path: Path, document: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    missing = [key for key in keys if key not in document]
    if missing:
        got = ", ".join(document) or "nothing"
        raise ValueError(f"`{path}` must have the key {missing[0]!r}, got {got}. Name or write it anew.")


def save_pair(path: Path, payload: bytes, document: Mapping[str, Any], overwrite: bool = False) -> None:
    """Write a payload and the document that describes it.

    Args:
        path: Of the payload; the document has the same name and ends in .json.
        payload: Content of the file.
        document: Plain JSON values. The checksums of payload and document are added under "sha256".
        overwrite: Replace files that exist.

    Raises:
        FileExistsError: If one of the two files exists; neither is touched.
    """
    beside = document_path(path)
    if not overwrite:
        check_new(path)
    plain = json.loads(json.dumps(document, allow_nan=False))
    checksums = {"payload": _sha256(payload), "document": _checksum(plain)}
    text = json.dumps({**plain, "sha256": checksums}, indent=2) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _staged(path, payload) as new_payload, _staged(beside, text.encode()) as new_document:
        new_payload.replace(path)  # what a crash leaves between these two lines, the checksum finds
        new_document.replace(beside)
    _sync(path.parent)


def load_pair(path: Path, kind: str, schema: int, keys: tuple[str, ...]) -> tuple[bytes, dict[str, Any]]:
    """Read what `save_pair` wrote.

    Args:
        path: Of the payload.
        kind: What the document's "kind" must be.
        schema: What its "schema" must be.
        keys: What else it must have.

    Raises:
        FileNotFoundError: If one of the two files is missing.
        ValueError: If one of them is damaged, or the document is of another kind or schema.
    """
    beside = document_path(path)
    for file in (path, beside):
        if not file.is_file():
            raise FileNotFoundError(
                f"`path` must have {file.name} in {file.parent}, got none. Keep both files together."
            )
    document = read_document(beside)
    for key, wanted in (("kind", kind), ("schema", schema)):
        if document.get(key) != wanted:
            raise ValueError(
                f"`{beside}` must have {wanted!r} as {key}, got {document.get(key)!r}. Save it with this version."
            )
    _check_keys(beside, document, (*keys, "sha256"))
    checksums, payload = document.pop("sha256"), path.read_bytes()
    found = {"payload": _sha256(payload), "document": _checksum(document)}
    for file, part in ((beside, "document"), (path, "payload")):
        if not isinstance(checksums, dict) or checksums.get(part) != found[part]:
            raise ValueError(
                f"`{file}` must be as it was written, got other content than {beside.name} has the checksum of: it is "
                "cut short, damaged, changed or of another network. Save it again."
            )
    return payload, document


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _checksum(document: Mapping[str, Any]) -> str:
    """Of the values, whatever the layout."""
    return _sha256(json.dumps(document, sort_keys=True).encode())


@contextmanager
def _staged(path: Path, content: bytes) -> Iterator[Path]:
    """A temporary file beside `path`, on the disk; gone afterwards, if it was not renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
