"""Paths of the configs that come with the package: in configs/ of a source tree, inside the package in a wheel."""

from __future__ import annotations

from pathlib import Path

CONFIGS = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")
FOUND = Path("configs")  # in the current folder: `kasmina search` and `kasmina calibrate` write there


def config_path(name: str, remedy: str, with_found: bool = False) -> Path:
    """Path of a file in configs/.

    Args:
        name: Name of the file.
        remedy: Sentence that ends the message if there is no such file.
        with_found: Whether to look in the current folder first. Files that define a problem never come from there: a
            registered id is the same everywhere.
    """
    for folder in (FOUND, *CONFIGS) if with_found else CONFIGS:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"There is no configs/{name}. {remedy}")


def slug(preset: str) -> str:
    """Name of an id in file names: digits-v0 for Kasmina/Digits-v0."""
    return preset.rpartition("/")[2].lower()
