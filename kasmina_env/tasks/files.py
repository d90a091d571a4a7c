"""Data files: finding, reading and verifying them.

Nothing is ever fetched unasked: a missing file is an error that names the command which fetches it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kasmina_env.settings.registry import Registry

ROOT_VARIABLE = "KASMINA_DATA"


@dataclass(frozen=True)
class DataFile:
    """One file, as it is published.

    Attributes:
        name: File name, at its URL and on disk.
        size: Bytes.
        sha256: Checksum of the file.
        plain_sha256: Checksum of the content of a gzip file. Such a file may be compressed anew or lie there unpacked,
            without its `.gz`: only the content counts. Empty for a file that is used as it is.
    """

    name: str
    size: int
    sha256: str
    plain_sha256: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names under which the file may lie on disk."""
        return (self.name, self.name.removesuffix(".gz")) if self.plain_sha256 else (self.name,)


@dataclass(frozen=True)
class Dataset:
    """Files that belong together.

    Attributes:
        name: Name of the dataset, of the task that reads it, and of its folder.
        description: One line for people.
        urls: Places to fetch from, tried in this order; a file's name is appended.
        files: All its files.
        system_folders: Folders into which an operating system installs them.
    """

    name: str
    description: str
    urls: tuple[str, ...]
    files: tuple[DataFile, ...]
    system_folders: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes to fetch."""
        return sum(file.size for file in self.files)


DATASETS: Registry[Dataset] = Registry("dataset")


# ── on disk ──────────────────────────────────────────────────────────────────────────────────


def folders(dataset: Dataset) -> list[Path]:
    """Folders in which the files are looked for, in this order; fetched files go into the first."""
    roots = [Path(root).expanduser() for root in (os.environ.get(ROOT_VARIABLE),) if root]
    # One place on every platform, as torch.hub and huggingface_hub have it.
    roots.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kasmina")
    return [*(root / dataset.name for root in roots), *map(Path, dataset.system_folders)]


def find_file(dataset: Dataset, file: DataFile) -> Path | None:
    """First place where a file lies, whole or not; None if there is none."""
    places = (folder / name for folder in folders(dataset) for name in file.names)
    return next((place for place in places if place.is_file()), None)


def find(dataset: Dataset) -> dict[str, Path]:
    """Path of each file, by its published name.

    Raises:
        FileNotFoundError: If one is missing; the message names the command that fetches it.
    """
    found = {file.name: find_file(dataset, file) for file in dataset.files}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise FileNotFoundError(
            f"`{dataset.name}` must have its files on disk, got no {_join(missing)} in {_join(folders(dataset))}. "
            f"Run `kasmina data fetch {dataset.name}`."
        )
    return {name: path for name, path in found.items() if path is not None}


def read(dataset: Dataset, file: DataFile, path: Path) -> bytes:
    """Content of a file, unpacked if it is a gzip file of its own, and verified.

    Raises:
        ValueError: If the file is not as it was published.
    """
    contents = path.read_bytes()
    try:
        if file.plain_sha256 and path.suffix == ".gz":
            contents = gzip.decompress(contents)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(_corrupt(dataset, path, "be a whole gzip file", str(error))) from error
    wanted, got = file.plain_sha256 or file.sha256, hashlib.sha256(contents).hexdigest()
    if got != wanted:
        raise ValueError(_corrupt(dataset, path, f"hold data of SHA-256 {wanted}", got))
    return contents


def read_all(dataset: Dataset) -> dict[str, bytes]:
    """Contents of all files, verified, by published name; errors as for `find` and `read`."""
    paths = find(dataset)
    return {file.name: read(dataset, file, paths[file.name]) for file in dataset.files}


def _corrupt(dataset: Dataset, path: Path, rule: str, got: str) -> str:
    return f"`{path}` must {rule}, got {got}. Run `kasmina data fetch {dataset.name}`."


def _join(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))
