"""The harness of the fuzz: whose fault something is, and that a run goes on to its end."""

import errno
import logging
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fuzzing.batches import Passed, check_batch
from fuzzing.checks import check_stream
from fuzzing.command import exit_status
from fuzzing.faults import HarnessFault, Hung
from fuzzing.generator import PLAIN_RESPONSE, head_of
from fuzzing.network import Answerer, Network, converse
from fuzzing.ours import read_stream
from fuzzing.outcomes import OPEN, End, Event, Input, Outcome
from fuzzing.strangers import STRANGERS, explain_difference
from fuzzing.tally import Tally
from peers import KEY, PATIENCE, Peer
from programs import ROOT

REQUEST = f"GET / HTTP/1.1\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()
RESPONSE = head_of(PLAIN_RESPONSE)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER's value: closing sends RST instead of FIN


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


# Strangers


@pytest.mark.parametrize("who", STRANGERS)
@pytest.mark.parametrize(
    "theirs",
    [
        Outcome([], OPEN),
        Outcome([Event("text", "Ho")], OPEN),
        Outcome([], End("failed", 1002)),
    ],
)
def test_difference_for_which_no_reason_is_known_is_a_failure(who: str, theirs: Outcome) -> None:
    ours = read_stream("client", None, [b"\x81\x02Hi"])
    assert ours.outcome == Outcome([Event("text", "Hi")], OPEN)
    with pytest.raises(AssertionError, match=f"{who} differs for no known reason"):
        explain_difference(who, ours, theirs)


@pytest.mark.parametrize("who", STRANGERS)
def test_stranger_that_raises_is_a_fault_of_the_harness(
    who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(role: str, agreed: object, pieces: Sequence[bytes]) -> Outcome:
        raise IndexError("a mistake of the stranger's")

    monkeypatch.setitem(STRANGERS, who, crash)
    with pytest.raises(HarnessFault, match=f"^{who} raised IndexError$"):
        check_stream(Input("client", None, [b"\x81\x02Hi"]), [who])


# Connections that are gone


def connected() -> tuple[Peer, socket.socket]:
    """A peer of the harness's, and the other end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other_end = socket.create_connection(listener.getsockname(), PATIENCE)
        sock, _ = listener.accept()
    return Peer(sock), other_end


def reset_from_afar(peer: Peer, other_end: socket.socket) -> None:
    """Reset the connection at its other end, and wait until that has reached the peer."""
    other_end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    other_end.close()
    poll = select.poll()
    poll.register(peer.sock, select.POLLERR | select.POLLHUP)
    assert poll.poll(PATIENCE * 1000)


class LosingPeer(Peer):
    """Its connection is reset by the other end right before or after one of its calls."""

    def __init__(self, peer: Peer, other_end: socket.socket, moment: str) -> None:
        super().__init__(peer.sock)
        self._other_end = other_end
        self._moment = moment

    def send(self, data: bytes) -> None:
        if self._moment == "before it sends":
            reset_from_afar(self, self._other_end)
        super().send(data)
        if self._moment == "before it ends TCP":
            reset_from_afar(self, self._other_end)

    def read_to_eof(self) -> bytes:
        if self._moment == "before it reads":
            reset_from_afar(self, self._other_end)
        return super().read_to_eof()


MOMENTS = ["before it sends", "before it ends TCP", "before it reads"]


@pytest.fixture(params=MOMENTS)
def losing_peer(request: pytest.FixtureRequest) -> Iterator[LosingPeer]:
    peer, other_end = connected()
    with peer, other_end:
        other_end.sendall(REQUEST)
        yield LosingPeer(peer, other_end, request.param)


def test_answer_to_a_client_that_resets_the_connection_ends_and_tells(
    losing_peer: LosingPeer,
) -> None:
    answerer = Answerer(RESPONSE, b"")
    answerer.answer(losing_peer)
    assert isinstance(answerer.lost, OSError)


def test_server_that_resets_the_connection_has_done_wrong(losing_peer: LosingPeer) -> None:
    with pytest.raises(AssertionError, match="our server reset the connection"):
        converse(losing_peer, [b"a"], then_end=True)


# Our client's place taken by one that resets the connection


def reset_after_the_answer(url: str) -> None:
    """Read the whole answer, and its FIN, so that only the reset is left to be noticed."""
    port = int(url.removesuffix("/").rpartition(":")[2])
    with Peer(socket.create_connection(("127.0.0.1", port), PATIENCE)) as peer:
        peer.send(REQUEST)
        peer.read_to_eof()
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


def test_client_that_agreed_may_not_reset_the_connection(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def agree_and_reset(url: str) -> bool:
        reset_after_the_answer(url)
        return True

    monkeypatch.setattr("fuzzing.network.use_client", agree_and_reset)
    with pytest.raises(AssertionError, match="our client reset the connection"):
        network.check_client(RESPONSE, b"")


def test_client_that_refused_may_reset_the_connection(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_and_reset(url: str) -> bool:
        reset_after_the_answer(url)
        return False

    monkeypatch.setattr("fuzzing.network.use_client", refuse_and_reset)
    network.check_client(RESPONSE, b"")


def test_client_that_no_server_of_the_harness_has_accepted_is_not_checked(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never_connect(url: str) -> bool:
        raise TimeoutError("nobody accepts")

    monkeypatch.setattr("fuzzing.network.use_client", never_connect)
    with pytest.raises(HarnessFault, match="accepted no connection"):
        network.check_client(RESPONSE, b"")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EADDRNOTAVAIL])
def test_input_for_which_the_system_has_no_socket_is_not_checked(
    network: Network, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "none is left")

    monkeypatch.setattr("fuzzing.network.tcp", fail)
    monkeypatch.setattr("fuzzing.network.shake_hands", fail)
    monkeypatch.setattr("fuzzing.network.use_client", fail)
    with pytest.raises(HarnessFault, match="none is left"):
        network.check_bytes(b"")
    with pytest.raises(HarnessFault, match="none is left"):
        network.check_stream(Input("server", None, [b""]))
    with pytest.raises(HarnessFault, match="none is left"):
        network.check_client(RESPONSE, b"")


# A run


def test_batch_goes_on_after_faults_of_ours_and_of_the_harness() -> None:
    def check(number: int, network: Network) -> Passed:
        if number == 4:
            raise HarnessFault("wsproto raised IndexError")
        if number == 5:
            raise OSError(errno.ENOTCONN, "nobody foresaw this")
        if number == 6:
            raise Hung("not done")
        return Passed("inputs", ["a known reason"])

    tally = check_batch(range(3, 9), check)
    assert tally.passed == {"inputs": 3}
    assert tally.differences == {"a known reason": 3}
    assert tally.unchecked == {"wsproto raised IndexError": 1}
    assert (tally.failed, tally.hung) == (1, 1)
    assert "python3 tests/test_fuzz.py 1 --first 4\n" in tally.unchecked_reports[0]
    assert "python3 tests/test_fuzz.py 1 --first 5\n" in tally.failure_reports[0]
    assert "nobody foresaw this" in tally.failure_reports[0]
    assert "python3 tests/test_fuzz.py 1 --first 6\n" in tally.failure_reports[1]
    assert tally.leaks == []
    assert tally.inputs == 6


def test_batch_for_which_the_system_has_no_server_is_not_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "none is left")

    monkeypatch.setattr("fuzzing.network.serving", fail)
    tally = check_batch(range(5))
    assert tally.unchecked == {"the system: none is left": 5}
    assert tally.inputs == 5
    assert (tally.leaks, tally.failure_reports) == ([], [])


def test_error_that_is_logged_after_the_last_input_is_found() -> None:
    def check(number: int, network: Network) -> Passed:
        logging.getLogger("rfc6455").error("nobody foresaw this")
        return Passed("inputs", [])

    (leak,) = check_batch(range(2), check).leaks
    assert leak.startswith("Inputs 0 to 1, when the network was closed: ")
    assert "nobody foresaw this" in leak


def test_thread_that_outlives_its_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzzing.batches.LEFT_AFTER", 0.05)
    may_end = threading.Event()
    thread = threading.Thread(target=may_end.wait, name="left behind")

    def check(number: int, network: Network) -> Passed:
        thread.start()
        return Passed("inputs", [])

    try:
        leaks = check_batch(range(1), check).leaks
    finally:
        may_end.set()
        thread.join()
    assert "left behind" in leaks[0]


@pytest.mark.parametrize(
    ("total", "status"),
    [
        (Tally(passed=Counter(inputs=1)), 0),
        (Tally(hung=1), 1),
        (Tally(failed=1), 1),
        (Tally(leaks=["a thread"]), 1),
        (Tally(passed=Counter(inputs=999), unchecked=Counter(wsproto=1)), 0),
        (Tally(passed=Counter(inputs=998), unchecked=Counter(wsproto=1)), 3),
        (Tally(failed=1, unchecked=Counter(wsproto=1)), 1),
    ],
)
def test_exit_status_tells_faults_of_ours_from_a_harness_that_fails_too_often(
    total: Tally, status: int
) -> None:
    assert exit_status(total) == status


def test_command_counts_what_it_ran() -> None:
    command = [sys.executable, "tests/test_fuzz.py", "100", "--first", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("100 inputs, numbers 7 to 106, in ")
    assert "\n0 hung, 0 differed or raised what nobody foresaw, 0 threads" in done.stdout
    assert done.stdout.endswith(" leaked, 0 not checked\n")


# Its inputs do all that may go wrong; the checks of 2 and 4 fail, and 5, 6 and 8 spoil the process.
WRONG = """
import os, signal, sys, threading
from fuzzing import command
from fuzzing.batches import Passed
from fuzzing.faults import HarnessFault

def check(number, network):
    if number == 2:
        raise HarnessFault("the generator raised IndexError")
    if number == 4:
        raise AssertionError("ours differs")
    if number == 5:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        threading.Event().wait()
    if number == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 8:
        signal.setitimer(signal.ITIMER_REAL, 0)
        threading.Event().wait()
    return Passed("inputs", [])

if __name__ == "__main__":
    command.BATCH_WITHIN = 4.0
    sys.exit(command.run(range(10), check))
"""


def test_run_goes_on_to_its_end_over_inputs_that_fail_hang_or_end_the_process(
    tmp_path: Path,
) -> None:
    script = tmp_path / "wrong.py"
    script.write_text(WRONG, encoding="utf-8")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("10 inputs, numbers 0 to 9, in ")
    assert lines[1:] == [
        "          5 inputs",
        "Strangers differed, as is known of them:",
        "Not checked, because the harness failed:",
        "          1 the generator raised IndexError",
        "2 hung, 2 differed or raised what nobody foresaw,"
        " 0 threads, sockets or descriptors leaked, 1 not checked",
    ]
    for number in (2, 4, 5, 6, 8):
        assert f"python3 tests/test_fuzz.py 1 --first {number}\n" in done.stderr
    assert "its process died with exit status -9" in done.stderr
