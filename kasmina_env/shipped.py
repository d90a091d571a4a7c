"""Data that comes with the package: in configs/ of a source tree, inside the package in a wheel."""

from __future__ import annotations

from pathlib import Path

CONFIGS = (Path(__file__).parent / "configs", Path(__file__).parents[1] / "configs")


def config_path(name: str, remedy: str) -> Path:
    """A file of the configs folder.

    Args:
        name: Of the file.
        remedy: What to do if there is none, as a sentence.
    """
    for folder in CONFIGS:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"`name` must be a file in configs/, got {name!r}. {remedy}")


def slug(preset: str) -> str:
    """Name of an id in file names: digits-v0 for Kasmina/Digits-v0."""
    return preset.rpartition("/")[2].lower()
