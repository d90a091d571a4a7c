"""Which engine a population has, and why."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from kasmina_env.networks.blueprints import BLUEPRINTS, register_blueprint
from kasmina_env.population import ENGINES, Population
from kasmina_env.population import engine as choice
from kasmina_env.population.fused import kernels, tracer
from kasmina_env.settings.config import Operator
from tests.contract import BARE_SGD, HOSTS_UNDER_TEST, every_host
from tests.population.fused.pairs import assert_equal_states, batches

MLP = HOSTS_UNDER_TEST["mlp"]


@pytest.fixture
def cosine(monkeypatch):
    """A blueprint with a function that has no kernel."""
    monkeypatch.setattr(BLUEPRINTS, "_infos", dict(BLUEPRINTS._infos))

    class Cosine(torch.nn.Module):
        def __init__(self, nn, channels):
            super().__init__()
            self.map = nn.Linear(channels, channels)

        def forward(self, x):
            return self.map(torch.cos(x))

    register_blueprint("cosine", topologies=("vector",))(Cosine)
    return "cosine"


@every_host
def test_every_host_is_fused_where_nothing_is_asked_for(host):
    population = Population(host, [0])
    assert (population.engine, population.engine_reason) == ("fused", "")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_run_on_torch_with_the_reason(dtype):
    population = Population(MLP, [0], dtype=dtype)
    assert population.engine == "torch"
    assert population.engine_reason.startswith("the fused engine computes in float32")
    with pytest.raises(ValueError, match=r"^`engine` must be 'torch' or 'auto' here, got 'fused': the fused engine "):
        Population(MLP, [0], dtype=dtype, engine="fused")


def test_without_numba_everything_runs_on_torch(monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    population = Population(MLP, [0])
    assert population.engine == "torch"
    assert population.engine_reason == "the fused engine needs numba: pip install kasmina-env[fast]"


@pytest.mark.parametrize("name", ENGINES)
def test_the_environment_variable_names_the_default(name, monkeypatch):
    monkeypatch.setenv("KASMINA_ENGINE", name)
    assert Population(MLP, [0]).engine == ("torch" if name == "torch" else "fused")
    assert Population(MLP, [0], engine="torch").engine == "torch"


def test_an_engine_that_does_not_exist_is_refused():
    with pytest.raises(
        ValueError, match=r"^`engine` must be one of auto, torch, fused, got 'fusd'\. Did you mean 'fus"
    ):
        Population(MLP, [0], engine="fusd")


def test_a_criterion_of_ones_own_runs_on_torch():
    population = Population(MLP, [0], criterion=lambda logits, y: (logits.mean(-1), logits.mean(-1)))
    assert population.engine_reason == "the criterion `<lambda>` has no kernel"


def test_a_blueprint_without_kernel_takes_its_population_to_torch(cosine):
    population = Population(MLP, range(2))
    population.germinate([1], 0, cosine, Operator.ADD, in_training=False)
    assert population.engine == "torch"
    assert population.engine_reason == "`cos` has no kernel, which 'cosine' needs"
    assert population.train(*batches(MLP, 2), np.ones((2, 2)))[0].isfinite().all()


def test_a_blueprint_without_kernel_is_refused_where_the_fused_engine_was_asked_for(cosine):
    population = Population(MLP, range(2), engine="fused")
    with pytest.raises(ValueError, match=r"^`blueprint` must be one that the fused engine knows, got 'cosine': `cos` "):
        population.germinate([1], 0, cosine, Operator.ADD)
    assert not population.snapshot().networks.has_seed.any()


def test_the_kernel_of_the_documentation_fuses_that_blueprint(cosine, monkeypatch, tmp_path):
    monkeypatch.setattr(kernels, "KERNELS", [])
    page = (Path(__file__).parents[3] / "docs" / "fused-engine.md").read_text(encoding="utf-8")
    (source,) = [block for block in page.split("```python\n") if "@kernel" in block]
    (tmp_path / "documented_cosine.py").write_text(source.split("```")[0], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(tracer.LOWERINGS, "cos", None)  # forgotten afterwards
    importlib.import_module("documented_cosine")
    pair = [Population(MLP, range(2), BARE_SGD, engine=name) for name in ("torch", "fused")]
    for population in pair:
        population.germinate([1], 0, cosine, Operator.ADD, in_training=False)
        population.train(*batches(MLP, 2), np.ones((2, 2)))
    assert_equal_states(*pair)


def test_a_snapshot_with_a_seed_without_kernel_takes_its_population_to_torch(cosine):
    source, target = Population(MLP, [0], engine="torch"), Population(MLP, [0])
    source.germinate([0], 0, cosine, Operator.ADD)
    target.restore(source.snapshot())
    assert target.engine == "torch"
