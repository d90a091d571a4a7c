"""Which kernels suit a device: a layer of many networks as one grouped convolution, and as one batched matmul."""

import os
import sys
import time

import torch

from kasmina_env.networks.layers import Conv2d


def main(networks: int = 1024, repeats: int = 10) -> None:
    device = torch.device(os.environ.get("KASMINA_DEVICE", "cpu"))  # KASMINA_DEVICE=cuda python examples/lowerings.py
    print(f"{networks} networks on {device}, a minibatch of 32, forward and backward, ms: grouped / matmul")
    for channels, side in ((8, 8), (16, 4), (32, 2), (8, 1)):
        x = torch.randn(32, networks * channels, side, side, device=device)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        for size in (1, 3):
            layer = Conv2d(channels, channels, size, padding=size // 2, bias=False)
            weight = torch.randn(networks, *layer.weight.shape[1:], device=device)
            layer.weight = torch.nn.Parameter(weight)
            times = [milliseconds(run, x, layer.weight, repeats) for run in (layer.as_groups, layer.as_matmul)]
            print(f"{size}x{size}, {channels} channels at {side}x{side}: {times[0]:.2f} / {times[1]:.2f}")


def milliseconds(run, x, weight, repeats: int) -> float:
    for repeat in range(repeats + 2):  # the first two warm up
        if repeat == 2:
            start = now(x.device)
        out = run(x)
        torch.autograd.grad(out, (x, weight), torch.ones_like(out))
    return 1e3 * (now(x.device) - start) / repeats


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
