"""Arguments that several commands share, as tyro reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

ValueT = TypeVar("ValueT")
DEFAULT_ID = "Kasmina/Digits-v0"


def argument(metavar: str, default: str | None = None, *aliases: str) -> Any:
    """Appearance of an argument.

    Args:
        metavar: Name of its value.
        default: Words for what is taken without it; left out: the Python default.
        *aliases: Other names of the option.
    """
    hint = None if default is None else f"(default: {default})"
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint, aliases=aliases or None)


def whole_number(word: str) -> int:
    """Convert a word, or say what it must be."""
    try:
        return int(word)
    except ValueError as error:
        raise ValueError(f"must be a whole number, got {word!r}.") from error


def one(make: Callable[[str], ValueT]) -> tyro.constructors.PrimitiveConstructorSpec[ValueT]:
    """How one word becomes a value. The default may be None, which tyro would otherwise offer to type."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="VALUE",
        instance_from_str=lambda words: make(words[0]),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    )


TEXT, PATH, WHOLE = one(str), one(Path), one(whole_number)
Id = Annotated[str, tyro.conf.Positional, argument("ID")]
DefaultId = Annotated[str, tyro.conf.Positional, argument("[ID]")]
Cluster = Annotated[str | None, TEXT, argument("auto|ADDRESS", "this machine alone, without Ray")]
NumWorkers = Annotated[int | None, WHOLE, argument("N", "one for each core or GPU of --cluster, else 1")]
OutFolder = Annotated[Path, argument("DIR", None, "-o")]
Count = Annotated[int, WHOLE, argument("N")]
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
