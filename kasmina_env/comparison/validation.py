"""Validating the results of a comparison: episodes of every arm are played again from their logs."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kasmina_env.comparison.episode_log import (
    EXACT,
    EpisodeLog,
    first_difference,
    load_log,
    replay,
    save_log,
    why_inexact,
)
from kasmina_env.settings.config import check_nested
from kasmina_env.settings.documents import read_document

NUM_SAMPLES = 2  # episodes of each run whose logs are kept
FOLDER = "samples"


@dataclass(frozen=True)
class Sample:
    """Place of a log within the results.

    Attributes:
        arm: Name of the arm.
        run: Number of the run among those of the arm.
        file: Path of the log from the folder of the results.
    """

    arm: str
    run: int
    file: str


@dataclass(frozen=True)
class Verdict:
    """Result of one replay.

    Attributes:
        sample: Episode that was played again.
        seed: Its seed.
        difference: Sentence about the first difference; empty if there is none.
        reason: Reason why the replay need not be exact; empty if it must be.
    """

    sample: Sample
    seed: int
    difference: str
    reason: str


def write_samples(out: Path, logs: Mapping[str, Sequence[Sequence[EpisodeLog]]]) -> list[dict[str, Any]]:
    """Write the logs of each run of each arm, and return where they are, as `validate` reads it."""
    samples = []
    for number, (arm, runs) in enumerate(logs.items()):
        for run, found in enumerate(runs):
            for log in found:
                name = re.sub(r"[^\w-]+", "_", arm, flags=re.ASCII)
                sample = Sample(arm, run, f"{FOLDER}/{number:02d}-{name}-{run}-{log.seed}.json")
                save_log(out / sample.file, log)
                samples.append(asdict(sample))
    return samples


def validate(results: Path) -> Iterator[Verdict]:
    """Play the samples of a comparison again, one by one.

    Args:
        results: Folder that `kasmina compare` wrote.

    Raises:
        FileNotFoundError: If a file of the results is missing.
        ValueError: If a file is no such file of this version, or an arm of the table has no sample.
    """
    summary = read_document(results / "comparison.json", "id", "rows", "samples")
    logs = {sample: load_log(results / sample.file) for sample in _samples_of(results, summary)}
    published = _published_scores(results / "episodes.csv")
    for sample, log in logs.items():
        if log.id != summary["id"]:
            raise ValueError(f"`{sample.file}` must be an episode of {summary['id']}, got one of {log.id}.")
        key = (sample.arm, str(sample.run), str(log.seed))
        if key not in published:
            raise ValueError(
                f"`{sample.file}` must be of an episode in episodes.csv, got seed {log.seed} of {key[0]!r}."
            )
    for sample, log in logs.items():
        score = published[sample.arm, str(sample.run), str(log.seed)]
        if not abs(score - log.scores[-1]) <= EXACT:
            difference = f"The score is {score:.6f} in episodes.csv, and {log.scores[-1]:.6f} in the log."
        else:
            difference = first_difference(log, replay(log))
        yield Verdict(sample, log.seed, difference, why_inexact(log))


def _samples_of(results: Path, summary: Mapping[str, Any]) -> list[Sample]:
    """The samples of a comparison, at least one of each arm."""
    path = results / "comparison.json"
    try:
        arms = {row["arm"] for row in summary["rows"]}
        for entry in summary["samples"]:
            check_nested("samples", Sample, entry)
        samples = [Sample(**entry) for entry in summary["samples"]]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"`{path}` must have rows and samples as `kasmina compare` writes them: {error}.") from error
    if missing := arms - {sample.arm for sample in samples}:
        raise ValueError(f"`{path}` must have a sample of each arm, got none of {', '.join(sorted(missing))}.")
    for sample in samples:
        if not (results / sample.file).resolve().is_relative_to(results.resolve()):
            raise ValueError(f"`{path}` must have samples within its folder, got {sample.file!r}.")
    return samples


def _published_scores(path: Path) -> dict[tuple[str, str, str], float]:
    """Committed scores by arm, run and seed."""
    with path.open(newline="", encoding="utf-8") as file:
        try:
            return {(row["arm"], row["run"], row["seeds"]): float(row["scores"]) for row in csv.DictReader(file)}
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise ValueError(f"`{path}` must be a table as `kasmina compare` writes it, got another one.") from error
