"""Data files: where they are looked for, and whether they are whole.

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
        name: Under its URL and on disk.
        size: In bytes.
        sha256: Of the file.
        plain_sha256: Of what a gzip file holds. Such a file may be compressed anew or lie there unpacked, without its
            `.gz`: what it holds decides. Empty for a file that is used as it is.
    """

    name: str
    size: int
    sha256: str
    plain_sha256: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names under which it may lie on disk."""
        return (self.name, self.name.removesuffix(".gz")) if self.plain_sha256 else (self.name,)


@dataclass(frozen=True)
class Dataset:
    """Files that belong together.

    Attributes:
        name: Of the dataset, of the task that reads it, and of its folder.
        description: One line for people.
        urls: Places to fetch from, tried in this order; a file's name is appended.
        files: All of them.
        system_folders: Where an operating system puts them.
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

_ALL = (
    Dataset(
        "fashion_mnist",
        "70 000 grey 28x28 pictures of clothes in 10 classes (Xiao et al. 2017)",
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        (
            DataFile(
                "train-images-idx3-ubyte.gz",
                26_421_880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            ),
            DataFile(
                "train-labels-idx1-ubyte.gz",
                29_515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            DataFile(
                "t10k-images-idx3-ubyte.gz",
                4_422_102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            ),
            DataFile(
                "t10k-labels-idx1-ubyte.gz",
                5_148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        ),
        ("/usr/share/datasets/fashion-mnist",),  # Debian's package dataset-fashion-mnist
    ),
    Dataset(
        "cifar10",
        "60 000 colour 32x32 photographs in 10 classes (Krizhevsky 2009), the binary version",
        ("https://www.cs.toronto.edu/~kriz/",),
        (
            DataFile(
                "cifar-10-binary.tar.gz",
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
    ),
)

for _dataset in _ALL:
    DATASETS.register(_dataset.name, _dataset)


# ── on disk ──────────────────────────────────────────────────────────────────────────────────


def folders(dataset: Dataset) -> list[Path]:
    """Where its files are looked for, in this order; fetched files go into the first."""
    roots = [Path(root).expanduser() for root in (os.environ.get(ROOT_VARIABLE),) if root]
    # One place on every platform, as torch.hub and huggingface_hub have it.
    roots.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kasmina")
    return [*(root / dataset.name for root in roots), *map(Path, dataset.system_folders)]


def find_file(dataset: Dataset, file: DataFile) -> Path | None:
    """The first place where a file lies, whole or not."""
    places = (folder / name for folder in folders(dataset) for name in file.names)
    return next((place for place in places if place.is_file()), None)


def find(dataset: Dataset) -> dict[str, Path]:
    """Where each file lies, by its published name.

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
    """What a file holds, unpacked if it is a gzip file of its own, and verified.

    Raises:
        ValueError: If it is not what was published.
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
    """What all files hold, verified, by published name; errors as of `find` and `read`."""
    paths = find(dataset)
    return {file.name: read(dataset, file, paths[file.name]) for file in dataset.files}


def _corrupt(dataset: Dataset, path: Path, rule: str, got: str) -> str:
    return f"`{path}` must {rule}, got {got}. Run `kasmina data fetch {dataset.name}`."


def _join(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))
