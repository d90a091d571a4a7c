"""Noise on samples and labels. It is drawn once with the data and scaled by each network's conditions."""

from __future__ import annotations

import torch
from torch import Tensor

from kasmina_env.population.state import Conditions, Networks, Setting
from kasmina_env.tasks import Noise, Split


def noisy_inputs(setting: Setting, conditions: Conditions, noise: Noise, x: Tensor, index: Tensor) -> Tensor:
    """Add noise to samples.

    Args:
        setting: Setting of the networks.
        conditions: Conditions of N networks.
        noise: Noise of the data.
        x: Clean samples ``[B, N, ...]``.
        index: Numbers of the samples ``[B, N]``, or ``[B, 1]`` if all networks have the same.
    """
    width = setting.column(conditions.pixel_noise).view(-1, *[1] * (x.ndim - 2))
    return x + noise.inputs[index] * width


def noisy_labels(setting: Setting, conditions: Conditions, data: Split, index: Tensor) -> Tensor:
    """Training labels ``[B, N]``, some of them wrong."""
    assert data.noise is not None
    share = setting.column(conditions.label_noise).squeeze(1)  # [N]
    return torch.where(data.noise.chance[index] < share, data.noise.labels[index], data.y[index])


def seen_by_all(networks: Networks, data: Split, start: int, size: int) -> Tensor:
    """The same samples for every network, ``[B, N, ...]``, each with its own noise."""
    clean = data.x[start : start + size]
    if data.changed is not None:
        version = networks.setting.index(networks.conditions.change)
        x = data.changed[version, start : start + size].transpose(0, 1)
    else:
        x = clean.unsqueeze(1).expand(-1, len(networks), *clean.shape[1:])
    if data.noise is None:
        return x
    index = torch.arange(start, start + len(clean), device=x.device).unsqueeze(1)
    return noisy_inputs(networks.setting, networks.conditions, data.noise, x, index)
