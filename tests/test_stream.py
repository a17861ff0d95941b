"""The bytes below the frames, over loopback without a WebSocket: positions, waits, and the end."""

import contextlib
import math
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from pairs import CALM, MORE_THAN_KERNELS_BUFFER, SMALL_WINDOW, Task, reset
from peers import Peer, eventually
from protocols import some_bytes
from rfc6455 import stream as stream_module
from rfc6455.stream import TLS, Stream, Timeouts
from tls import BAD_RECORD, Certificate, Tunnel

MIB = 1 << 20  # bytes that may wait for a peer


class StreamPair:
    """A stream, and the peer on the other side of its socket."""

    def __init__(self, stream: Stream, peer: Peer, tunnel: Tunnel | None) -> None:
        self.stream = stream
        self.peer = peer
        self.tunnel = tunnel  # of the peer, over TLS
        self.tasks: list[Task] = []

    def put(self, data: bytes, *, awaited: bool = False) -> int:
        with self.stream.lock:
            return self.stream.put(data, awaited=awaited)

    def spawn(self, function: Callable[..., Any], *arguments: Any) -> Task:
        self.tasks.append(Task(function, *arguments))
        return self.tasks[-1]


@contextlib.contextmanager
def stream_pair(
    *,
    window: int | None = None,
    certificate: Certificate | None = None,
    timeouts: Timeouts = CALM,
) -> Iterator[StreamPair]:
    """`window` is about what the peer's kernel buffers, and ours for it."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        theirs = stack.enter_context(socket.socket())
        if window:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        theirs.connect(listener.getsockname())
        ours, _ = listener.accept()
        if window:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, window)
        tls = TLS(certificate.server()) if certificate else None
        made = StreamPair(Stream(ours, timeouts, tls), Peer(theirs), None)
        stack.callback(made.stream.close)
        if certificate:
            made.tunnel = Tunnel(theirs, certificate.client(), "localhost")
            shaking = made.spawn(made.stream.shake_hands)
            made.tunnel.shake_hands()
            shaking.result()
            made.peer.sock = cast(socket.socket, made.tunnel)
        yield made
    for task in made.tasks:
        task.thread.join(5)
        assert not task.running, "a call does not return"


# Putting


def test_put_returns_positions_that_rise_by_what_was_put() -> None:
    with stream_pair() as pair:
        assert pair.stream.position == 0
        positions = [pair.put(data) for data in (b"abc", b"", b"defgh", bytes(70_000))]
        assert positions == [3, 3, 8, 70_008]
        assert pair.stream.position == 70_008
        assert pair.peer.read(70_008) == b"abcdefgh" + bytes(70_000)


def test_put_over_tls_returns_positions_that_rise_by_what_was_encrypted(
    certificate: Certificate,
) -> None:
    with stream_pair(certificate=certificate) as pair:
        assert pair.tunnel
        first = pair.put(b"first")
        assert pair.peer.read(5) == b"first"
        wire = len(pair.tunnel.wire)
        second = pair.put(bytes(40_000))
        assert pair.peer.read(40_000) == bytes(40_000)
        assert second - first == len(pair.tunnel.wire) - wire > 40_000
        assert pair.stream.position == second


def test_positions_count_what_waits_in_the_backlog() -> None:
    size = MORE_THAN_KERNELS_BUFFER
    with stream_pair(window=SMALL_WINDOW) as pair:
        assert pair.put(bytes(size), awaited=True) == size
        assert pair.stream.is_draining
        assert pair.put(b"behind") == size + 6
        assert pair.stream.position == size + 6
        assert pair.peer.read(size + 6) == bytes(size) + b"behind"
        pair.stream.wait_drained()
        assert pair.stream.position == size + 6
        assert not pair.stream.is_draining


def test_what_the_kernel_does_not_take_at_once_is_sent_in_order_once_the_peer_reads() -> None:
    data = some_bytes(300_000)
    with stream_pair(window=SMALL_WINDOW) as pair:
        for at in range(0, len(data), 30_000):
            pair.put(data[at : at + 30_000])
        assert pair.stream.is_draining
        assert pair.peer.read(len(data)) == data
        pair.stream.wait_drained()
        pair.put(b"after it")
        assert pair.peer.read(8) == b"after it"


def test_put_that_the_kernel_takes_at_once_starts_no_drainer() -> None:
    with stream_pair() as pair:
        for data in (b"abc", b"", bytes(1000)):
            pair.put(data)
            assert not pair.stream.is_draining
        assert pair.peer.read(1003) == b"abc" + bytes(1000)


def test_everything_goes_through_the_backlog_where_the_kernel_can_only_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So it is on Windows, which has no MSG_DONTWAIT."""
    monkeypatch.setattr(stream_module, "DONT_WAIT", 0)
    with stream_pair() as pair:
        assert pair.stream.direct is None
        assert [pair.put(b"abc"), pair.put(b"de")] == [3, 5]
        assert pair.peer.read(5) == b"abcde"
        pair.stream.end()
        assert pair.peer.read_to_eof() == b""


def test_bytes_may_go_straight_to_the_socket_while_nothing_waits_and_nothing_has_ended() -> None:
    with stream_pair(window=SMALL_WINDOW) as pair:
        stream = pair.stream
        assert stream.direct is not None
        pair.put(bytes(MORE_THAN_KERNELS_BUFFER), awaited=True)
        assert stream.direct is None
        pair.peer.read(MORE_THAN_KERNELS_BUFFER)
        stream.wait_drained()
        assert stream.direct is not None
        stream.end()
        assert stream.direct is None
    with stream_pair() as pair:
        pair.stream.abort("enough")
        assert pair.stream.direct is None


def test_bytes_never_go_straight_to_the_socket_over_tls(certificate: Certificate) -> None:
    with stream_pair(certificate=certificate) as pair:
        assert pair.stream.direct is None


# The bound of what waits


def test_peer_for_whom_more_than_a_mebibyte_waits_is_dropped() -> None:
    with stream_pair(window=SMALL_WINDOW) as pair:
        pair.put(bytes(MORE_THAN_KERNELS_BUFFER), awaited=True)  # somebody waits: not counted
        pair.put(bytes(MIB - 1))
        pair.put(b"x")
        assert pair.stream.lost is None
        with pytest.raises(ConnectionError, match="read too slowly, 1048576 bytes wait for it"):
            pair.put(b"y")
        assert pair.stream.lost == pair.stream.failure
        eventually(lambda: not pair.stream.is_draining)


def test_single_piece_may_be_longer_than_the_bound_where_nothing_else_waits() -> None:
    with stream_pair(window=SMALL_WINDOW) as pair:
        first = pair.put(bytes(MORE_THAN_KERNELS_BUFFER), awaited=True)
        position = pair.put(bytes(MIB + 1))
        with pytest.raises(ConnectionError, match="read too slowly"):
            pair.put(b"x")
        assert position - first == MIB + 1


def test_what_the_peer_has_taken_does_not_count() -> None:
    with stream_pair(window=SMALL_WINDOW) as pair:
        for _ in range(3):
            pair.put(bytes(MORE_THAN_KERNELS_BUFFER), awaited=True)
            position = pair.put(bytes(MIB))
            assert pair.peer.read(MORE_THAN_KERNELS_BUFFER + MIB)
            pair.stream.wait_sent(position)


def test_more_than_8192_pieces_never_wait_however_small_they_are() -> None:
    with stream_pair(window=SMALL_WINDOW) as pair:
        # Two pieces that somebody waits for, which bounds them, and 8190 more.
        pair.put(bytes(MORE_THAN_KERNELS_BUFFER), awaited=True)
        pair.put(b"y", awaited=True)
        for _ in range(8190):
            pair.put(b"x")
        with pytest.raises(ConnectionError, match="read too slowly, 8190 bytes wait for it"):
            pair.put(b"z")


# Waiting until something is sent


def test_wait_sent_returns_at_once_for_what_the_kernel_has_taken() -> None:
    with stream_pair() as pair:
        position = pair.put(b"abc")
        for each in (0, position - 1, position):
            pair.spawn(pair.stream.wait_sent, each).result()


def test_wait_sent_returns_for_an_early_position_while_a_later_one_waits() -> None:
    size = MORE_THAN_KERNELS_BUFFER
    with stream_pair(window=SMALL_WINDOW) as pair:
        early = pair.put(b"abc")
        late = pair.put(bytes(size), awaited=True)
        waiting = pair.spawn(pair.stream.wait_sent, late)
        pair.spawn(pair.stream.wait_sent, early).result()
        pair.peer.read(3)
        assert pair.stream.handed < late
        assert waiting.running
        pair.peer.read(size)
        waiting.result()
        assert pair.stream.handed == late


def test_each_of_two_who_wait_is_woken_by_its_own_piece() -> None:
    with stream_pair(window=SMALL_WINDOW) as pair:
        first = pair.put(bytes(MORE_THAN_KERNELS_BUFFER), awaited=True)
        second = pair.put(bytes(MORE_THAN_KERNELS_BUFFER), awaited=True)
        waiting = [pair.spawn(pair.stream.wait_sent, position) for position in (first, second)]
        pair.peer.read(MORE_THAN_KERNELS_BUFFER)
        waiting[0].result()
        assert waiting[1].running
        pair.peer.read(MORE_THAN_KERNELS_BUFFER)
        waiting[1].result()


@pytest.mark.parametrize("end", [Peer.close, reset])
def test_wait_sent_raises_when_the_peer_goes(end: Callable[[Peer], None]) -> None:
    with stream_pair(window=SMALL_WINDOW) as pair:
        position = pair.put(bytes(MORE_THAN_KERNELS_BUFFER), awaited=True)
        waiting = pair.spawn(pair.stream.wait_sent, position)
        end(pair.peer)
        with pytest.raises(ConnectionError):
            waiting.result()
        # In the words of the system, without its number.
        assert pair.stream.failure in ("Broken pipe", "Connection reset by peer")


def test_wait_sent_raises_when_the_stream_is_aborted() -> None:
    with stream_pair(window=SMALL_WINDOW) as pair:
        position = pair.put(bytes(MORE_THAN_KERNELS_BUFFER), awaited=True)
        waiting = pair.spawn(pair.stream.wait_sent, position)
        pair.stream.abort("enough")
        with pytest.raises(ConnectionError, match="enough"):
            waiting.result()
        with pytest.raises(ConnectionError, match="enough"):
            pair.stream.wait_sent(position)
        pair.stream.wait_sent(0)  # what was sent before stays sent


def test_wait_sent_raises_when_the_deadline_passes() -> None:
    with stream_pair(window=SMALL_WINDOW) as pair:
        position = pair.put(bytes(MORE_THAN_KERNELS_BUFFER), awaited=True)
        waiting = pair.spawn(pair.stream.wait_sent, position)
        pair.stream.set_deadline(0.1, "it took too long")
        with pytest.raises(ConnectionError, match="it took too long"):
            waiting.result()


# The end


def test_end_behind_a_backlog_lets_the_peer_read_everything_and_then_eof() -> None:
    size = MORE_THAN_KERNELS_BUFFER
    with stream_pair(window=SMALL_WINDOW) as pair:
        position = pair.put(bytes(size), awaited=True)
        pair.put(b"the last")
        pair.stream.end()
        assert pair.stream.is_draining
        assert pair.peer.read(size) == bytes(size)
        assert pair.peer.read_to_eof() == b"the last"
        pair.stream.wait_sent(position)


def test_end_over_tls_behind_a_backlog_lets_the_peer_read_everything_and_then_close_notify(
    certificate: Certificate,
) -> None:
    size = MORE_THAN_KERNELS_BUFFER
    with stream_pair(window=SMALL_WINDOW, certificate=certificate) as pair:
        pair.put(bytes(size), awaited=True)
        pair.stream.end()
        assert pair.peer.read(size) == bytes(size)
        assert pair.peer.read_to_eof() == b""


def test_end_leaves_the_peer_its_own_direction() -> None:
    with stream_pair() as pair:
        pair.stream.end()
        assert pair.peer.read_to_eof() == b""
        pair.peer.send(b"still")
        assert pair.stream.read(100) == b"still"
        pair.peer.close()
        assert pair.stream.read(100) == b""


def test_put_after_the_end_raises_and_sends_nothing() -> None:
    with stream_pair() as pair:
        pair.stream.end()
        pair.stream.end()
        for data in (b"late", b""):
            with pytest.raises(ConnectionError, match="the connection is closing"):
                pair.put(data)
        assert pair.stream.position == 0
        assert pair.peer.read_to_eof() == b""


def test_put_after_an_abort_raises_with_its_reason() -> None:
    with stream_pair() as pair:
        pair.stream.abort("enough")
        pair.stream.abort("the first reason counts")
        with pytest.raises(ConnectionError, match="enough"):
            pair.put(b"late")
        assert pair.stream.lost == pair.stream.failure == "enough"
        assert pair.stream.read(100) == b""
        assert pair.peer.read_to_eof() == b""


def test_close_waits_until_the_drainer_has_let_go_of_the_socket() -> None:
    before = set(threading.enumerate())
    with stream_pair(window=SMALL_WINDOW) as pair:
        pair.put(bytes(MORE_THAN_KERNELS_BUFFER), awaited=True)
        drainers = [t for t in set(threading.enumerate()) - before if "drainer" in t.name]
        assert len(drainers) == 1
        pair.stream.close()
        assert not pair.stream.is_draining
        assert eventually(lambda: not drainers[0].is_alive())


# Reading


@pytest.mark.parametrize("has_poll", [True, False])
def test_read_returns_what_is_there_or_none_in_time_or_nothing_at_the_end(
    has_poll: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `poll`, which Windows has not, `select` waits."""
    if not has_poll:
        monkeypatch.delattr(select, "poll", raising=False)
    with stream_pair() as pair:
        assert pair.stream.read(100, 0) is None
        assert pair.stream.read(100, 0.05) is None
        assert not pair.stream.has_unread()
        pair.peer.send(b"abcdef")
        assert eventually(pair.stream.has_unread)
        assert pair.stream.read(4) == b"abcd"
        assert pair.stream.has_unread()
        assert pair.stream.read(4, 0) == b"ef"
        pair.peer.close()
        assert pair.stream.read(100) == b""
        assert pair.stream.lost is None


def test_read_raises_nothing_but_tells_the_reason_when_the_peer_resets() -> None:
    with stream_pair() as pair:
        reset(pair.peer)
        assert pair.stream.read(100) == b""
        assert pair.stream.lost == "Connection reset by peer"
        assert not pair.stream.has_unread()


def test_reader_that_waits_is_woken_when_the_stream_is_aborted() -> None:
    with stream_pair() as pair:
        reading = pair.spawn(pair.stream.read, 100)
        pair.stream.abort("enough")
        assert reading.result() == b""


def test_read_over_tls_returns_none_while_no_record_is_whole(certificate: Certificate) -> None:
    with stream_pair(certificate=certificate) as pair:
        assert pair.tunnel
        pair.tunnel.tls.write(b"slow")
        record = pair.tunnel.take_held_back()
        pair.tunnel.sock.sendall(record[:-1])
        assert eventually(pair.stream.has_unread)
        assert pair.stream.read(100, 0) is None
        assert pair.stream.read(100, 0.05) is None
        pair.tunnel.sock.sendall(record[-1:])
        assert pair.stream.read(100) == b"slow"


def test_read_over_tls_returns_what_came_before_a_bad_record_and_then_ends_without_waiting(
    certificate: Certificate,
) -> None:
    with stream_pair(certificate=certificate) as pair:
        assert pair.tunnel
        pair.tunnel.tls.write(b"good")
        pair.tunnel.sock.sendall(pair.tunnel.take_held_back() + BAD_RECORD)
        assert pair.stream.read(100) == b"good"
        assert pair.stream.lost is None
        assert pair.stream.read(100) == b""
        assert pair.stream.lost
        assert pair.stream.lost.startswith("TLS: ")  # the words after it are those of OpenSSL


def test_bad_record_is_answered_with_an_alert(certificate: Certificate) -> None:
    with stream_pair(certificate=certificate) as pair:
        assert pair.tunnel
        pair.tunnel.sock.sendall(BAD_RECORD)
        assert pair.stream.read(100) == b""
        assert pair.stream.lost
        assert pair.stream.lost.startswith("TLS: ")
        with pytest.raises(ssl.SSLError, match="ALERT_BAD_RECORD_MAC"):
            pair.tunnel.recv(100)


class LockedOnly:
    """Stands for OpenSSL's object of a connection, and may be called only under the lock."""

    def __init__(self, tls: TLS) -> None:
        self._tls = tls
        self._object = tls._object
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Any:
        assert self._tls._lock.locked(), f"{name} is called without the lock"
        self.called.append(name)
        return getattr(self._object, name)


def test_openssl_is_never_called_by_two_threads_at_once(certificate: Certificate) -> None:
    with stream_pair(certificate=certificate) as pair:
        assert pair.stream._tls
        guard = LockedOnly(pair.stream._tls)
        pair.stream._tls._object = cast(ssl.SSLObject, guard)
        pair.stream.send(b"hello")
        assert pair.peer.read(5) == b"hello"
        pair.peer.send(b"hello")
        assert pair.stream.read(100) == b"hello"
        pair.stream.end()
    assert set(guard.called) == {"write", "read", "unwrap"}


def test_decrypt_returns_what_came_before_a_bad_record_and_raises_at_the_next_call(
    certificate: Certificate,
) -> None:
    with stream_pair(certificate=certificate) as pair:
        assert pair.tunnel and pair.stream._tls
        pair.tunnel.tls.write(b"one")
        pair.tunnel.tls.write(b"two")
        records = pair.tunnel.take_held_back()
        assert pair.stream._tls.decrypt(records + BAD_RECORD) == b"onetwo"
        for data in (b"", b"more"):
            with pytest.raises(ssl.SSLError, match=r"^TLS: "):
                pair.stream._tls.decrypt(data)


def test_read_over_tls_waits_until_the_record_is_whole(certificate: Certificate) -> None:
    with stream_pair(certificate=certificate) as pair:
        assert pair.tunnel
        pair.tunnel.tls.write(b"slow")
        record = pair.tunnel.take_held_back()
        pair.tunnel.sock.sendall(record[:-1])
        assert eventually(pair.stream.has_unread)
        reading = pair.spawn(pair.stream.read, 100)
        assert eventually(lambda: not pair.stream.has_unread())
        assert reading.running
        pair.tunnel.sock.sendall(record[-1:])
        assert reading.result() == b"slow"


def test_when_the_peer_was_last_heard_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    with stream_pair() as pair:
        checked = Checked(pair, monkeypatch)
        checked.start += 1000.0
        pair.peer.send(b"abc")
        assert pair.stream.read(100) == b"abc"
        assert pair.stream.heard_at == checked.start
        checked.start += 1000.0
        assert pair.stream.read(100, 0) is None
        pair.peer.close()
        assert pair.stream.read(100) == b""
        assert pair.stream.heard_at == checked.start - 1000.0  # FIN says nothing


# Deadlines: what the clock finds when it checks, at times that the test makes up


class Checked:
    """A stream that is checked by the test, and the bytes that its peer has acknowledged.

    The time stands still for the stream, and its deadlines are so far away that the clock itself
    does not check it.
    """

    def __init__(self, pair: StreamPair, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream = pair.stream
        self.start = float(int(time.monotonic()))
        self.taken = 0
        monkeypatch.setattr(stream_module, "_not_taken", lambda _: pair.stream.handed - self.taken)
        monkeypatch.setattr(stream_module, "time", self)

    def monotonic(self) -> float:
        """In place of `time.monotonic` for the stream."""
        return self.start

    def check(self, after: float) -> float:
        """Look so many seconds after the start; after how many the next check is asked for."""
        return self.stream.check(self.start + after) - self.start


def test_stream_without_a_deadline_asks_for_no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    with stream_pair() as pair:
        checked = Checked(pair, monkeypatch)
        assert checked.check(5.0) == math.inf
        pair.stream.watch(lambda now: now + 7.0)
        assert checked.check(5.0) == 12.0


def test_deadline_passes_at_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with stream_pair() as pair:
        checked = Checked(pair, monkeypatch)
        pair.stream.set_deadline(5000.0, "another takes its place")
        pair.stream.set_deadline(1000.0, "it took too long")
        assert checked.check(1.0) == 1000.0
        assert checked.check(999.0) == 1000.0
        assert pair.stream.lost is None
        assert checked.check(1000.0) == math.inf
        assert pair.stream.lost == "it took too long"
        assert checked.check(1001.0) == math.inf
        assert pair.peer.read_to_eof() == b""


def test_patient_deadline_moves_while_the_peer_takes_what_was_put_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It moves by 100 s at most, in which the slowest peer takes the 1,638,400 bytes."""
    with stream_pair(window=SMALL_WINDOW) as pair:
        checked = Checked(pair, monkeypatch)
        pair.put(bytes(100 * 16384), awaited=True)
        pair.stream.timeouts = CALM._replace(write_timeout=math.inf)
        pair.stream.set_deadline(1000.0, "it took too long", patient=True)
        assert checked.check(400.0) == 650.0  # a quarter of the time later
        checked.taken = 1
        assert checked.check(500.0) == 750.0
        assert checked.check(1000.0) == 1100.0
        checked.taken = 2
        assert checked.check(1099.0) == 1100.0
        checked.taken = 3
        assert checked.check(1100.0) == math.inf
        assert pair.stream.lost == "it took too long"


def test_patient_deadline_passes_at_its_time_where_the_peer_takes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stream_pair(window=SMALL_WINDOW) as pair:
        checked = Checked(pair, monkeypatch)
        pair.put(bytes(100 * 16384), awaited=True)
        pair.stream.timeouts = CALM._replace(write_timeout=math.inf)
        checked.taken = 1  # before the deadline is set: it does not count
        pair.stream.set_deadline(1000.0, "it took too long", patient=True)
        assert checked.check(999.0) == 1000.0
        assert checked.check(1000.0) == math.inf
        assert pair.stream.lost == "it took too long"


def test_peer_that_takes_nothing_for_the_write_timeout_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stream_pair(window=SMALL_WINDOW) as pair:
        checked = Checked(pair, monkeypatch)
        assert checked.check(0.0) == math.inf
        pair.put(bytes(MORE_THAN_KERNELS_BUFFER), awaited=True)  # the write timeout is 60 s
        assert checked.check(1.0) == 8.5  # an eighth of it later
        assert checked.check(55.0) == 60.0
        checked.taken = 1
        assert checked.check(59.0) == 66.5
        assert checked.check(118.0) == 119.0
        assert pair.stream.lost is None
        assert checked.check(119.0) == math.inf
        assert pair.stream.lost == "took nothing for 60 s"


def test_send_that_waits_does_not_count_as_what_waits_for_a_peer() -> None:
    with stream_pair(window=SMALL_WINDOW) as pair:
        sending = pair.spawn(pair.stream.send, bytes(MORE_THAN_KERNELS_BUFFER))
        eventually(lambda: pair.stream.is_draining)
        pair.put(bytes(MIB))
        also_sending = pair.spawn(pair.stream.send, b"the last")
        eventually(lambda: pair.stream.position > MORE_THAN_KERNELS_BUFFER + MIB)
        pair.peer.read(MORE_THAN_KERNELS_BUFFER + MIB)
        sending.result()
        also_sending.result()
        assert pair.peer.read(8) == b"the last"
