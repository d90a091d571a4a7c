"""What is asked of the machine."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from kasmina_env.settings.machine import sheltered_children

BLOCKED = [sys.executable, "-c", "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"]


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks on this system")
def test_children_do_not_hear_ctrl_c_and_their_parent_does_afterwards():
    with sheltered_children():
        assert subprocess.run(BLOCKED, capture_output=True, text=True, check=True).stdout == "True\n"
    assert subprocess.run(BLOCKED, capture_output=True, text=True, check=True).stdout == "False\n"
    with pytest.raises(KeyboardInterrupt), sheltered_children():
        signal.raise_signal(signal.SIGINT)
