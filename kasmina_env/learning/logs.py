"""Logs of a training run that go on after an interruption: a table in CSV, and TensorBoard's events."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat, filter_excluded_keys
from torch.utils.tensorboard import SummaryWriter

from kasmina_env.settings.documents import write_file

LOGS, TABLE = "logs", "progress.csv"  # folder and file in the folder of a run
LEFT_OUT = ("time/iterations",)  # is counted anew by every process


class ProgressTable(KVWriter):
    """Rows of a CSV file with sorted columns, each on the disk of the process before the next one is computed.

    Args:
        path: File to go on with, or to begin.
        num_rows: Rows of it to keep: those before the last checkpoint. What came after it is going to come again.
    """

    def __init__(self, path: Path, num_rows: int) -> None:
        self._path = path
        self._rows = _read_rows(path)[:num_rows] if path.is_file() else []
        self._columns = sorted({name for row in self._rows for name in row})
        self._write_all()
        self._file = path.open("a", encoding="utf-8", newline="")

    def __len__(self) -> int:
        return len(self._rows)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Add a row."""
        known = filter_excluded_keys(key_values, key_excluded, "csv")
        row = {name: str(value) for name, value in known.items() if name not in LEFT_OUT}
        self._rows.append(row)
        if row.keys() <= set(self._columns):
            self._file.write(_text([row], self._columns))
            self._file.flush()
            return
        self._columns = sorted({*self._columns, *row})
        self._file.close()
        self._write_all()
        self._file = self._path.open("a", encoding="utf-8", newline="")

    def _write_all(self) -> None:
        head = dict(zip(self._columns, self._columns, strict=True))
        content = _text([head, *self._rows], self._columns).encode() if self._columns else b""
        if not self._path.is_file() or self._path.read_bytes() != content:
            write_file(self._path, content, overwrite=True)

    def close(self) -> None:
        """End the file."""
        self._file.close()


class Events(TensorBoardOutputFormat):
    """TensorBoard's events; those of later steps, written before an interruption, are hidden there.

    Args:
        folder: Folder of the events.
        num_steps: Environment steps of the checkpoint to go on from.
    """

    writer: SummaryWriter | None  # type: ignore[assignment]  # there is no file before the first event

    def __init__(self, folder: Path, num_steps: int) -> None:
        self._folder, self._num_steps = folder, num_steps
        self.writer, self._is_closed = None, False

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Add events."""
        if self.writer is None:
            self.writer = SummaryWriter(str(self._folder), purge_step=self._num_steps + 1 if self._num_steps else None)
        super().write(key_values, key_excluded, step)


def open_logs(run: Path, num_rows: int, num_steps: int) -> tuple[Logger, ProgressTable]:
    """Logger of a run in a folder, and its table.

    Args:
        run: Folder of the run.
        num_rows: Rows of the table to keep.
        num_steps: Environment steps that they are about.
    """
    table = ProgressTable(run / LOGS / TABLE, num_rows)
    return Logger(str(run / LOGS), [table, Events(run / LOGS, num_steps)]), table


def _text(rows: list[dict[str, str]], columns: list[str]) -> str:
    file = io.StringIO()
    csv.DictWriter(file, columns, restval="", lineterminator="\n").writerows(rows)
    return file.getvalue()


def _read_rows(path: Path) -> list[dict[str, str]]:
    """Whole rows of a file, each without the columns that are empty in it."""
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text[: text.rfind("\n") + 1].splitlines()
    width = len(next(csv.reader(lines[:1]), []))
    rows = [row for row in csv.DictReader(lines) if len([v for v in row.values() if v is not None]) == width]
    return [{name: value for name, value in row.items() if name and value} for row in rows]
