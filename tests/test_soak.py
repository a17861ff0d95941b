"""A server among difficult clients for a few seconds; `python3 tests/soak.py` takes longer."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

import soak
from finding import find_redis_server, require

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("RUN_LONG"), reason="takes long; RUN_LONG is not set"),
    pytest.mark.skipif(
        sys.platform != "linux", reason="what a process uses is read from Linux' /proc"
    ),
]


@pytest.mark.parametrize(
    ("history", "redis", "cert"),
    [
        pytest.param(False, False, False, id="in memory"),
        pytest.param(True, False, False, id="in a file"),
        pytest.param(False, True, False, id="on Redis", marks=pytest.mark.redis),
        pytest.param(False, False, True, id="over TLS"),
        pytest.param(True, False, True, id="in a file, over TLS"),
    ],
)
def test_good_clients_lose_nothing_among_difficult_ones_which_leave_nothing_behind(
    tmp_path: Path, history: bool, redis: bool, cert: bool
) -> None:
    if redis:
        require(find_redis_server(), "redis-server", "apt install redis-server")
        require(importlib.util.find_spec("redis"), "the redis package", "pip install redis")
    trial = soak.Soak(seconds=8.0, seed=6455, settling=9.0)
    with soak.staged(tmp_path, history=history, redis=redis, cert=cert) as scene:
        trial.run(scene)
    assert not trial.faults, trial.summary()
