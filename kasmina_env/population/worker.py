"""A population in a process of its own. Python computes in one thread at a time, and half of a step is Python.

Calls go through a pipe by name. What is large stays where it is: data are sent once, minibatches never leave.
"""

from __future__ import annotations

import io
import multiprocessing
import pickle
import signal
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from kasmina_env.lifecycle.arrays import BoolArray, FloatArray
from kasmina_env.networks.grown import GrownNetwork
from kasmina_env.population.population import Population, Rows, Snapshot
from kasmina_env.population.state import Conditions, Setting
from kasmina_env.population.train import GradientHealth
from kasmina_env.settings.config import Operator
from kasmina_env.settings.machine import keep_freed_memory
from kasmina_env.tasks import Split

SETTING = "setting"
MOST_UNANSWERED = 100  # so that neither side ever waits for room in the pipe


class Kept:
    """Stands for an object that only the worker has."""


class _Numbers:
    """Numbers of objects that the worker holds as well, until they are gone here."""

    def __init__(self) -> None:
        self.known: dict[int, int] = {}
        self.gone: list[int] = []
        self.next = 0

    def add(self, thing: object) -> int:
        """Number of a new object."""
        number, self.next = self.next, self.next + 1
        self.known[id(thing)] = number
        weakref.finalize(thing, self._drop, id(thing)).atexit = False
        return number

    def _drop(self, key: int) -> None:
        self.gone.append(self.known.pop(key))


class _Pickler(pickle.Pickler):
    """Tensors as arrays, which is ten times as fast as PyTorch's own way, and by name what both sides have."""

    def __init__(self, file: io.BytesIO, name_of: Callable[[object], object]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.name_of = name_of

    def persistent_id(self, thing: object) -> object:
        return self.name_of(thing)

    def reducer_override(self, thing: Any) -> Any:
        if type(thing) is torch.Tensor and thing.dtype is not torch.bfloat16 and thing.device.type == "cpu":
            return torch.from_numpy, (thing.detach().numpy(),)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, named: Callable[[Any], object]) -> None:
        super().__init__(io.BytesIO(content))
        self.named = named

    def persistent_load(self, pid: Any) -> object:
        return self.named(pid)


def _dump(thing: object, name_of: Callable[[object], object]) -> bytes:
    file = io.BytesIO()
    _Pickler(file, name_of).dump(thing)
    return file.getvalue()


class WorkerPopulation:
    """What a `Population` offers, from a process with one thread.

    Methods that return nothing from there are not waited for. What they raise is raised by the next one that is.

    Args:
        make: Builds the population, here for its setting and in the process; can be pickled.
    """

    def __init__(self, make: Callable[[], Population]) -> None:
        local = make()
        self.setting, self.num_networks = local.setting, local.num_networks
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make), daemon=True)
        self._process.start()
        other.close()
        self.close = weakref.finalize(self, _close, self._pipe, self._process)
        self._numbers = _Numbers()
        self._num_unanswered = 0

    @property
    def num_slots(self) -> int:
        return self.setting.num_slots

    def _call(self, name: str, *args: object) -> Any:
        """What a method returns there, or raises."""
        self._finish()  # so that nothing is done on top of what failed
        self._send(name, args, ())
        return self._answer()

    def _tell(self, name: str, *args: object, keep: Sequence[Kept] = ()) -> None:
        """Have a method called whose result is not for here, without waiting; what it raises, the next call raises."""
        if self._num_unanswered == MOST_UNANSWERED:
            self._finish()
        self._send(name, args, keep)
        self._num_unanswered += 1

    def _finish(self) -> None:
        while self._num_unanswered:
            self._num_unanswered -= 1
            self._answer()

    def _send(self, name: str, args: Sequence[object], keep: Sequence[Kept]) -> None:
        news: list[tuple[int, Split]] = []

        def name_of(thing: object) -> object:
            if isinstance(thing, Setting):
                return SETTING
            if isinstance(thing, Split) and id(thing) not in self._numbers.known:
                news.append((self._numbers.add(thing), thing))
            return self._numbers.known[id(thing)] if isinstance(thing, Split | Kept) else None

        content = _dump(args, name_of)
        gone, self._numbers.gone = self._numbers.gone, []
        message = (name, content, news, gone, [self._numbers.add(thing) for thing in keep])
        with self._guard():
            self._pipe.send_bytes(_dump(message, lambda thing: None))

    def _answer(self) -> Any:
        with self._guard():
            answer = self._pipe.recv_bytes()
        is_good, value = _Unpickler(answer, lambda _: self.setting).load()
        if not is_good:
            raise value
        return value

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            self._process.join(timeout=1)
            raise RuntimeError(
                f"`num_workers` must be processes that stay alive, got one that ended with exit code "
                f"{self._process.exitcode}. Make the environment anew, with fewer networks if memory ran out."
            ) from error
        except BaseException:
            self.close()  # an answer that nobody waits for any more would be taken for that to the next call
            raise

    # ── what a population offers ─────────────────────────────────────────────────────────────

    def draw_minibatches(
        self, data: Split, num_batches: int, batch_size: int, augment: str = "none"
    ) -> tuple[Kept, Kept]:
        """See `Population.draw_minibatches`; they stay in the process."""
        batches = Kept(), Kept()
        self._tell("draw_minibatches", data, num_batches, batch_size, augment, keep=batches)
        return batches

    def train(
        self, x: Kept, y: Kept, alpha: FloatArray, pace: FloatArray | float = 1.0
    ) -> tuple[torch.Tensor, GradientHealth]:
        """See `Population.train`."""
        trained: tuple[torch.Tensor, GradientHealth] = self._call("train", x, y, alpha, pace)
        return trained

    def warm_up(
        self, data: Split, num_batches: int, batch_size: int, learning_rate: float, rows: Rows
    ) -> GradientHealth:
        """See `Population.warm_up`."""
        health: GradientHealth = self._call("warm_up", data, num_batches, batch_size, learning_rate, rows)
        return health

    def evaluate_together(
        self, data: Sequence[Split], alpha: FloatArray, off: Sequence[BoolArray | None], rows: Rows | None = None
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """See `Population.evaluate_together`."""
        figures: list[tuple[torch.Tensor, torch.Tensor]] = self._call("evaluate_together", data, alpha, off, rows)
        return figures

    def germinate(self, rows: Rows, slot: int, blueprint: str, operator: Operator, in_training: bool = True) -> None:
        """See `Population.germinate`."""
        self._tell("germinate", rows, slot, blueprint, operator, in_training)

    def connect(self, rows: Rows, slot: int) -> None:
        """See `Population.connect`."""
        self._tell("connect", rows, slot)

    def remove(self, rows: Rows, slot: int) -> None:
        """See `Population.remove`."""
        self._tell("remove", rows, slot)

    def reset_rows(self, rows: Rows, rng_seeds: Sequence[int], conditions: Conditions | None = None) -> None:
        """See `Population.reset_rows`."""
        self._tell("reset_rows", rows, rng_seeds, conditions)

    def reseed(self, rows: Rows, rng_seeds: Sequence[int]) -> None:
        """See `Population.reseed`."""
        self._tell("reseed", rows, rng_seeds)

    def snapshot(self, rows: Rows | None = None) -> Snapshot:
        """See `Population.snapshot`; it is here, and outlives the process."""
        saved: Snapshot = self._call("snapshot", rows)
        return saved

    def restore(self, saved: Snapshot, rows: Rows | None = None) -> None:
        """See `Population.restore`."""
        self._call("restore", saved, rows)

    def network(self, row: int, alpha: FloatArray, keep: BoolArray | None = None) -> GrownNetwork:
        """See `Population.network`."""
        network: GrownNetwork = self._call("network", row, alpha, keep)
        return network

    def seen_by(self, row: int, data: Split) -> Split:
        """See `Population.seen_by`."""
        seen: Split = self._call("seen_by", row, data)
        return seen


def _close(pipe: Connection, process: SpawnProcess) -> None:
    """The process ends by itself when its pipe is closed."""
    pipe.close()
    process.join(timeout=5)
    if process.is_alive():
        process.kill()


def _name_of_setting(thing: object) -> object:
    return SETTING if isinstance(thing, Setting) else None


def _serve(pipe: Connection, make: Callable[[], Population]) -> None:
    """Answer calls until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this decides
    keep_freed_memory()
    torch.set_num_threads(1)
    population, held = make(), dict[object, Any]()
    held[SETTING] = population.setting
    with suppress(EOFError, OSError):  # whoever started this has closed the pipe, perhaps before it was answered
        while True:
            pipe.send_bytes(_reply(population, held, pipe.recv_bytes()))


def _reply(population: Population, held: dict[object, Any], message: bytes) -> bytes:
    """Do what a message says; the answer to it."""
    name, content, news, gone, keep = pickle.loads(message)  # noqa: S301 - from the process that started this one
    held |= news
    for number in gone:
        held.pop(number, None)
    try:
        args = _Unpickler(content, held.__getitem__).load()
        value = getattr(population, name)(*args)
        held |= zip(keep, value, strict=True) if keep else ()
        return _dump((True, None if keep else value), _name_of_setting)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the call came from
        return _dump((False, error), _name_of_setting)
