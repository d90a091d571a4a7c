"""Prints the lowest versions that pyproject.toml admits, as constraints for pip; of torch that of constraints.txt."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

BOUND = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?>=([0-9][0-9a-z.]*)")
root = Path(__file__).parents[1]
project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
wanted = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
(torch,) = re.findall(r"(?m)^torch==.*$", (root / "constraints.txt").read_text(encoding="utf-8"))
for match in filter(None, map(BOUND.fullmatch, wanted)):
    print(torch if match[1] == "torch" else "{}=={}".format(*match.groups()))
