"""Our two sides against the libraries of others, who know the RFC and not our code."""

import contextlib
import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import simple_websocket
import websocket
import websockets.exceptions
import websockets.sync.client
import websockets.sync.server

from peers import PATIENCE, Peer, RawServer, serving
from programs import Program, chat, echo
from rfc6455 import CloseCode, ConnectionClosed, Deflate, Timeouts, WebSocket, connect

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIZES = [0, 1, 125, 126, 127, 4096, 65535, 65536, 65537, 1_000_000]
TEXT = "hello, world!你好 🤖"


class Stranger(Protocol):
    """What the tests ask of each library's client."""

    def __init__(self, url: str, *, compressed: bool = False) -> None: ...
    def send(self, message: str | bytes) -> None: ...
    def receive(self) -> str | bytes: ...
    def close(self, code: int, reason: str) -> None: ...
    def receive_close(self) -> tuple[int | None, str]: ...
    def end(self) -> None: ...


class SimpleWebSocket:
    def __init__(self, url: str, *, compressed: bool = False) -> None:
        assert not compressed
        self.socket = simple_websocket.Client.connect(url)

    def send(self, message: str | bytes) -> None:
        self.socket.send(message)

    def receive(self) -> str | bytes:
        message = self.socket.receive(PATIENCE)
        assert isinstance(message, str | bytes)
        return message

    def close(self, code: int, reason: str) -> None:
        self.socket.close(code, reason)

    def receive_close(self) -> tuple[int | None, str]:
        with pytest.raises(simple_websocket.ConnectionClosed) as caught:
            self.socket.receive(PATIENCE)
        return int(caught.value.reason), caught.value.message or ""

    def end(self) -> None:
        with contextlib.suppress(simple_websocket.ConnectionClosed):
            self.socket.close()
        self.socket.thread.join(PATIENCE)


class Websockets:
    def __init__(self, url: str, *, compressed: bool = False) -> None:
        self.stack = contextlib.ExitStack()
        self.socket = self.stack.enter_context(
            websockets.sync.client.connect(
                url,
                proxy=None,
                ping_interval=None,
                open_timeout=PATIENCE,
                compression="deflate" if compressed else None,
            )
        )

    def send(self, message: str | bytes) -> None:
        self.socket.send(message)

    def send_fragments(self, fragments: Sequence[str | bytes]) -> None:
        self.socket.send(iter(fragments))

    def ping(self, payload: bytes) -> None:
        assert self.socket.ping(payload).wait(PATIENCE)

    def receive(self) -> str | bytes:
        return self.socket.recv(PATIENCE)

    def close(self, code: int, reason: str) -> None:
        self.socket.close(code, reason)

    def receive_close(self) -> tuple[int | None, str]:
        with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
            self.socket.recv(PATIENCE)
        assert caught.value.rcvd is not None
        return caught.value.rcvd.code, caught.value.rcvd.reason

    def end(self) -> None:
        self.stack.close()


class WebsocketClient:
    def __init__(self, url: str, *, compressed: bool = False) -> None:
        assert not compressed
        self.socket = websocket.create_connection(url, timeout=PATIENCE, http_no_proxy=["*"])

    def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.socket.send_text(message)
        else:
            self.socket.send_binary(message)

    def send_fragments(self, fragments: Sequence[str | bytes]) -> None:
        kind = websocket.ABNF.OPCODE_TEXT
        if isinstance(fragments[0], bytes):
            kind = websocket.ABNF.OPCODE_BINARY
        for i, fragment in enumerate(fragments):
            data = fragment.encode() if isinstance(fragment, str) else fragment
            opcode = websocket.ABNF.OPCODE_CONT if i else kind
            last = int(i == len(fragments) - 1)
            self.socket.send_frame(websocket.ABNF.create_frame(data, opcode, last))

    def ping(self, payload: bytes) -> None:
        self.socket.ping(payload)
        opcode, data = self.socket.recv_data(control_frame=True)
        assert (opcode, data) == (websocket.ABNF.OPCODE_PONG, payload)

    def receive(self) -> str | bytes:
        opcode, data = self.socket.recv_data()
        assert opcode in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY)
        assert isinstance(data, bytes)
        return data.decode() if opcode == websocket.ABNF.OPCODE_TEXT else data

    def close(self, code: int, reason: str) -> None:
        self.socket.close(code, reason.encode(), timeout=PATIENCE)

    def receive_close(self) -> tuple[int | None, str]:
        opcode, data = self.socket.recv_data(control_frame=True)
        assert opcode == websocket.ABNF.OPCODE_CLOSE
        return int.from_bytes(data[:2], "big") if data else None, data[2:].decode()

    def end(self) -> None:
        if self.socket.sock is not None:
            self.socket.sock.close()  # the library's own close would wait for a second Close


LIBRARIES = [SimpleWebSocket, Websockets, WebsocketClient]
WITH_PINGS_AND_FRAGMENTS = [Websockets, WebsocketClient]
ALL_CLIENTS = pytest.mark.parametrize("library", LIBRARIES)
FULL_CLIENTS = pytest.mark.parametrize("library", WITH_PINGS_AND_FRAGMENTS)


@contextlib.contextmanager
def client(library: type[Stranger], url: str, *, compressed: bool = False) -> Iterator[Any]:
    stranger = library(url, compressed=compressed)
    try:
        yield stranger
    finally:
        stranger.end()


def texts_and_bytes(size: int) -> list[str | bytes]:
    """Three messages of this many bytes; the one in many languages may have a few less."""
    text = (TEXT.encode() * (size // len(TEXT) + 1))[:size].decode(errors="ignore")
    return ["x" * size, text, bytes(i % 251 for i in range(size))]


# Their clients and our server


@pytest.fixture(scope="module")
def plain() -> Iterator[Program]:
    with echo("--plain") as program:
        yield program


@ALL_CLIENTS
def test_client_gets_back_messages_of_every_size_from_our_server(
    library: type[Stranger], plain: Program
) -> None:
    with client(library, f"{plain.ws_url}/echo") as stranger:
        for size in SIZES:
            for message in texts_and_bytes(size):
                stranger.send(message)
                assert stranger.receive() == message


@ALL_CLIENTS
def test_client_gets_back_many_messages_at_once_in_order(
    library: type[Stranger], plain: Program
) -> None:
    with client(library, f"{plain.ws_url}/echo") as stranger:
        messages = [f"number {i} {'x' * (i % 300)}" for i in range(500)]
        for message in messages:
            stranger.send(message)
        assert [stranger.receive() for _ in messages] == messages


@FULL_CLIENTS
def test_our_server_joins_the_fragments_of_a_client(
    library: type[Stranger], plain: Program
) -> None:
    with client(library, f"{plain.ws_url}/echo") as stranger:
        for parts in (["one"], ["a", "b"], ["", "", "end"], list(TEXT), ["x" * 70_000] * 3):
            stranger.send_fragments(parts)
            assert stranger.receive() == "".join(parts)
        pieces = [bytes([i]) * (i * 100) for i in range(20)]
        stranger.send_fragments(pieces)
        assert stranger.receive() == b"".join(pieces)


@FULL_CLIENTS
def test_our_server_answers_the_pings_of_a_client(library: type[Stranger], plain: Program) -> None:
    with client(library, f"{plain.ws_url}/echo") as stranger:
        for payload in (b"ping", bytes(range(125)), "你好".encode()):
            stranger.ping(payload)
        stranger.send("still here")
        assert stranger.receive() == "still here"


@ALL_CLIENTS
def test_client_answers_the_pings_of_our_server(library: type[Stranger]) -> None:
    """It sends nothing for a time in which, without its pongs, it would be dropped twice."""
    timeouts = Timeouts(ping_interval=0.1, ping_timeout=1.0)

    def handler(websocket: WebSocket) -> None:
        assert websocket.receive(timeout=3.0) is None
        websocket.send("still here")
        websocket.receive()

    with serving(handler, timeouts=timeouts) as server:
        with client(library, f"ws://127.0.0.1:{server.server_port}/") as stranger:
            assert stranger.receive() == "still here"


@ALL_CLIENTS
@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "going"), (3000, "x" * 123), (4999, "你好")]
)
def test_our_server_learns_code_and_reason_of_a_client_that_closes(
    library: type[Stranger], code: int, reason: str
) -> None:
    ends: queue.Queue[tuple[int, str, bool]] = queue.Queue()

    def handler(websocket: WebSocket) -> None:
        with pytest.raises(ConnectionClosed) as caught:
            websocket.receive()
        ends.put((caught.value.code, caught.value.reason, websocket.clean))

    with serving(handler) as server:
        with client(library, f"ws://127.0.0.1:{server.server_port}/") as stranger:
            stranger.close(code, reason)
            assert ends.get(timeout=PATIENCE) == (code, reason, True)


@ALL_CLIENTS
@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1008, "not here"), (3000, "x" * 123), (4999, "你好")]
)
def test_client_learns_code_and_reason_of_our_server_that_closes(
    library: type[Stranger], code: int, reason: str
) -> None:
    def handler(websocket: WebSocket) -> None:
        websocket.receive()
        websocket.send("last words")
        websocket.close(code, reason)

    with serving(handler) as server:
        with client(library, f"ws://127.0.0.1:{server.server_port}/") as stranger:
            stranger.send("hello")
            assert stranger.receive() == "last words"
            assert stranger.receive_close() == (code, reason)


@FULL_CLIENTS
def test_client_that_our_server_closed_has_closed_cleanly(library: type[Stranger]) -> None:
    clean: queue.Queue[bool] = queue.Queue()

    def handler(websocket: WebSocket) -> None:
        websocket.receive()
        websocket.close(4000, "enough")
        clean.put(websocket.clean)

    with serving(handler) as server:
        with client(library, f"ws://127.0.0.1:{server.server_port}/") as stranger:
            stranger.send("hello")
            assert stranger.receive_close() == (4000, "enough")
        assert clean.get(timeout=PATIENCE)


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"message": 5}'])
@ALL_CLIENTS
def test_client_of_the_chat_learns_why_it_is_refused(library: type[Stranger], text: str) -> None:
    with chat() as server, client(library, f"{server.ws_url}/ws") as stranger:
        stranger.send(text)
        code, reason = stranger.receive_close()
        assert code == CloseCode.POLICY_VIOLATION
        assert " " in reason


@ALL_CLIENTS
def test_client_of_the_chat_reads_back_everything_that_was_said(library: type[Stranger]) -> None:
    with chat() as server, client(library, f"{server.ws_url}/ws?since=0") as stranger:
        for number in range(230):
            stranger.send(json.dumps({"message": f"{number} 你好 🤖"}))
        live: list[Any] = []
        while len(live) < 230:
            heard = json.loads(stranger.receive())
            live += [] if "event" in heard else [heard]
        read = [live[-1]]
        more = True
        while more:
            stranger.send(json.dumps({"event": "older", "before": read[0]["id"]}))
            while (answer := json.loads(stranger.receive()))["event"] != "older":
                pass
            assert answer["before"] == read[0]["id"]
            read = answer["messages"] + read
            more = answer["more"]
        assert read == live


@pytest.mark.parametrize("compressed", [False, True])
def test_compressing_client_talks_to_our_server_whether_that_compresses_or_not(
    compressed: bool,
) -> None:
    options = ["--plain", "--deflate"] if compressed else ["--plain"]
    with echo(*options) as server:
        with client(Websockets, f"{server.ws_url}/echo", compressed=True) as stranger:
            agreed = [extension.name for extension in stranger.socket.protocol.extensions]
            assert agreed == (["permessage-deflate"] if compressed else [])
            for size in SIZES:
                for message in texts_and_bytes(size):
                    stranger.send(message)
                    assert stranger.receive() == message
            stranger.send_fragments(["compress", "ed in ", "parts"] * 100)
            assert stranger.receive() == "compressed in parts" * 100


# Our client and their servers


@contextlib.contextmanager
def simple_websocket_server(handler: Callable[[Any], None]) -> Iterator[str]:
    def script(peer: Peer) -> None:
        lines = peer.read_head().split("\r\n")[1:]
        pairs = [line.partition(": ") for line in lines if line]
        environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, _, value in pairs}
        server = simple_websocket.Server.accept(environ | {"werkzeug.socket": peer.sock})
        try:
            with contextlib.suppress(simple_websocket.ConnectionClosed):
                handler(server)
        finally:
            with contextlib.suppress(simple_websocket.ConnectionClosed):
                server.close()
            server.thread.join(PATIENCE)

    with RawServer(script) as raw:
        yield raw.url


@contextlib.contextmanager
def websockets_server(handler: Callable[[Any], None], compression: Any = None) -> Iterator[str]:
    def quiet(connection: Any) -> None:
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            handler(connection)

    server = websockets.sync.server.serve(
        quiet, "127.0.0.1", 0, compression=compression, ping_interval=None
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
    finally:
        server.shutdown()
        thread.join()


def echo_simple(server: Any) -> None:
    while True:
        server.send(server.receive(PATIENCE))


def echo_websockets(connection: Any) -> None:
    for message in connection:
        connection.send(message)


THEIR_ECHOES = pytest.mark.parametrize(
    ("serve", "handler"),
    [(simple_websocket_server, echo_simple), (websockets_server, echo_websockets)],
)
THEIR_SERVERS = pytest.mark.parametrize("serve", [simple_websocket_server, websockets_server])


@THEIR_ECHOES
def test_our_client_gets_back_messages_of_every_size(serve: Any, handler: Any) -> None:
    with serve(handler) as url, connect(url) as ours:
        for size in SIZES:
            for message in texts_and_bytes(size):
                ours.send(message)
                assert ours.receive(PATIENCE) == message


@THEIR_ECHOES
def test_our_client_gets_back_many_messages_at_once_in_order(serve: Any, handler: Any) -> None:
    with serve(handler) as url, connect(url) as ours:
        messages = [f"number {i} {'x' * (i % 300)}" for i in range(300)]
        for message in messages:
            ours.send(message)
        assert [ours.receive(PATIENCE) for _ in messages] == messages


def test_our_client_joins_the_fragments_of_a_server() -> None:
    whole: list[str | bytes] = [TEXT, "x" * 210_000, b"\x00\xff" * 5]

    def handler(connection: Any) -> None:
        connection.send(list(TEXT))
        connection.send(["x" * 70_000] * 3)
        connection.send([b"\x00\xff"] * 5)
        connection.recv(PATIENCE)

    with websockets_server(handler) as url, connect(url) as ours:
        assert [ours.receive(PATIENCE) for _ in whole] == whole


def test_our_client_answers_the_pings_of_a_server() -> None:
    answered: queue.Queue[bool] = queue.Queue()

    def handler(connection: Any) -> None:
        for payload in (b"", b"ping", bytes(range(125))):
            answered.put(connection.ping(payload).wait(PATIENCE))
        connection.send("done")
        connection.recv(PATIENCE)

    with websockets_server(handler) as url, connect(url) as ours:
        assert ours.receive(PATIENCE) == "done"
        assert [answered.get(timeout=PATIENCE) for _ in range(3)] == [True] * 3


@THEIR_ECHOES
def test_server_answers_the_pings_of_our_client(serve: Any, handler: Any) -> None:
    """Ours receives nothing for a time in which, without pongs, it would give the server up."""
    timeouts = Timeouts(ping_interval=0.1, ping_timeout=1.0)
    with serve(handler) as url, connect(url, timeouts=timeouts) as ours:
        assert ours.receive(timeout=3.0) is None
        ours.send("still here")
        assert ours.receive(PATIENCE) == "still here"


@THEIR_SERVERS
@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1011, "broken"), (3000, "x" * 123), (4999, "你好")]
)
def test_our_client_learns_code_and_reason_of_a_server_that_closes(
    serve: Any, code: int, reason: str
) -> None:
    def handler(theirs: Any) -> None:
        theirs.send("last words")
        theirs.close(code, reason)

    with serve(handler) as url, connect(url) as ours:
        assert ours.receive(PATIENCE) == "last words"
        with pytest.raises(ConnectionClosed) as caught:
            ours.receive(PATIENCE)
    assert (caught.value.code, caught.value.reason) == (code, reason)
    assert ours.clean


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "going"), (3000, "x" * 123), (4999, "你好")]
)
def test_websockets_server_learns_code_and_reason_of_our_client(code: int, reason: str) -> None:
    ends: queue.Queue[tuple[int | None, str | None]] = queue.Queue()

    def handler(connection: Any) -> None:
        with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
            connection.recv(PATIENCE)
        assert caught.value.rcvd is not None
        ends.put((caught.value.rcvd.code, caught.value.rcvd.reason))

    with websockets_server(handler) as url:
        ours = connect(url)
        ours.close(code, reason)
        assert ends.get(timeout=PATIENCE) == (code, reason)
    assert ours.clean
    assert ours.close_code == code


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (4999, "你好")])
def test_simple_websocket_server_learns_code_and_reason_of_our_client(
    code: int, reason: str
) -> None:
    ends: queue.Queue[tuple[int, str]] = queue.Queue()

    def handler(server: Any) -> None:
        with pytest.raises(simple_websocket.ConnectionClosed) as caught:
            server.receive(PATIENCE)
        ends.put((int(caught.value.reason), caught.value.message or ""))

    with simple_websocket_server(handler) as url:
        ours = connect(url)
        ours.close(code, reason)
        assert ends.get(timeout=PATIENCE) == (code, reason)
    assert ours.clean


@pytest.mark.parametrize("deflate", [None, Deflate(), Deflate(True, True, 10, 10)])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_our_client_talks_to_a_websockets_server_whether_either_compresses(
    deflate: Deflate | None, compression: str | None
) -> None:
    with (
        websockets_server(echo_websockets, compression) as url,
        connect(url, deflate=deflate) as ours,
    ):
        agreed = "permessage-deflate" in ours.headers.get("Sec-WebSocket-Extensions", "")
        assert agreed == (deflate is not None and compression is not None)
        for size in SIZES:
            for message in texts_and_bytes(size):
                ours.send(message)
                assert ours.receive(PATIENCE) == message


@pytest.mark.parametrize("deflate", [None, Deflate()])
def test_our_client_talks_to_a_simple_websocket_server(deflate: Deflate | None) -> None:
    with (
        simple_websocket_server(echo_simple) as url,
        connect(url, deflate=deflate) as ours,
    ):
        for message in ("x" * 10_000, TEXT * 1000, "short"):
            ours.send(message)
            assert ours.receive(PATIENCE) == message


# One chat


def said(username: str, number: int) -> dict[str, str]:
    return {
        "email": f"{username}@Example.org",
        "username": username,
        "message": f"{username} {number} <b>&amp;</b> 你好 🤖",
    }


class Ours:
    """Our own client with the methods of the strangers."""

    def __init__(self, url: str, *, compressed: bool = False) -> None:
        self.socket = connect(url, deflate=Deflate() if compressed else None)

    def send(self, message: str | bytes) -> None:
        self.socket.send(message)

    def receive(self) -> str | bytes:
        message = self.socket.receive(PATIENCE)
        assert message is not None
        return message

    def close(self, code: int, reason: str) -> None:
        self.socket.close(code, reason)

    def receive_close(self) -> tuple[int | None, str]:
        with pytest.raises(ConnectionClosed) as caught:
            self.socket.receive(PATIENCE)
        return caught.value.code, caught.value.reason

    def end(self) -> None:
        self.socket.close()


def check_heard(frames: list[str], names: Sequence[str], each: int) -> list[str]:
    """Check that each message came once, each sender's in order, with its three fields unchanged
    and first. Returns the ids.
    """
    heard = [json.loads(frame) for frame in frames]
    assert all(list(message)[:3] == ["email", "username", "message"] for message in heard)
    assert len(heard) == len(names) * each
    for name in names:
        of_one = [message for message in heard if message["username"] == name]
        three = [{field: message[field] for field in list(message)[:3]} for message in of_one]
        assert three == [said(name, i) for i in range(each)]
    ids = [message["id"] for message in heard]
    pairs = [tuple(int(part) for part in each.split("-")) for each in ids]
    assert sorted(set(pairs)) == pairs
    return ids


def test_clients_of_four_libraries_in_one_chat_hear_each_message_once_and_in_order() -> None:
    each = 50
    with chat() as server, contextlib.ExitStack() as stack:
        clients = enter(stack, (*LIBRARIES, Ours), server)

        def talk(name: str, stranger: Stranger) -> None:
            for i in range(each):
                stranger.send(json.dumps(said(name, i)))

        threads = [threading.Thread(target=talk, args=item) for item in clients.items()]
        for thread in threads:
            thread.start()
        try:
            heard = [
                [str(stranger.receive()) for _ in range(len(clients) * each)]
                for stranger in clients.values()
            ]
        finally:
            for thread in threads:
                thread.join(PATIENCE)
        for frames in heard:
            check_heard(frames, list(clients), each)
        assert heard[1] == heard[0] and heard[2] == heard[0] and heard[3] == heard[0]


def enter(
    stack: contextlib.ExitStack, libraries: Sequence[type[Any]], server: Program
) -> dict[str, Any]:
    """Let clients into the chat, one after the other; the name and the client of each.

    A client is in the chat once it hears itself. From then on it misses nothing.
    """
    clients: dict[str, Any] = {}
    for library in libraries:
        stranger = stack.enter_context(client(library, f"{server.ws_url}/ws"))
        clients[library.__name__] = stranger
        stranger.send(json.dumps({"message": "hello"}))
        for each in clients.values():
            assert json.loads(each.receive())["message"] == "hello"
    return clients


@pytest.mark.browser
@pytest.mark.slow
def test_four_strangers_in_one_chat_hear_each_message_once_and_in_order(
    browser: "Browser",
) -> None:
    """They are two Python libraries, the page in a browser, and our own client."""
    from playwright.sync_api import expect

    each = 15
    frames: list[str] = []

    def listen(socket: Any) -> None:
        socket.on("framereceived", lambda payload: frames.append(str(payload)))

    with chat() as server, contextlib.ExitStack() as stack:
        page = browser.new_page()
        page.on("websocket", listen)
        page.goto(server.url)
        page.fill("#email", "Page@Example.org")
        page.fill("#username", "Page")
        page.click("#join-button")
        expect(page.locator("#status")).to_have_text("Connected")
        clients = enter(stack, (SimpleWebSocket, Websockets, Ours), server)
        shown = page.locator("#messages .message:not(.pending)")
        expect(shown).to_have_count(3)

        def talk(name: str, stranger: Stranger) -> None:
            for i in range(each):
                stranger.send(json.dumps(said(name, i)))

        threads = [threading.Thread(target=talk, args=item) for item in clients.items()]
        for thread in threads:
            thread.start()
        try:
            for i in range(each):
                page.fill("#message", said("Page", i)["message"])
                page.press("#message", "Enter")
            total = (len(clients) + 1) * each
            heard = [
                [str(stranger.receive()) for _ in range(total)] for stranger in clients.values()
            ]
        finally:
            for thread in threads:
                thread.join(PATIENCE)
        expect(shown).to_have_count(3 + total)
        on_page = chat_messages(frames)[3:]
        texts = shown.locator(".text").all_inner_texts()[3:]
        names = shown.locator(".name").all_inner_texts()[3:]
        page.close()
    senders = ["Page", *clients]
    ids = check_heard(on_page, senders, each)
    for of_one in heard:
        assert check_heard(of_one, senders, each) == ids
    assert [json.loads(frame)["message"] for frame in on_page] == texts
    assert [json.loads(frame)["username"] for frame in on_page] == names


def chat_messages(frames: list[str]) -> list[str]:
    """The frames without the events that a page gets."""
    return [frame for frame in frames if "event" not in json.loads(frame)]
