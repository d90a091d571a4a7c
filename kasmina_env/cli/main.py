"""The way into the command `kasmina`: signals, memory and threads of the process, then the command that was named.

Signals come first: until they are taken over, Ctrl-C is a traceback. So all but the least is imported in functions, and
PyTorch and the like by the command that needs them, when its arguments have been checked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING, get_type_hints

from kasmina_env import __version__
from kasmina_env.cli import interrupts

if TYPE_CHECKING:
    from tyro.extras import SubcommandApp

DESCRIPTION = (
    "Grow neural networks while they train: on the CPU, or where KASMINA_DEVICE says, such as KASMINA_DEVICE=cuda. "
    "`kasmina --version` says which version this is."
)
# Which extra of the package brings a module.
EXTRAS = {
    "tyro": "cli",
    "rich": "cli",
    "stable_baselines3": "sb3",
    "sb3_contrib": "sb3",
    "tensorboard": "sb3",
    "matplotlib": "plot",
    "ray": "ray",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "minari": "minari",
    "h5py": "minari",
}
COMMAND_LINE_ERROR = 2  # exit status
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # a RuntimeError of PyTorch


def main() -> None:
    """Entry point of the command `kasmina`."""
    interrupts.install()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # "?" for what a legacy encoding lacks
    from kasmina_env.settings.machine import keep_freed_memory

    # Threads that spin long at a barrier while another process has their core made a step 25 times slower (5 s, not
    # 0.2); threads that never spin made it 1.6 times slower on idle cores. This costs a tenth, or 3 times if contended.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    keep_freed_memory()
    try:
        run()
    finally:
        interrupts.uninstall()


def run(arguments: Sequence[str] | None = None) -> None:
    """Run a command; what a user got wrong is said in one sentence, and a bug shows its traceback.

    Args:
        arguments: Words of the command line; default: those of this process.

    Raises:
        SystemExit: With status 2 for what a user got wrong, 130 after Ctrl-C, 143 after SIGTERM.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _call_command(words)
    except (Exception, KeyboardInterrupt) as error:
        if (interruption := interrupts.find_interruption(error)) is not None:
            line, status = interrupts.farewell(interruption)
        elif (sentence := sentence_of(error)) is not None:
            line, status = f"error: {sentence}", COMMAND_LINE_ERROR
        else:
            raise
        print(line, file=sys.stderr)
        sys.exit(status)


def _call_command(words: list[str]) -> None:
    if words == ["--version"]:
        print(f"kasmina_env {__version__}")
        return
    import tyro

    from kasmina_env.cli.console import is_plain

    # tyro looks at stdout alone, and has no other way to be told.
    tyro._experimental_options["ansi_codes"] = not (is_plain() or is_plain(for_errors=True))
    markers = (tyro.conf.FlagCreatePairsOff,)
    make_app(commands()).cli(args=words, prog="kasmina", description=DESCRIPTION, config=markers)


Commands = Mapping[str, Callable[..., None] | Mapping[str, Callable[..., None]]]


def commands() -> Commands:
    """Every command by name, and the commands of a group."""
    from kasmina_env.cli import bench, calibrate, compare, data, export, play, record, search, show, train

    return {
        "list": show.list_ids,
        "describe": show.describe,
        "check": show.check,
        "rollout": play.rollout,
        "replay": play.replay,
        "record": record.record,
        "train": train.train,
        "compare": compare.compare,
        "validate": compare.validate,
        "search": search.search,
        "calibrate": calibrate.calibrate,
        "export": export.export,
        "bench": bench.bench,
        "data": {"list": data.list_datasets, "fetch": data.fetch, "verify": data.verify},
    }


def make_app(table: Commands, doc: str = "") -> SubcommandApp:
    """Command line of a table of commands."""
    from tyro.extras import SubcommandApp

    app = SubcommandApp()
    app.__doc__ = doc
    for name, command in table.items():
        if isinstance(command, Mapping):
            app.command(make_app(command, "List, fetch and verify the files of datasets."), name=name)
        else:
            app.command(name=name)(with_imports(command))
    return app


def with_imports(command: Callable[..., None]) -> Callable[..., None]:
    """A command with one more option, `--import`, that is obeyed before the command is called."""
    import inspect

    from kasmina_env.cli.arguments import Imports
    from kasmina_env.settings.imports import import_chosen

    def importing(*args: object, imports: tuple[str, ...] = (), **arguments: object) -> None:
        import_chosen(imports)
        command(*args, **arguments)

    # What tyro reads. Not functools.wraps, through which it would look at the command itself.
    signature = inspect.signature(command)
    option = inspect.Parameter("imports", inspect.Parameter.KEYWORD_ONLY, default=(), annotation=Imports)
    importing.__doc__ = command.__doc__
    importing.__annotations__ = {**get_type_hints(command, include_extras=True), "imports": Imports}
    importing.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    return importing


def sentence_of(error: BaseException) -> str | None:
    """What a user got wrong, or what the machine lacks; None for a bug."""
    from kasmina_env.settings.registry import UnknownNameError

    if isinstance(error, ModuleNotFoundError) and (module := (error.name or "").partition(".")[0]) in EXTRAS:
        return f"This needs {module}, which is not installed. Run: pip install 'kasmina-env[{EXTRAS[module]}]'"
    if isinstance(error, UnknownNameError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}." if error.strerror and error.filename else str(error)
    if is_about_memory(error):
        reason = str(error).splitlines()[0].split(". ")[0]
        return f"{reason}. Train fewer networks at a time, or on another device."
    is_ours = isinstance(error, ValueError | TypeError | RuntimeError | ImportError) and was_raised_here(error)
    return str(error) if is_ours else None


def is_about_memory(error: BaseException) -> bool:
    """Whether there was not enough memory, for Python, NumPy or PyTorch, which may not even be imported."""
    is_of_torch = type(error).__name__ == "OutOfMemoryError" or NO_MEMORY in str(error)
    return bool(str(error)) and (isinstance(error, MemoryError) or is_of_torch)


def was_raised_here(error: BaseException) -> bool:
    """Whether a `raise` of this package made an exception, and not NumPy, PyTorch or an operation gone wrong."""
    import dis

    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    if innermost is None:
        return False
    frame = innermost.tb_frame
    is_raise = frame.f_code.co_code[innermost.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return is_raise and str(frame.f_globals.get("__name__")).startswith("kasmina_env.")
