"""Places where an `EpisodeCore` lives: this thread, another thread, or another process.

A Ray actor, perhaps on another machine, is one more: `kasmina_env.episode.ray_actor`. A place starts a method by name
and returns a function that waits for its result. So several places work at once.
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
GRACE = 60  # seconds between SIGTERM and the end of a worker
Wait = Callable[[], Any]  # returns the result of a method, or raises what it raised
Make = Callable[[], EpisodeCore]


class LostPlaceError(RuntimeError):
    """A place ended by itself, and the core in it is gone."""


class Place(Protocol):
    """A core, wherever it is."""

    def start(self, method: str, *args: object) -> Wait:
        """Start a method of the core. Wait for the previous one first."""
        ...

    def close(self) -> Wait:
        """Start to free the resources of the place."""
        ...


class Here:
    """A core in this thread. `start` returns when the method is done."""

    def __init__(self, make: Make) -> None:
        self.core = make()

    def start(self, method: str, *args: object) -> Wait:
        result = getattr(self.core, method)(*args)
        return lambda: result

    def close(self) -> Wait:
        return _nothing


class Thread:
    """A core in its own thread, for its own device. PyTorch releases the interpreter lock while it computes."""

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
    """A core in its own process. Half of a step is Python, which threads cannot run at the same time."""

    def __init__(self, make: Make) -> None:
        if multiprocessing.current_process().daemon:
            raise RuntimeError("`num_workers` must be 1 in a daemon process, which may not start others.")
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # A worker imports the script that started it, which goes on to start workers. Python would raise too, with
            # sixty lines from every worker; the script that started it gets the error of `_death`.
            raise SystemExit(NO_MAIN_GUARD)
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, dump(make), imports.chosen()), daemon=True)
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
            self._pipe.send_bytes(dump((method, args)))
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
            received = self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._death() from error
        except BaseException:
            self.close()()  # an unread answer would be taken for that of the next call
            raise
        return read_answer(received)

    def _death(self) -> RuntimeError:
        self._process.join(timeout=1)
        code = self._process.exitcode
        self.close()()
        if not self._is_ready:
            return RuntimeError(f"Worker exited with code {code} while it started. {NO_MAIN_GUARD}")
        return LostPlaceError(
            f"Worker exited with code {code}. Make the environment anew, with fewer networks if memory ran out."
        )

    def close(self) -> Wait:
        self._process.kill()  # it may be busy, and holds nothing to save
        return self._end


def _end(pipe: Connection, process: SpawnProcess) -> None:
    pipe.close()
    process.kill()
    process.join()


class _Pickler(pickle.Pickler):
    """Pickler that sends tensors as arrays: ten times as fast as PyTorch's own reducer."""

    def reducer_override(self, thing: Any) -> Any:
        if type(thing) is torch.Tensor and thing.dtype is not torch.bfloat16 and thing.device.type == "cpu":
            return torch.from_numpy, (thing.detach().numpy(),)
        return NotImplemented


def dump(thing: object) -> bytes:
    """A value as bytes, for another process of this package."""
    file = io.BytesIO()
    _Pickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump(thing)
    return file.getvalue()


def _serve(pipe: Connection, make: bytes, modules: Sequence[str]) -> None:
    """Answer calls until the pipe is closed.

    Args:
        pipe: Connection to the process that started this one.
        make: Factory of the core, pickled.
        modules: User modules to import first; they register names that the problem uses.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process decides
    if hasattr(signal, "alarm"):
        # When a whole process group is terminated, the parent may first want to save the episodes held here.
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))
    keep_freed_memory()
    torch.set_num_threads(1)
    try:
        core, first_answer = make_core(make, modules)
        pipe.send_bytes(first_answer)
        while core is not None:
            pipe.send_bytes(answer(core, pipe.recv_bytes()))
    except (EOFError, OSError):
        pass
    os._exit(0)  # skips the seconds of PyTorch's own shutdown


def make_core(make: bytes, modules: Sequence[str]) -> tuple[EpisodeCore | None, bytes]:
    """The core, and the answer to whoever asked for it, pickled: None, or an error.

    Args:
        make: Factory of the core, pickled: it names what the modules register.
        modules: User modules to import first.
    """
    try:
        for module in modules:
            imports.import_any(module)
        return pickle.loads(make)(), dump((True, None))  # noqa: S301 - from the process that asks for the core
    except Exception as error:  # noqa: BLE001 - raised where the core was asked for
        return None, _dump_error(error)


def answer(core: EpisodeCore, call: bytes) -> bytes:
    """Pickled answer to a pickled call, which `read_answer` reads: the result of the method, or its error."""
    try:
        method, args = pickle.loads(call)  # noqa: S301 - from the process that asked for the core
        return dump((True, getattr(core, method)(*args)))
    except Exception as error:  # noqa: BLE001 - raised where the call came from
        return _dump_error(error)


def read_answer(received: bytes) -> Any:
    """The result in an answer of `make_core` or `answer`; an error in it is raised."""
    is_good, value = pickle.loads(received)  # noqa: S301 - from a process that this one started
    if not is_good:
        raise value
    return value


def _dump_error(error: Exception) -> bytes:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - some exceptions cannot be pickled
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return dump((False, error))
