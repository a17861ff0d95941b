"""A server among difficult clients for a few seconds; `python3 tests/soak.py` takes longer."""

import os
import sys

import pytest

import soak
from programs import Program


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("RUN_LONG"), reason="takes long; RUN_LONG is not set")
@pytest.mark.skipif(sys.platform != "linux", reason="what a process uses is read from Linux' /proc")
def test_good_clients_lose_nothing_among_difficult_ones_which_leave_nothing_behind() -> None:
    trial = soak.Soak(seconds=4.0, seed=6455, settling=9.0)
    server = Program("chat_server.py", *soak.OPTIONS)
    try:
        trial.run(server)
    finally:
        server.discard()
    assert not trial.faults, trial.summary()
