"""One generic registry, for blueprints, hosts, tasks, rewards and whatever a user adds.

It maps a name to a maker, or to a frozen dataclass that describes the thing. Each kind of thing has a decorator, such
as `register_host`, so that adding one takes one file and one line.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

InfoT = TypeVar("InfoT")


def unknown_name_message(kind: str, name: object, known: Iterable[str]) -> str:
    """One sentence with the names of `kind` that exist, and the nearest one."""
    names = list(known)
    if not names:
        return f"`{kind}` must be a registered name, got {name!r}. None is registered yet."
    return f"`{kind}` must be one of {', '.join(names)}, got {name!r}.{did_you_mean(name, names)}"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Question for the nearest of some names, behind a space; empty where none is near."""
    by_folded_name = {known_name.casefold(): known_name for known_name in known}
    nearest = difflib.get_close_matches(str(name).casefold(), by_folded_name, n=1)
    return f" Did you mean {by_folded_name[nearest[0]]!r}?" if nearest else ""


def import_members(package: str, folders: Iterable[str]) -> None:
    """Import every module of a package, so that a file that is put there registers itself.

    Args:
        package: `__name__` of the package.
        folders: `__path__` of the package.
    """
    for module in pkgutil.iter_modules(folders):
        importlib.import_module(f"{package}.{module.name}")


class UnknownNameError(KeyError):
    """Name that is not registered; the message lists those that are."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        # not the finished message: an exception is pickled as its class and these arguments
        super().__init__(kind, name, tuple(known))

    def __str__(self) -> str:
        # KeyError would show its argument in quotes
        return unknown_name_message(*self.args)


class Registry(Generic[InfoT]):
    """Things of one kind by name, in the order in which they were registered. Iteration gives the names.

    Args:
        kind: Name of the argument that users pass the names to; error messages name it.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._infos: dict[str, InfoT] = {}

    def register(self, name: str, info: InfoT) -> None:
        """Add `info` under `name`.

        Raises:
            ValueError: If the name is taken, or no word. Nothing is ever replaced, so a name has one meaning in a
                program.
        """
        if not isinstance(name, str) or not name.strip():  # type: ignore[redundant-expr]
            raise ValueError(f"`{self.kind}` must have a name in words, got {name!r}. Choose one.")
        if name in self._infos:
            raise ValueError(f"`{self.kind}` must have a new name, got {name!r} a second time. Choose another name.")
        self._infos[name] = info

    def get(self, name: str) -> InfoT:
        """Info registered under `name`.

        Raises:
            UnknownNameError: If there is none.
        """
        if name not in self:
            raise UnknownNameError(self.kind, name, self._infos)
        return self._infos[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._infos

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)
