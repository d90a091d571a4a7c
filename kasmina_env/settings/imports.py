"""Code of a user, imported by the name of a module or the path of a file, so that what it registers is known."""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from collections.abc import Sequence
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from kasmina_env.settings.presets import PRESETS, Preset

_chosen: tuple[str, ...] = ()  # by the options of the command that runs
_of_ids: tuple[str, ...] = ()  # in ids, as `module:ID`


def import_chosen(names: Sequence[str]) -> None:
    """Import what a command was told to, in this order, and remember it for `import_words`."""
    global _chosen, _of_ids
    _chosen, _of_ids = tuple(names), ()
    for name in names:
        import_any(name)


def import_words() -> str:
    """Options that import the same again, as the end of a command."""
    return "".join(f" --import {name}" for name in _chosen)


def chosen() -> tuple[str, ...]:
    """Modules, and absolute paths of files, that the command that runs was told to import. Its workers need them."""
    return tuple(str(Path(name).resolve()) if _is_path(name) else name for name in (*_chosen, *_of_ids))


def import_any(name: str) -> ModuleType:
    """Import a module by its name, or by the path of its file."""
    return import_file(Path(name)) if _is_path(name) else import_named(name)


def _is_path(name: str) -> bool:
    return name.endswith(".py") or "/" in name or "\\" in name


def import_named(name: str) -> ModuleType:
    """Import a module by its name; the working directory is searched after all other places.

    Raises:
        ImportError: If there is no such module, or it fails; the message says why in one sentence.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # at the end, so that no file here stands in for a module of somebody else
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ImportError(f"There is no module {name!r} here or installed. For a file, give its path.") from error
        raise _failed(name, error) from error
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def import_file(path: Path) -> ModuleType:
    """Import a file of Python; the same file again is the same module.

    The module has the name of the file, and its folder is searched for modules after all other places: the file can
    import its neighbours, and processes that are started later find it. Where that name is taken, something is added
    to it.

    Raises:
        ImportError: If there is no such file, or it fails; the message says why in one sentence.
    """
    file = path.resolve()
    if file.suffix != ".py" or not file.is_file():
        raise ImportError(f"`{path}` must be a .py file that exists. Correct the path.")
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(file):
            return module
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    name = _module_name(file)
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception | SystemExit):
            raise _failed(str(path), error) from error
        raise
    return module


def find_preset(env_id: str) -> Preset:
    """A registered problem by its id; in `module:ID` the module, or file, is imported first.

    Raises:
        UnknownNameError: If there is none.
        ImportError: If the module cannot be imported.
    """
    global _of_ids
    module, _, name = env_id.rpartition(":")
    if module:
        import_any(module)
        _of_ids = (*_of_ids, module)
    return PRESETS.get(name)


def _module_name(file: Path) -> str:
    """Name of a file, if importing it would find this file."""
    spec = None if file.stem in sys.modules or not file.stem.isidentifier() else find_spec(file.stem)
    if spec is not None and spec.origin == str(file):
        return file.stem
    return f"{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"


def _failed(name: str, error: BaseException) -> ImportError:
    """What went wrong in somebody's code, and where, in one sentence."""
    words = traceback.format_exception_only(error)[-1].strip()
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [
        (f.filename, f.lineno) for f in frames if not f.filename.startswith(("<frozen", importlib.__file__, __file__))
    ]
    if isinstance(error, SyntaxError):
        theirs = [(error.filename or name, error.lineno)]
    where = f" ({theirs[0][0]}, line {theirs[0][1]})" if theirs else ""
    return ImportError(f"`{name}` cannot be imported: {words}{where}.")
