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
    assert printed(f"{imports}; from gymnasium import registry; {COUNT}") == "8"
