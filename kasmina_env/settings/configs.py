"""Data that comes with the package: in configs/ of a source tree, inside the package in a wheel."""

from __future__ import annotations

from pathlib import Path

CONFIGS = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")
FOUND = Path("configs")  # where `kasmina search` and `kasmina calibrate` write: in the folder a user works in


def config_path(name: str, remedy: str, with_found: bool = False) -> Path:
    """A file of the configs folder.

    Args:
        name: Of the file.
        remedy: What to do if there is none, as a sentence.
        with_found: Look at what was found by commands in this folder first. What defines a problem never comes from
            there: a registered id is the same everywhere.
    """
    for folder in (FOUND, *CONFIGS) if with_found else CONFIGS:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"There is no configs/{name}. {remedy}")


def slug(preset: str) -> str:
    """Name of an id in file names: digits-v0 for Kasmina/Digits-v0."""
    return preset.rpartition("/")[2].lower()
