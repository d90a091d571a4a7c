"""What is asked of the machine."""

from __future__ import annotations

import multiprocessing
import signal

import numpy as np
import pytest

from kasmina_env.settings.machine import processor_name, release_of, sheltered_children


def is_deaf() -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def say_whether_deaf(pipe) -> None:
    pipe.send(is_deaf())


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks on this system")
def test_children_do_not_hear_ctrl_c_and_their_parent_does_afterwards():
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=say_whether_deaf, args=(there,))
    with sheltered_children():
        child.start()
    assert here.recv()
    assert not is_deaf()
    child.join()
    with pytest.raises(KeyboardInterrupt), sheltered_children():
        signal.raise_signal(signal.SIGINT)


def test_the_processor_has_a_name_that_stays():
    assert len(processor_name()) > 2
    assert processor_name() == processor_name()


def test_a_package_that_is_not_installed_has_no_release():
    assert (release_of("numpy"), release_of("no-such-package")) == (np.__version__, "none")
