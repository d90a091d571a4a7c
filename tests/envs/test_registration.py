"""The ids are registered with Gymnasium, whichever of the two packages is imported first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COUNT = "print(sum(name.startswith('Kasmina/') for name in registry))"


def printed(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "imports",
    [
        "import kasmina_env, gymnasium",
        "import gymnasium, kasmina_env",
        "import kasmina_env; from gymnasium.envs.registration import registry",
        "from kasmina_env import KasminaEnv",
    ],
)
def test_ids_are_registered_whatever_is_imported_first(imports):
    assert printed(f"{imports}; from gymnasium import registry; {COUNT}") == "7"


def test_importing_the_package_imports_neither_gymnasium_nor_numpy():
    code = "import kasmina_env, sys; print(*(name for name in ('gymnasium', 'numpy') if name in sys.modules))"
    assert printed(code) == ""


def test_an_import_of_gymnasium_that_fails_may_be_tried_again():
    code = f"""
import sys, kasmina_env
sys.modules["numpy"] = None
try:
    import gymnasium
except ImportError:
    del sys.modules["numpy"]
    [sys.modules.pop(name) for name in [*sys.modules] if name.startswith("gymnasium")]
from gymnasium import registry
{COUNT}
"""
    assert printed(code) == "7"


def test_nothing_is_left_in_the_import_system():
    code = "import sys; before = [*sys.meta_path]; import kasmina_env, gymnasium; print(sys.meta_path == before)"
    assert printed(code) == "True"
