"""Ray actors, on this machine or others, as places where an `EpisodeCore` lives."""

from __future__ import annotations

import os
import socket
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from kasmina_env.episode.core import EpisodeCore
from kasmina_env.episode.placement import LostPlaceError, Make, Wait, answer, dump, make_core, read_answer
from kasmina_env.population.device import find_device
from kasmina_env.settings import imports
from kasmina_env.settings.machine import keep_freed_memory, own_signals

OURS = "KASMINA_"  # environment variables that begin so are the same in the actors
ANSWER_WITHIN = 10.0  # seconds
FIRST_PATIENCE, PATIENCE = 300.0, 60.0  # seconds until an actor has to run; the second if it replaces a lost one


def import_ray() -> Any:
    """The module `ray`; without it one sentence names the extra that brings it."""
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        sentence = "Ray actors need ray, which is not installed. Run: pip install 'kasmina-env[ray]'"
        raise ModuleNotFoundError(sentence, name="ray") from error
    return ray


def join_cluster(address: str = "auto") -> None:
    """Join a Ray cluster, unless this process is in one already.

    Args:
        address: Address of the cluster, as `ray.init` takes it. "auto" is the cluster of the environment variable
            RAY_ADDRESS, else the one that runs on this machine, else a new one of this machine alone, which ends with
            this process.

    Raises:
        ValueError: If there is no cluster at the address.
    """
    ray = import_ray()
    if ray.is_initialized():
        return
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    host, has_port, port = address.rpartition("/")[2].rpartition(":")
    with own_signals():  # Ray takes SIGTERM over
        try:
            if has_port:  # Ray would try for more than ten minutes
                socket.create_connection((host, int(port)), timeout=ANSWER_WITHIN).close()
            ray.init(
                address=None if address == "auto" else address,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except (OSError, RuntimeError, ValueError) as error:
            if address == "auto":  # the machine is to blame
                raise
            reason = str(error).splitlines()[0].rstrip(".")
            raise ValueError(
                f"`cluster` must be 'auto' or the address of a Ray cluster to join, got {address!r}: {reason}."
            ) from error


def count_places(device: str) -> int:
    """Number of actors for which the cluster has a CPU, or a GPU if that is the device."""
    return int(import_ray().cluster_resources().get("GPU" if _is_gpu(device) else "CPU", 0))


def _is_gpu(device: str) -> bool:
    return torch.device(device).type == "cuda"


def make_core_on(device: str, make: Callable[..., EpisodeCore]) -> EpisodeCore:
    """A core on a device of the machine that this runs on."""
    return make(device=find_device(device))


class RayActor:
    """A core in a Ray actor, which has one CPU, and one GPU if it trains there.

    Args:
        make: Factory of the core.
        device: Device of the networks, on the actor's machine.
        is_spare: Whether it takes the place of a lost one. It then shares a CPU if none is free.
    """

    def __init__(self, make: Make, device: str, is_spare: bool = False) -> None:
        self._ray = import_ray()
        self._needs = {"CPU": 1, **({"GPU": 1} if _is_gpu(device) else {})}
        if is_spare and self._ray.available_resources().get("CPU", 0) < 1:
            self._needs["CPU"] = 0
        self._patience = PATIENCE if is_spare else FIRST_PATIENCE
        remote = self._ray.remote(Server).options(
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs.get("GPU", 0),
            scheduling_strategy="SPREAD",
        )
        variables = {name: value for name, value in os.environ.items() if name.startswith(OURS)}
        self._actor = remote.remote(dump(make), imports.chosen(), sys.path, variables)
        self._made = self._actor.made.remote()
        self._is_ready = False
        self._end = weakref.finalize(self, _end, self._actor)

    def __reduce__(self) -> Any:
        raise TypeError("An environment in Ray actors cannot be pickled or copied. Use its `snapshot`.")

    def start(self, method: str, *args: object) -> Wait:
        if not self._end.alive:
            raise RuntimeError("The actors of this environment were closed. Make the environment anew.")
        if not self._is_ready:
            self._await_core()
        return partial(self._receive, self._actor.call.remote(dump((method, args))))

    def _await_core(self) -> None:
        try:
            self._receive(self._made, self._patience)
        except Exception:
            self.close()
            raise
        self._is_ready = True

    def _receive(self, reference: Any, patience: float | None = None) -> Any:
        errors = self._ray.exceptions
        try:
            received = self._ray.get(reference, timeout=patience)
        except errors.GetTimeoutError as error:
            needs = " and ".join(f"{number} {kind}" for kind, number in self._needs.items())
            raise LostPlaceError(
                f"Ray started no actor with {needs} in {self._patience:.0f} seconds. Use fewer workers, or a larger "
                "cluster."
            ) from error
        except (errors.RayActorError, errors.ObjectLostError) as error:
            raise LostPlaceError(f"A Ray actor was lost: {str(error).splitlines()[0]}") from error
        return read_answer(received)

    def close(self) -> Wait:
        self._end()
        return _nothing


def _nothing() -> None:
    """Wait for nothing: Ray ends an actor by itself."""


def _end(actor: Any) -> None:
    ray = import_ray()
    if ray.is_initialized():
        ray.kill(actor)


class Server:
    """What runs in an actor: a core and the answers to calls.

    Args:
        make: Factory of the core, pickled.
        modules: User modules to import first.
        path: Folders in which the process that asked for the core looks for modules.
        variables: Environment variables.
    """

    def __init__(self, make: bytes, modules: Sequence[str], path: Sequence[str], variables: Mapping[str, str]) -> None:
        sys.path += [folder for folder in path if folder not in sys.path]
        os.environ.update(variables)
        keep_freed_memory()
        torch.set_num_threads(1)
        self._core, self._made = make_core(make, modules)

    def made(self) -> bytes:
        """Answer to the wish for a core."""
        return self._made

    def call(self, call: bytes) -> bytes:
        """Answer to a call."""
        assert self._core is not None
        return answer(self._core, call)
