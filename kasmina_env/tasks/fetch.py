"""Fetching data files: verified, atomic, and resumed where an earlier fetch was interrupted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from kasmina_env.tasks.files import DataFile, Dataset, find, find_file, folders, read

CHUNK = 1 << 18  # bytes
TIMEOUT = 30.0  # seconds without a byte

OnProgress = Callable[[DataFile, int], None]  # called with a file and the number of its bytes that are here


def fetch(dataset: Dataset, on_progress: OnProgress | None = None) -> dict[str, Path]:
    """Fetch the files that are missing or not whole, and verify them.

    A file appears under its name only when it is whole. An interrupted call leaves its bytes under a name that ends in
    `.part`; the next call goes on from there.

    Args:
        dataset: Files to fetch.
        on_progress: Called after every chunk.

    Returns:
        Paths of all files, by published name.

    Raises:
        ConnectionError: If none of the URLs gives a file; the message has every reason.
    """
    for file in dataset.files:
        if not _is_whole(dataset, file):
            _fetch_file(dataset, file, on_progress or (lambda file, size: None))
    return find(dataset)


def _is_whole(dataset: Dataset, file: DataFile) -> bool:
    path = find_file(dataset, file)
    try:
        return path is not None and bool(read(dataset, file, path))
    except ValueError:
        return False


def _fetch_file(dataset: Dataset, file: DataFile, on_progress: OnProgress) -> None:
    folder, reasons = folders(dataset)[0], []
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{file.name}.part"
    for url in dataset.urls:
        try:
            _complete(part, url + file.name, file, on_progress)
        except (OSError, HTTPException) as error:  # no connection, no such file, no space, other contents
            reasons.append(f"{url + file.name}: {error}")
        else:
            part.replace(folder / file.name)
            return
    raise ConnectionError(
        f"`{dataset.name}` must be fetched whole, got {'; '.join(reasons)}. "
        f"Try again, or put {file.name} into {folder}."
    )


def _complete(part: Path, url: str, file: DataFile, on_progress: OnProgress) -> None:
    """Fetch the missing rest of a file and verify all of it; a file with another checksum is deleted."""
    start = _size(part)
    if start < file.size:
        _append(part, url, file, on_progress)
    if _size(part) < file.size:
        raise ConnectionError(f"ended after {_size(part)} of {file.size} bytes")
    with part.open("rb") as contents:
        found = hashlib.file_digest(contents, "sha256").hexdigest()
    if found == file.sha256:
        return
    part.unlink()
    if not start:
        raise ConnectionError(f"data of SHA-256 {found}, not {file.sha256}")
    _complete(part, url, file, on_progress)  # the bytes left by an earlier call may have been wrong


def _append(part: Path, url: str, file: DataFile, on_progress: OnProgress) -> None:
    start = _size(part)
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urlopen(request, timeout=TIMEOUT) as response:
        goes_on = response.status == HTTPStatus.PARTIAL_CONTENT
        with part.open("ab" if goes_on else "wb") as contents:
            while contents.tell() <= file.size and (chunk := response.read(CHUNK)):
                contents.write(chunk)
                on_progress(file, contents.tell())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
