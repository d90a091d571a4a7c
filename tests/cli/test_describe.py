"""`kasmina describe` says which engine would run here, and why it is not the faster one."""

from __future__ import annotations

import json

import pytest
import torch

from kasmina_env import register_blueprint, register_environment
from kasmina_env.networks.blueprints import BLUEPRINTS
from kasmina_env.population import engine as choice
from kasmina_env.settings.presets import PRESETS
from tests.cli.running import complaint, said

SPIRALS = "Kasmina/Spirals-v0"


class Sine(torch.nn.Module):
    def forward(self, x):
        return torch.sin(x)


@pytest.fixture
def with_sines(monkeypatch):
    """Id of an environment in which a seed without kernel may grow."""
    for registry in (BLUEPRINTS, PRESETS):
        monkeypatch.setattr(registry, "_infos", dict(registry._infos))
    register_blueprint("sine", topologies=("vector",))(lambda nn, channels: Sine())
    register_environment(
        "Mine/Sines-v0", "Spirals with sines.", task="spirals", host="mlp", blueprints=("lora", "sine")
    )
    return "Mine/Sines-v0"


def test_the_engine_that_runs_here_is_named(capsys):
    assert "Networks train here in the fused engine." in said(capsys, "describe", SPIRALS)
    assert json.loads(said(capsys, "describe", SPIRALS, "--json"))["engine"] == {"name": "fused", "reason": ""}


def test_what_the_faster_one_lacks_is_said(capsys, monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    sentence = "in the torch engine, because the fused engine needs numba: pip install kasmina-env[fast]."
    assert sentence in said(capsys, "describe", SPIRALS)


def test_a_seed_that_takes_its_networks_to_torch_is_named(capsys, with_sines):
    assert "in the torch engine, because `sin` has no kernel, which 'sine' needs." in said(
        capsys, "describe", with_sines
    )


def test_an_engine_that_was_asked_for_needs_no_reason(capsys, monkeypatch):
    monkeypatch.setenv("KASMINA_ENGINE", "torch")
    assert "Networks train here in the torch engine." in said(capsys, "describe", SPIRALS)


def test_an_engine_that_cannot_be_had_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setenv("KASMINA_ENGINE", "fusd")
    assert "`KASMINA_ENGINE` must be one of auto, torch, fused" in complaint(capsys, "describe", SPIRALS)
