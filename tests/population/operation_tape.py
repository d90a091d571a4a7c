"""CUDA graphs without a GPU: a call is taken down operation by operation, and replayed on the very same tensors."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Operations(TorchDispatchMode):
    """List of all operations below autograd; at the end what they have overwritten is as it was before."""

    def __init__(self):
        super().__init__()
        self.done = []
        self._before = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "a recorded call waits for no number"
        kwargs = kwargs or {}
        for argument in function._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = {**dict(zip(names_of(function), args, strict=False)), **kwargs}
                self._keep(given.get(argument.name))
        result = function(*args, **kwargs)
        self.done.append((function, args, kwargs, result))
        return result

    def _keep(self, overwritten):
        for tensor in tensors_in(overwritten):
            storage = tensor.untyped_storage()
            self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))

    def __exit__(self, *error):
        super().__exit__(*error)
        for storage, before in self._before.values():
            storage.copy_(before)


class OperationTape:
    """What `CudaGraphs` does, as far as it can be done on a CPU.

    A replay runs no Python of the engine: numbers that were not in tensors, and all addresses, stay those of the
    recording.
    """

    def aside(self):
        return nullcontext()

    def record(self, function):
        with Operations() as operations:
            out = function()

        @torch.no_grad()
        def replay():
            for operation, args, kwargs, result in operations.done:
                again = operation(*args, **kwargs)
                for old, new in zip(tensors_in(result), tensors_in(again), strict=True):
                    if old.data_ptr() != new.data_ptr():  # no view, and not in place
                        old.copy_(new)
            return out

        return replay


def names_of(function):
    return [argument.name for argument in function._schema.arguments]


def tensors_in(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
