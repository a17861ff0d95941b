"""Attacks on a running chat: a good client goes on talking, and nothing is left behind.

Each attack is made twice. The first time fills what the server keeps for later use. After the
second the server must have no more threads and open files than before it, and at most a tenth more
memory.
"""

import contextlib
import json
import os
import queue
import random
import resource
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator

import pytest

from chatting import hear_said, leave, say
from pairs import reset
from peers import PATIENCE, Peer, eventually, masked, request, shake_hands, tcp
from programs import Program, Use, running
from rfc6455 import connect

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="what a process uses is read from /proc"),
]

LONG = bool(os.environ.get("RUN_LONG"))
MORE_MEMORY = 1.1  # times what it was before the attack
OPTIONS = ("--rate", "0", "--keep", "100", "--max-clients", "600")

Attack = Callable[[Program], None]
ATTACKS: list[Attack] = []


def attack(function: Attack) -> Attack:
    ATTACKS.append(function)
    return function


@attack
def handshakes_that_stop_half_way(server: Program) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            peer = stack.enter_context(tcp(server))
            peer.send(request(server, "/ws")[:40])


@attack
def resets_at_every_point_of_handshake_message_and_close(server: Program) -> None:
    head = request(server, "/ws")
    text = masked(0x81, b'{"username": "Ada", "message": "hello"}')
    whole = head + text + masked(0x88, b"\x03\xe8")
    for cut in range(len(whole)):
        peer = tcp(server)
        peer.send(whole[:cut])
        if cut % 2 and cut > len(head):  # otherwise it vanishes before it is answered
            peer.read_head()
        reset(peer)


@attack
def lengths_that_lie(server: Program) -> None:
    for size in (65_537, 1 << 40, (1 << 63) - 1, (1 << 64) - 1):
        with shake_hands(server, "/ws") as peer:
            peer.send(b"\x81\xff" + size.to_bytes(8, "big") + b"mask" + b"short")
            first, payload = peer.read_frame()
            assert (first, payload[:2]) in ((0x88, b"\x03\xf1"), (0x88, b"\x03\xea"))
    for _ in range(50):
        with shake_hands(server, "/ws") as peer:
            peer.send(b"\x81\xfe\xff\xff" + b"mask" + b"{")


@attack
def bytes_at_random(server: Program) -> None:
    dice = random.Random(6455)
    for number in range(200):
        with shake_hands(server, "/ws") if number % 2 else tcp(server) as peer:
            with contextlib.suppress(ConnectionError):
                for _ in range(5):
                    peer.send(dice.randbytes(dice.randrange(1, 3000)))


@attack
def fragments_without_end(server: Program) -> None:
    for _ in range(3):
        with shake_hands(server, "/ws") as peer, contextlib.suppress(ConnectionError):
            peer.send(masked(0x01))
            for _ in range(100):
                peer.send(masked(0x00) * 1000)


@attack
def control_frames_without_end(server: Program) -> None:
    for frame in (masked(0x89, b"p" * 125), masked(0x8A, b"p")):
        with shake_hands(server, "/ws") as peer, contextlib.suppress(OSError):
            peer.sock.settimeout(0.5)
            for _ in range(100):
                peer.send(frame * 500)


@attack
def clients_that_come_and_go(server: Program) -> None:
    """500 at the same time; for a minute in a long run."""
    end = time.monotonic() + (60.0 if LONG else 1.0)
    while True:
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(shake_hands(server, "/ws")) for _ in range(500)]
            for peer in peers[::2]:
                peer.send(masked(0x88, b"\x03\xe8"))
        if time.monotonic() > end:
            return
        eventually(lambda: server.use.threads < 100)


@attack
def clients_that_never_read(server: Program) -> None:
    """What is said to them fills their backlogs, of a MiB each, until they are dropped."""
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(server.address)
            peer = stack.enter_context(Peer(sock))
            peer.send(request(server, "/ws"))
        with shake_hands(server, "/ws") as ada:
            for _ in range(200):
                say(ada, "x" * 60_000)
                assert len(hear_said(ada)["message"]) == 60_000


@pytest.mark.parametrize("make", ATTACKS, ids=lambda attack: attack.__name__)
def test_chat_survives(make: Attack) -> None:
    assert_survived(make)


def assert_survived(make: Attack, *options: str) -> None:
    """The chat with these options goes on after each of two attacks, and nothing is left behind."""
    with running("chat_server.py", *OPTIONS, *options) as server, Talker(server) as good:
        make(server)
        assert_goes_on(server, good)
        before = settled(server)
        make(server)
        assert_goes_on(server, good)
        assert_nothing_is_left(server, before)


def test_compression_bombs_are_refused_and_leave_nothing() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(bytes(64 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    offer = {"Sec_WebSocket_Extensions": "permessage-deflate"}

    def make(server: Program) -> None:
        for _ in range(8):
            with shake_hands(server, "/ws", **offer) as peer:
                peer.send(masked(0xC1, bomb[:65_000].removesuffix(b"\x00\x00\xff\xff")))
                assert peer.read_close()[0] == 1009

    assert_survived(make, "--deflate")


def test_server_that_runs_out_of_files_serves_again_when_there_are_some() -> None:
    with running("chat_server.py", *OPTIONS) as server, Talker(server) as good:
        before = settled(server)
        limit = before.files + 20
        hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (limit, hard))
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(tcp(server)) for _ in range(60)]
            for peer in peers:
                peer.send(request(server, "/ws"))
            good.talk()
        assert_goes_on(server, good)
        assert_nothing_is_left(server, before)


def test_senders_are_refused_in_words_while_the_disk_is_full_and_the_chat_goes_on(
    tmp_path: os.PathLike[str],
) -> None:
    """A limit to the size of files has the same effect on SQLite as a disk that is full."""
    history = os.path.join(tmp_path, "history")
    with running("chat_server.py", *OPTIONS, "--history", history) as server:
        with server.join() as good:
            say(good, "kept")
            assert hear_said(good)["message"] == "kept"
            limits = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (40_000, limits[1]))
            code, reason = fill(server)
            assert code == 1011
            assert "could not be saved" in reason
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)
        with server.join() as later:
            say(later, "kept again")
            assert hear_said(later)["message"] == "kept again"


def fill(server: Program) -> tuple[int | None, str]:
    """Talk until the server can save no more; the code and the reason of its Close."""
    with server.join() as talker:
        for _ in range(100):
            say(talker, "x" * 5000)
            frame = talker.read_frame()
            if frame.first == 0x88:
                return int.from_bytes(frame.payload[:2], "big"), frame.payload[2:].decode()
    raise AssertionError("everything was saved")


def test_server_ends_in_time_while_it_is_under_attack() -> None:
    with attackers() as begin, running("chat_server.py", *OPTIONS) as server:
        begin(server)  # at its end, `running` checks the time, the exit status and the log


@contextlib.contextmanager
def attackers() -> Iterator[Callable[[Program], None]]:
    """Fifty that flood, fifty that do not read, fifty in the middle of a handshake."""
    with contextlib.ExitStack() as stack:

        def begin(server: Program) -> None:
            for _ in range(50):
                flooding = stack.enter_context(shake_hands(server, "/ws"))
                flooding.sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    flooding.send(masked(0x81, b'{"message": "flood"}') * 1000)
                stack.enter_context(shake_hands(server, "/ws"))
                stack.enter_context(tcp(server)).send(request(server, "/ws")[:40])

        yield begin


class Talker:
    """A good client, which listens all the time, in a thread of its own."""

    def __init__(self, server: Program) -> None:
        self._websocket = connect(f"{server.ws_url}/ws?since=0")
        self._heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        for text in self._websocket:
            message = json.loads(text)
            if message.get("username") == "good":
                self._heard.put(message["message"])

    def hear(self, message: str) -> None:
        """Wait for this message of a good client, which must be the next one."""
        assert self._heard.get(timeout=PATIENCE) == message

    def talk(self) -> str:
        """Say something and hear it; what it was."""
        message = f"hello {time.monotonic()}"
        self._websocket.send(json.dumps({"username": "good", "message": message}))
        self.hear(message)
        return message

    def __enter__(self) -> "Talker":
        return self

    def __exit__(self, *_: object) -> None:
        self._websocket.close()
        self._thread.join()
        assert self._websocket.close_code == 1000, self._websocket.close_reason


def assert_goes_on(server: Program, good: Talker) -> None:
    """The good client is heard, by itself and by a new one."""
    with server.join() as new:
        message = good.talk()
        while hear_said(new).get("message") != message:
            pass
        leave(new)


def settled(server: Program) -> Use:
    """What the server uses when the connections of the attack have ended."""
    eventually(lambda: server.use.files < 16 and server.use.threads < 16, 2 * PATIENCE)
    return server.use


def assert_nothing_is_left(server: Program, before: Use) -> None:
    def is_as_before() -> bool:
        use = server.use
        return use.threads <= before.threads and use.files <= before.files

    eventually(is_as_before, 2 * PATIENCE)
    assert server.use.memory <= MORE_MEMORY * before.memory, f"{before}; {server.use}"
    assert "Traceback" not in server.log
