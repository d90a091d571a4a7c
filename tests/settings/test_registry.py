"""The registry: what it keeps, what it refuses, and how it words the refusal."""

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import kasmina_env.networks.blueprints
import kasmina_env.networks.hosts
import kasmina_env.tasks
from kasmina_env.settings.registry import Registry, UnknownNameError, import_members, unknown_name_message


@dataclass(frozen=True)
class Info:
    """What a test registers."""

    name: str


@pytest.fixture
def blueprints() -> Registry[Info]:
    """A registry with two names."""
    registry = Registry[Info]("blueprint")
    registry.register("depthwise", Info("depthwise"))
    registry.register("conv_light", Info("conv_light"))
    return registry


def test_registered_info_is_found_by_its_name(blueprints):
    assert blueprints.get("depthwise") == Info("depthwise")


def test_names_keep_the_order_of_registration(blueprints):
    assert list(blueprints) == ["depthwise", "conv_light"]


def test_a_registry_has_a_size_and_knows_its_members(blueprints):
    assert len(blueprints) == 2
    assert "conv_light" in blueprints
    assert "conv_heavy" not in blueprints


def test_duplicate_name_raises_and_the_first_stays(blueprints):
    with pytest.raises(ValueError, match="`blueprint` must have a new name, got 'depthwise'"):
        blueprints.register("depthwise", Info("another"))
    assert blueprints.get("depthwise") == Info("depthwise")


def test_unknown_name_error_is_a_key_error_that_reads_as_a_sentence(blueprints):
    with pytest.raises(KeyError) as caught:
        blueprints.get("depthwize")
    assert caught.type is UnknownNameError
    assert str(caught.value) == (
        "`blueprint` must be one of depthwise, conv_light, got 'depthwize'. Did you mean 'depthwise'?"
    )


def test_unknown_name_error_survives_pickling():
    error = UnknownNameError("host", "cmm", ["cnn", "mlp"])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_nearest_name_is_found_whatever_the_case():
    message = unknown_name_message("operator", "gate", ["ADD", "GATE"])
    assert message.endswith("Did you mean 'GATE'?")


def test_nothing_is_suggested_when_nothing_is_near():
    message = unknown_name_message("host", "qqq", ["cnn", "mlp"])
    assert message == "`host` must be one of cnn, mlp, got 'qqq'."


def test_a_name_that_is_no_string_is_reported_too():
    assert unknown_name_message("host", 3, ["cnn"]) == "`host` must be one of cnn, got 3."


def test_an_empty_registry_says_that_it_is_empty():
    with pytest.raises(UnknownNameError, match="None is registered yet"):
        Registry[Info]("host").get("cnn")


def test_a_file_put_into_a_package_is_imported(tmp_path, monkeypatch):
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "__init__.py").write_text("seen = []")
    for name in ("ant", "bee"):
        (tmp_path / "zoo" / f"{name}.py").write_text(f"import zoo\nzoo.seen.append({name!r})")
    monkeypatch.syspath_prepend(tmp_path)
    import zoo

    import_members(zoo.__name__, zoo.__path__)
    assert zoo.seen == ["ant", "bee"]
    for name in ("zoo", "zoo.ant", "zoo.bee"):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("package", [kasmina_env.networks.blueprints, kasmina_env.networks.hosts, kasmina_env.tasks])
def test_every_file_of_a_family_is_imported_with_it(package):
    names = {path.stem for path in Path(package.__path__[0]).glob("[!_]*.py")}
    assert names
    assert all(f"{package.__name__}.{name}" in sys.modules for name in names)
