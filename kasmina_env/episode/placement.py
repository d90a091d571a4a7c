"""Places where an `EpisodeCore` lives: this thread, another thread, or another process.

A place starts a method by name and gives back a function that waits for its result, so that several work at once.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol

import torch

from kasmina_env.episode.core import EpisodeCore
from kasmina_env.settings import imports
from kasmina_env.settings.machine import keep_freed_memory, sheltered_children

NO_MAIN_GUARD = "A script that uses workers keeps its code under `if __name__ == '__main__':`."
GRACE = 60  # seconds that a worker lives on after SIGTERM
Wait = Callable[[], Any]  # returns the result of a method, or raises what it raised
Make = Callable[[], EpisodeCore]


class Place(Protocol):
    """A core, wherever it is."""

    def start(self, method: str, *args: object) -> Wait:
        """Begin a method of the core; the one before must have been waited for."""
        ...

    def close(self) -> Wait:
        """Begin to free what the place holds."""
        ...


class Here:
    """A core in this thread: a method is done when it has been started."""

    def __init__(self, make: Make) -> None:
        self.core = make()

    def start(self, method: str, *args: object) -> Wait:
        result = getattr(self.core, method)(*args)
        return lambda: result

    def close(self) -> Wait:
        return _nothing


class Thread:
    """A core in a thread of its own, for a device of its own: PyTorch lets other threads go on while it computes."""

    def __init__(self, make: Make) -> None:
        self.core = make()
        self._pool = _one_thread()

    def __getstate__(self) -> EpisodeCore:
        return self.core

    def __setstate__(self, core: EpisodeCore) -> None:
        self.core, self._pool = core, _one_thread()

    def start(self, method: str, *args: object) -> Wait:
        return self._pool.submit(getattr(self.core, method), *args).result

    def close(self) -> Wait:
        self._pool.shutdown(wait=False)
        return _nothing


def _nothing() -> None:
    """Wait for nothing."""


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="episodes")


class Process:
    """A core in a process with one thread. Python computes in one thread at a time, and half of a step is Python."""

    def __init__(self, make: Make) -> None:
        if multiprocessing.current_process().daemon:
            raise RuntimeError("`num_workers` must be 1 in a daemon process, which may not start others.")
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # A worker imports the script that started it, which goes on to start workers. Python would raise too, with
            # sixty lines from every worker; the script itself learns of it from `_death`.
            raise SystemExit(NO_MAIN_GUARD)
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make, imports.chosen()), daemon=True)
        with sheltered_children():
            self._process.start()
        other.close()
        self._is_ready = False
        self._end = weakref.finalize(self, _end, self._pipe, self._process)

    def __reduce__(self) -> Any:
        raise TypeError("An environment with `num_workers` above 1 cannot be pickled or copied. Use its `snapshot`.")

    def start(self, method: str, *args: object) -> Wait:
        if not self._end.alive:
            raise RuntimeError("The workers of this environment were closed. Make the environment anew.")
        if not self._is_ready:
            self._await_core()
        try:
            self._pipe.send_bytes(_dump((method, args)))
        except OSError as error:
            raise self._death() from error
        return self._receive

    def _await_core(self) -> None:
        try:
            self._receive()
        except Exception:
            self.close()()
            raise
        self._is_ready = True

    def _receive(self) -> Any:
        try:
            is_good, value = pickle.loads(self._pipe.recv_bytes())  # noqa: S301 - from a process that this one started
        except (EOFError, OSError) as error:
            raise self._death() from error
        except BaseException:
            self.close()()  # an answer that nobody waits for would be taken for that to the next call
            raise
        if not is_good:
            raise value
        return value

    def _death(self) -> RuntimeError:
        self._process.join(timeout=1)
        code = self._process.exitcode
        self.close()()
        if not self._is_ready:
            return RuntimeError(f"Worker exited with code {code} while it started. {NO_MAIN_GUARD}")
        return RuntimeError(
            f"Worker exited with code {code}. Make the environment anew, with fewer networks if memory ran out."
        )

    def close(self) -> Wait:
        self._process.kill()  # it may be busy, and has nothing to lose
        return self._end


def _end(pipe: Connection, process: SpawnProcess) -> None:
    pipe.close()
    process.kill()
    process.join()


class _Pickler(pickle.Pickler):
    """Tensors as arrays, which is ten times as fast as PyTorch's own way."""

    def reducer_override(self, thing: Any) -> Any:
        if type(thing) is torch.Tensor and thing.dtype is not torch.bfloat16 and thing.device.type == "cpu":
            return torch.from_numpy, (thing.detach().numpy(),)
        return NotImplemented


def _dump(thing: object) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump(thing)
    return file.getvalue()


def _serve(pipe: Connection, make: Make, modules: Sequence[str]) -> None:
    """Answer calls until the pipe is closed.

    Args:
        pipe: Connection to the process that started this one.
        make: Makes the core.
        modules: Code of the user that registers what the problem names.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this decides
    if hasattr(signal, "alarm"):
        # Where a whole group is terminated, whoever started this may want to save what is here first.
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))
    keep_freed_memory()
    torch.set_num_threads(1)
    try:
        core, answer = _made(make, modules)
        pipe.send_bytes(answer)
        while core is not None:
            pipe.send_bytes(_answer(core, pipe.recv_bytes()))
    except (EOFError, OSError):
        pass
    os._exit(0)  # without the seconds that PyTorch takes to say goodbye


def _made(make: Make, modules: Sequence[str]) -> tuple[EpisodeCore | None, bytes]:
    try:
        for module in modules:
            imports.import_any(module)
        return make(), _dump((True, None))
    except Exception as error:  # noqa: BLE001 - raised where the core was asked for
        return None, _dump_error(error)


def _answer(core: EpisodeCore, call: bytes) -> bytes:
    try:
        method, args = pickle.loads(call)  # noqa: S301 - from the process that started this one
        return _dump((True, getattr(core, method)(*args)))
    except Exception as error:  # noqa: BLE001 - raised where the call came from
        return _dump_error(error)


def _dump_error(error: Exception) -> bytes:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - an exception need not survive the way
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return _dump((False, error))
