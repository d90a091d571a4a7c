"""Weights that every fresh host starts from, read from a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch

from kasmina_env.lifecycle.arrays import FloatArray
from kasmina_env.networks.grown import COUNTER
from kasmina_env.networks.hosts import Host, make_network
from kasmina_env.population.stack import make_template

HOST, SEEDS = "network.", "slots."  # how names of a host's tensors and of its seeds' begin in a file of `save_network`


def load_initial_weights(path: Path, host: Host) -> FloatArray:
    """Parameters of a host ``[P]``, in the order of its template.

    Args:
        path: A safetensors file with the tensors of the host built of `torch.nn`, under their names there or as
            `save_network` writes them.
        host: The host that they are for.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no safetensors file, or holds other tensors than the host's, or some that are not finite.
    """
    if not path.is_file():
        raise FileNotFoundError(f"`initial_weights` must be a file that exists, got '{path}'. Correct the path.")
    try:
        tensors = safetensors.torch.load(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"`initial_weights` must be a safetensors file, got '{path}': {error}. Save it anew."
        ) from error
    if any(name.startswith(SEEDS) for name in tensors):
        raise ValueError(f"`initial_weights` must be those of a host alone, got seeds in '{path}'. Leave them out.")
    found = {name.removeprefix(HOST): t for name, t in tensors.items() if not name.endswith(COUNTER)}
    template = make_template(partial(make_network, host))
    wanted = dict(zip(template.names, template.shapes, strict=True))
    for name in (*wanted, *found):
        shape = tuple(found[name].shape) if name in found else "none"
        if shape != wanted.get(name):
            raise ValueError(
                f"`initial_weights` must fit the host, got {shape} for {name!r}, which is "
                f"{wanted.get(name, 'not part of it')}. Save those of a host with the same settings."
            )
        if not found[name].isfinite().all():
            raise ValueError(f"`initial_weights` must be finite, got others in {name!r} of '{path}'. Save better ones.")
    return np.concatenate([found[name].to(torch.float64).numpy().ravel() for name in wanted])
