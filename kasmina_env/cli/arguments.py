"""Arguments that several commands share, as tyro reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

DEFAULT_ID = "Kasmina/Digits-v0"


def argument(metavar: str, default: str | None = None, *aliases: str) -> Any:
    """How an argument is shown.

    Args:
        metavar: What its value is called.
        default: What is taken without it; left out: the Python default.
        *aliases: Other names of the option.
    """
    hint = None if default is None else f"(default: {default})"
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint, aliases=aliases or None)


Id = Annotated[str, tyro.conf.Positional, argument("ID")]
DefaultId = Annotated[str, tyro.conf.Positional, argument("[ID]")]
OutFolder = Annotated[Path, argument("DIR", None, "-o")]
Count = Annotated[int, argument("N")]
Imports = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(
        name="import",
        metavar="MODULE",
        help="Module or .py file to import first, so that what it registers is known; MODULE:ID as an ID does so too.",
    ),
]
Json = Annotated[bool, tyro.conf.arg(name="json", help="Print JSON in place of tables.", help_behavior_hint="")]
Flag = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]
