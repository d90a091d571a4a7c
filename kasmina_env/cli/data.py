"""Commands for the files of datasets: data list, data fetch, data verify."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import tyro

from kasmina_env.cli.arguments import TEXT, argument
from kasmina_env.cli.console import print_table, say
from kasmina_env.cli.progress import download_bars

if TYPE_CHECKING:
    from kasmina_env.tasks.files import Dataset

Name = Annotated[str, tyro.conf.Positional, argument("NAME")]


def list_datasets() -> None:
    """List the datasets and where their files are."""
    from kasmina_env.tasks import DATASETS

    rows = [(d.name, f"{d.size / 1e6:.0f} MB", _place(d), d.description) for d in map(DATASETS.get, DATASETS)]
    print_table("Datasets", ("name", "to fetch", "where", "what it is"), rows)


def fetch(name: Name) -> None:
    """Fetch the files of a dataset that are missing, and verify all of them.

    Args:
        name: Dataset to fetch.
    """
    from kasmina_env.tasks import DATASETS
    from kasmina_env.tasks.fetch import fetch as fetch_files

    dataset = DATASETS.get(name)
    with download_bars({file.name: file.size for file in dataset.files}) as advance:
        paths = fetch_files(dataset, lambda file, size: advance(file.name, size))
    for path in paths.values():
        say(f"{name}  {path}", passed=True)


def verify(name: Annotated[str | None, TEXT, tyro.conf.Positional, argument("[NAME]", "all")] = None) -> None:
    """Verify the checksums of one dataset, or of all whose files are here.

    Args:
        name: Dataset to verify.
    """
    from kasmina_env.tasks import DATASETS
    from kasmina_env.tasks.files import find, find_file, read_all

    datasets = [DATASETS.get(each) for each in ([name] if name else DATASETS)]
    here = [d for d in datasets if name or any(find_file(d, file) for file in d.files)]
    for dataset in datasets:
        if dataset not in here:
            say(f"{dataset.name}  {_place(dataset)}")
            continue
        read_all(dataset)
        for path in find(dataset).values():
            say(f"{dataset.name}  {path}", passed=True)
    if not here:
        raise FileNotFoundError("There are no files of any dataset to verify. Fetch some with `kasmina data fetch`.")


def _place(dataset: Dataset) -> str:
    """Folders of a dataset's files, or how to get them."""
    from kasmina_env.tasks.files import find

    try:
        return ", ".join(sorted({str(path.parent) for path in find(dataset).values()}))
    except FileNotFoundError:
        return f"not here: kasmina data fetch {dataset.name}"
