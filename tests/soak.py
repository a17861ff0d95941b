"""Leaves a chat server alone with difficult clients: `python3 tests/soak.py [--minutes 10]`.

The server keeps its messages in memory, or with `--history` in a file, or with `--redis` on a
redis-server of its own. With `--cert` all clients speak TLS, and further difficult ones break it.

A few good clients talk and listen all the time. Around them others come and go, flood the chat,
stop reading, send half a handshake, break rules and vanish, in random order. The same goes on for a
while before the measuring begins, until everything that the server keeps has its final size.

At the end every good client must have heard every message of all good clients, in the order of
their sender, once, on one connection. With the same good clients as before, and nobody else, the
server must have no more threads and open files than before, and at most a tenth more memory. Its
log must have no traceback. The files of a history must be no larger than MOST_DISK. Exit status 1
if something of that is not so.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import random
import secrets
import signal
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from finding import find_openssl, find_redis_server  # noqa: E402  # not installed
from pairs import reset  # noqa: E402
from peers import Peer, eventually, masked, request, tcp  # noqa: E402
from programs import Program, Use  # noqa: E402
from redis_server import Redis  # noqa: E402
from rfc6455 import CloseCode, WebSocket, connect  # noqa: E402
from tls import (  # noqa: E402
    BAD_RECORD,
    Certificate,
    Tunnel,
    make_certificate,
    through,
    tunnel_to,
)

GOOD = 4  # clients that talk and listen
DIFFICULT = 16  # clients that are something else, at the same time
PAUSE = 0.25  # seconds, at most, between two messages of a good client
WARMING = 4.0  # seconds, at least, before the measuring begins
STALL = 75.0  # seconds, at most; a client that takes nothing is dropped after 60
SETTLING = 90.0  # seconds for the server to get rid of clients that have gone or do not read
MORE_MEMORY = 1.1  # times what it was before the measuring began
CROWD = 100  # clients that resume at once, so that the server has all connections to Redis
REDIS_CONNECTIONS = 65  # that a server has at most
MOST_DISK = 16_000_000  # bytes; --keep 300 leaves some 1 MB, and SQLite's FILE-wal some 4 MB
SAMPLE = 5.0  # seconds between two measurements of the process
stopped = threading.Event()  # set when the difficult clients have to leave
OPTIONS = ("--rate", "20", "--keep", "300", "--max-clients", "500")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of measuring (%(default)g)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--history", action="store_true", help="keep the messages in a file")
    parser.add_argument("--redis", action="store_true", help="keep them on a redis-server")
    parser.add_argument("--cert", action="store_true", help="speak TLS")
    options = parser.parse_args()
    _check(parser, options)
    soak = Soak(60 * options.minutes, options.seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        staged(
            Path(folder), history=options.history, redis=options.redis, cert=options.cert
        ) as scene,
    ):
        soak.run(scene)
    print(soak.summary())
    return 1 if soak.faults else 0


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """If an option is wrong, or needs what is not installed, exit with a line that says so."""
    if not 0 < options.minutes <= 24 * 60:
        parser.error("the soak takes from 0 to 1440 minutes")
    if not sys.platform.startswith("linux"):
        parser.error("what the process uses is read from Linux' /proc")
    if options.history and options.redis:
        parser.error("--history and --redis cannot be used together: there is one history")
    if options.redis and not (find_redis_server() and importlib.util.find_spec("redis")):
        parser.error("--redis needs redis-server, and pip install redis")
    if options.cert and not find_openssl():
        parser.error("--cert needs openssl, which makes the certificate")


# The server


class Scene(NamedTuple):
    """The server, and what its clients and the examiner have to know of it."""

    server: Program
    certificate: Certificate | None  # with one everybody speaks TLS
    disk: Path | None  # the folder of the history's files, if it has any
    redis: Redis | None

    def tcp(self) -> Peer:
        """A TCP connection, on which nothing was sent."""
        return tcp(self.server)

    def connect(self) -> Peer:
        """A connection for HTTP: TCP, or with a certificate TLS, its handshake done."""
        if self.certificate:
            return through(tunnel_to(self.server, self.certificate))
        return self.tcp()

    def open(self) -> WebSocket:
        """A WebSocket of a good client, which gets events, too."""
        context = self.certificate.client() if self.certificate else None
        return connect(f"{self.server.ws_url}/ws?since=0", ssl_context=context)

    def reach_most_connections_to_redis(self) -> None:
        """Let the server open as many connections to Redis as it ever has, for it keeps them.

        While Redis stands still, each client that resumes waits with one. Otherwise it would depend
        on chance how many there are when the measuring begins.
        """
        redis = self.redis
        if not redis:
            return
        with contextlib.ExitStack() as stack:
            redis.process.send_signal(signal.SIGSTOP)
            stack.callback(redis.process.send_signal, signal.SIGCONT)
            for _ in range(CROWD):
                peer = stack.enter_context(self.connect())
                peer.send(request(self.server, "/ws?since=0"))
            eventually(lambda: connections_to(redis.port) >= REDIS_CONNECTIONS)

    def bytes_on_disk(self) -> int:
        """How large the files of the history are."""
        return sum(path.stat().st_size for path in self.disk.iterdir()) if self.disk else 0


@contextlib.contextmanager
def staged(
    folder: Path, *, history: bool = False, redis: bool = False, cert: bool = False
) -> Iterator[Scene]:
    """Start a server, and the Redis that it needs; all their files are in this folder."""
    options = list(OPTIONS)
    certificate = None
    disk = None
    with contextlib.ExitStack() as stack:
        if history:
            disk = folder / "history"
            disk.mkdir()
            options += ["--history", str(disk / "chat.db")]
        running = Redis(folder / "redis") if redis else None
        if running:
            stack.callback(running.kill)
            options += ["--redis", running.url]
        if cert:
            certificate = make_certificate(folder)
            options += certificate.options
        server = Program("chat_server.py", *options)
        stack.callback(server.discard)
        yield Scene(server, certificate, disk, running)


def connections_to(port: int) -> int:
    """How many TCP connections to this port of this machine there are."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    established = [line.split() for line in lines if line.split()[3] == "01"]
    return sum(fields[2].endswith(f":{port:04X}") for fields in established)


# Good clients


@dataclass
class Good:
    """Says numbered messages, and notes the numbers of all that it hears, by their senders."""

    name: str
    websocket: WebSocket
    said: int = 0
    heard: dict[str, list[int]] = field(default_factory=dict)
    slowest: float = 0.0  # seconds from saying to hearing one of its own
    _said_at: dict[int, float] = field(default_factory=dict)

    def talk(self, stopped: threading.Event, dice: random.Random) -> None:
        while not stopped.wait(dice.uniform(0, PAUSE)):
            self._said_at[self.said] = time.monotonic()
            self.websocket.send(json.dumps({"username": self.name, "message": f"{self.said}"}))
            self.said += 1

    def listen(self) -> None:
        for text in self.websocket:
            message = json.loads(text)
            if message.get("event") == "gap":
                raise AssertionError(f"{self.name} was told of a gap")
            if message.get("username", "").startswith("good "):
                self._note(message["username"], int(message["message"]))

    def _note(self, sender: str, number: int) -> None:
        self.heard.setdefault(sender, []).append(number)
        if sender == self.name:
            took = time.monotonic() - self._said_at.pop(number)
            self.slowest = max(self.slowest, took)


# Difficult clients. Each of these functions is the life of one, on a new connection. It may end at
# any point with an OSError or EOFError: the server refuses it, or drops it.


def come_and_go(peer: Peer, server: Program, dice: random.Random) -> None:
    enter(peer, server, dice)
    for number in range(dice.randrange(4)):
        peer.send(text(f"passing by {number}"))
    peer.send(masked(0x88, b"\x03\xe8"))
    peer.read_to_eof()


def flood(peer: Peer, server: Program, dice: random.Random) -> None:
    """Sends faster than --rate allows, and reads nothing meanwhile."""
    enter(peer, server, dice)
    peer.sock.settimeout(dice.uniform(0.1, 3.0))
    message = text("flood " * dice.randrange(1, 400))
    for _ in range(150):
        peer.send(message)


def stall(peer: Peer, server: Program, dice: random.Random) -> None:
    """Joins, and reads nothing any more."""
    enter(peer, server, dice)
    stopped.wait(dice.uniform(1.0, STALL))


def break_a_rule(peer: Peer, server: Program, dice: random.Random) -> None:
    enter(peer, server, dice)
    peer.send(dice.choice(BROKEN))
    peer.read_to_eof()


def send_noise(peer: Peer, server: Program, dice: random.Random) -> None:
    if dice.random() < 0.5:
        enter(peer, server, dice)
    for _ in range(dice.randrange(1, 20)):
        peer.send(dice.randbytes(dice.randrange(1, 2000)))
    peer.read_to_eof()


def trickle(peer: Peer, server: Program, dice: random.Random) -> None:
    """Sends its handshake byte by byte, and gives up somewhere."""
    head = request(server, "/ws")
    for at in range(dice.randrange(len(head))):
        peer.send(head[at : at + 1])
        stopped.wait(0.005)


def ping_on(peer: Peer, server: Program, dice: random.Random) -> None:
    """Sends pings without end, and does not read the pongs."""
    enter(peer, server, dice)
    peer.sock.settimeout(dice.uniform(0.1, 2.0))
    pings = masked(0x89, b"p" * 125) * 50
    for _ in range(200):
        peer.send(pings)


def fetch(peer: Peer, server: Program, dice: random.Random) -> None:
    """Fetches a file, or what is none, and may leave in the middle."""
    path = dice.choice(["/", "/chat.js", "/nowhere", "/../chat_server.py"])
    method = dice.choice(["GET", "HEAD", "POST", "DELETE"])
    peer.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    if dice.random() < 0.5:
        peer.read_to_eof()


def wait_in_silence(peer: Peer, server: Program, dice: random.Random) -> None:
    """Connects, and says nothing."""
    stopped.wait(dice.uniform(0.0, 15.0))


# Further ones where the server speaks TLS


def damage_a_record(peer: Peer, server: Program, dice: random.Random) -> None:
    """Joins, and then sends a record that cannot be decrypted."""
    enter(peer, server, dice)
    tunnel_of(peer).sock.sendall(BAD_RECORD)
    peer.read_to_eof()


def end_tls_first(peer: Peer, server: Program, dice: random.Random) -> None:
    """Ends TLS without a closing handshake of WebSocket, as a program does that has failed."""
    enter(peer, server, dice)
    tunnel_of(peer).say_farewell()
    peer.read_to_eof()


def cut_off_tls(peer: Peer, server: Program, dice: random.Random) -> None:
    """Sends its first message of the TLS handshake byte by byte, and gives up somewhere."""
    hello = client_hello()
    for at in range(dice.randrange(len(hello))):
        peer.send(hello[at : at + 1])
        stopped.wait(0.005)


def speak_without_tls(peer: Peer, server: Program, dice: random.Random) -> None:
    """Sends a request, or noise, where TLS is spoken."""
    noise = dice.randbytes(dice.randrange(1, 2000))
    peer.send(dice.choice([request(server, "/ws"), noise]))
    peer.read_to_eof()


Life = Callable[[Peer, Program, random.Random], None]
LIVES: dict[Life, int] = {  # and how often, relatively
    come_and_go: 10,
    flood: 3,
    stall: 2,
    break_a_rule: 4,
    send_noise: 3,
    trickle: 2,
    ping_on: 1,
    fetch: 4,
    wait_in_silence: 1,
}
TLS_LIVES: dict[Life, int] = {damage_a_record: 2, end_tls_first: 2}
# They are not over TLS, but in its place.
BARE_LIVES: dict[Life, int] = {cut_off_tls: 2, speak_without_tls: 2, wait_in_silence: 1}
BROKEN = [
    masked(0x83, b"a reserved opcode"),
    masked(0xC1, b"a reserved bit"),
    masked(0x81, b"\xff\xfe is not UTF-8"),
    masked(0x82, b"binary"),
    masked(0x80, b"continues nothing"),
    masked(0x01, b"begins,") + masked(0x81, b"and begins again"),
    masked(0x09, b"a ping in fragments"),
    masked(0x88, b"\x03"),
    masked(0x88, b"\x00\x00"),
    masked(0x81, b"[]"),
    masked(0x81, b'{"username": 1}'),
    masked(0x01, b"") + 3000 * masked(0x00, b"") + masked(0x81, b"begins again"),
    b"\x81\x05naked",
    b"\x81\xff" + b"\xff" * 8 + b"mask",
    b"\x81\xff" + (1 << 40).to_bytes(8, "big") + b"mask",
]


def enter(peer: Peer, server: Program, dice: random.Random) -> None:
    peer.send(request(server, dice.choice(["/ws", "/ws?since=0", "/ws?since=1-1"])))
    head = peer.read_head()
    if not head.startswith("HTTP/1.1 101 "):
        raise EOFError(head)


def text(message: str) -> bytes:
    return masked(0x81, json.dumps({"username": "difficult", "message": message}).encode())


def tunnel_of(peer: Peer) -> Tunnel:
    assert isinstance(peer.sock, Tunnel)
    return peer.sock


def client_hello() -> bytes:
    """The first message of a TLS handshake, as a client sends it."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def leave(peer: Peer, dice: random.Random) -> None:
    """End TCP, one time in three with a reset."""
    end = reset if dice.random() < 1 / 3 else Peer.close
    end(peer)


# The soak


class Soak:
    """Runs it, and says how it was. `seconds` is the time of measuring."""

    def __init__(self, seconds: float, seed: int, settling: float = SETTLING) -> None:
        self.faults: list[str] = []
        self._seconds = seconds
        self._seed = seed
        self._settling = settling
        self._good: list[Good] = []
        self._lives: Counter[str] = Counter()
        self._counting = threading.Lock()  # held around a change of `_lives`
        self._before: Use | None = None
        self._after: Use | None = None
        self._most = Use(0, 0, 0)
        self._most_disk = 0
        self._log_lines = 0

    def run(self, scene: Scene) -> None:
        server = scene.server
        scene.reach_most_connections_to_redis()
        enough = threading.Event()  # the good clients stop talking
        self._good = [Good(f"good {number}", scene.open()) for number in range(GOOD)]
        dice = random.Random(self._seed)
        talking = [self._start(g.talk, enough, random.Random(dice.random())) for g in self._good]
        listening = [self._start(good.listen) for good in self._good]
        self._be_difficult(scene, max(WARMING, self._seconds / 4), dice)
        self._before = self._settle(server, None)
        self._be_difficult(scene, self._seconds, dice)
        self._after = self._settle(server, self._before)
        enough.set()
        for thread in talking:
            thread.join()
        self._await_heard()
        for good in self._good:
            good.websocket.close()
        for thread in listening:
            thread.join()
        self._examine(server)

    def _start(self, do: Callable[..., None], *arguments: object) -> threading.Thread:
        """Do something in a thread; what it raises is a fault."""

        def run() -> None:
            try:
                do(*arguments)
            except Exception as error:  # told at the end
                self.faults.append(f"{type(error).__name__}: {error}")

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def _be_difficult(self, scene: Scene, seconds: float, dice: random.Random) -> None:
        """Let the difficult clients live for so long, and measure the process meanwhile."""
        stopped.clear()
        threads = [
            self._start(self._live_again_and_again, scene, random.Random(dice.random()))
            for _ in range(DIFFICULT)
        ]
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.faults:
            time.sleep(min(left, SAMPLE))
            pairs = zip(self._most, scene.server.use, strict=True)
            self._most = Use(*(max(pair) for pair in pairs))
            self._most_disk = max(self._most_disk, scene.bytes_on_disk())
        stopped.set()
        for thread in threads:
            thread.join()

    def _live_again_and_again(self, scene: Scene, dice: random.Random) -> None:
        over_http = LIVES | (TLS_LIVES if scene.certificate else {})
        on_tcp = BARE_LIVES if scene.certificate else {}
        lives = [*over_http, *on_tcp]
        how_often = [*over_http.values(), *on_tcp.values()]
        while not stopped.is_set():
            (chosen,) = dice.choices(range(len(lives)), how_often)
            live = lives[chosen]
            with self._counting:
                self._lives[live.__name__.replace("_", " ")] += 1
            peer = scene.connect() if chosen < len(over_http) else scene.tcp()
            with contextlib.suppress(OSError, EOFError):
                live(peer, scene.server, dice)
            leave(peer, dice)

    def _settle(self, server: Program, before: Use | None) -> Use:
        """Wait until the server has got rid of the difficult clients; what it uses then.

        It has one thread for each client, and some of its own, and no more than `before`.
        """
        least = server.use
        end = time.monotonic() + self._settling
        calm_since = time.monotonic()
        while time.monotonic() < end:
            time.sleep(0.2)
            use = server.use
            if use.threads < least.threads or use.files < least.files:
                calm_since = time.monotonic()
            least = Use(*(min(pair) for pair in zip(least, use, strict=True)))
            has_few = before is None or (
                use.threads <= before.threads and use.files <= before.files
            )
            # A client that does not read may stay for 60 seconds, so that calm alone proves little.
            if has_few and (before or time.monotonic() - calm_since > self._settling * 0.75):
                return use
        return server.use

    def _await_heard(self) -> None:
        """Wait until each good client has heard as many of each other as were said."""
        end = time.monotonic() + 30.0
        while time.monotonic() < end and not self._have_heard_all():
            time.sleep(0.1)

    def _have_heard_all(self) -> bool:
        return all(
            len(listener.heard.get(sender.name, ())) >= sender.said
            for listener, sender in itertools.product(self._good, repeat=2)
        )

    # The verdict

    def _examine(self, server: Program) -> None:
        for listener, sender in itertools.product(self._good, repeat=2):
            heard = listener.heard.get(sender.name, [])
            if heard != list(range(sender.said)):
                missing = set(range(sender.said)) - set(heard)
                self.faults.append(
                    f"{listener.name} heard {len(heard)} of {sender.said} messages of "
                    f"{sender.name}; missing are {len(missing)}, such as {sorted(missing)[:5]}"
                )
        for good in self._good:
            code = good.websocket.close_code
            if code != CloseCode.NORMAL:
                reason = good.websocket.close_reason
                self.faults.append(f"{good.name} was closed with {code} {reason}")
        self._examine_use()
        server.signal()
        status = server.wait()
        log = server.log
        self._log_lines = log.count("\n")
        if status != 0 or "Traceback" in log or "Warning" in log:
            self.faults.append(f"exit status {status}; the log ends with\n{log[-3000:]}")

    def _examine_use(self) -> None:
        assert self._before
        assert self._after
        if self._after.threads > self._before.threads or self._after.files > self._before.files:
            self.faults.append("there are more threads or files than before")
        if self._after.memory > MORE_MEMORY * self._before.memory:
            self.faults.append("there is more memory in use than before")
        if self._most_disk > MOST_DISK:
            self.faults.append("the files of the history grow without end")

    def summary(self) -> str:
        lives = ", ".join(f"{name} {count:,}" for name, count in self._lives.most_common())
        said = sum(good.said for good in self._good)
        slowest = max((good.slowest for good in self._good), default=0.0)
        lines = [
            f"difficult clients: {sum(self._lives.values()):,} ({lives})",
            f"messages of {GOOD} good clients: {said:,}; the slowest came after {slowest:.2f} s",
            f"before: {self._before}",
            f"at most: {self._most}",
            f"after:  {self._after}",
            f"files of the history, at most: {self._most_disk:,} bytes",
            f"log: {self._log_lines:,} lines",
            *(f"FAULT: {fault}" for fault in self.faults),
            "FAILED" if self.faults else "nothing lost, nothing left behind, no traceback",
            f"seed {self._seed}",
        ]
        return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
