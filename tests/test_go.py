"""The tutorial's programs in Go against ours, in both directions."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatting import hear, say
from originals import BUILD_TIME, Original, build, running_original
from peers import PATIENCE
from programs import Program, chat, echo, run
from rfc6455 import InvalidHandshake, connect

pytestmark = [pytest.mark.go, pytest.mark.timeout(4 * BUILD_TIME)]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("go"))


@pytest.fixture
def gorilla_chat(originals: Path) -> Iterator[str]:
    """The ws: URL of the original chat."""
    with running_original(originals / "chat_server") as server:
        yield server.wait_for(r"runs at http(://\S+)\n").join(("ws", "/ws"))


@pytest.fixture(scope="module")
def our_chat() -> Iterator[Program]:
    with chat() as server:
        yield server


# The echo pair, with golang.org/x/net/websocket


@pytest.mark.parametrize("slash", ["/", ""])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
def test_original_echo_client_is_answered_by_our_echo_server(
    originals: Path, host: str, slash: str
) -> None:
    with echo() as server:
        authority = f"{host}:{server.server_port}"
        arguments = (f"ws://{authority}/echo", f"http://{authority}{slash}")
        with running_original(originals / "echo_client", *arguments) as client:
            assert client.process.wait(PATIENCE) == 0, client.output
            assert client.output == "Send: hello, world!你好\nReceive: [hello, world!你好]\n"


def test_original_echo_client_of_another_origin_needs_to_be_allowed(originals: Path) -> None:
    """The tutorial's client sends the origin http://127.0.0.1:8080/, wherever the server is."""
    origin = "http://127.0.0.1:8080/"
    with echo() as server:
        url = f"{server.ws_url}/echo"
        with running_original(originals / "echo_client", url, origin) as client:
            assert client.process.wait(PATIENCE) == 1
    with echo("--allow-origin", origin) as server:
        url = f"{server.ws_url}/echo"
        with running_original(originals / "echo_client", url, origin) as client:
            assert client.process.wait(PATIENCE) == 0, client.output


def test_our_echo_client_is_answered_by_the_original_echo_server(originals: Path) -> None:
    with running_original(originals / "echo_server") as server:
        url = server.wait_for(r"runs at http(://\S+)\n").join(("ws", "/echo"))
        ended = run("echo_client.py", url)
        assert ended.stderr == b""
        assert ended.stdout.decode() == "Send: hello, world!你好\nReceive: [hello, world!你好]\n"
        assert server.wait_for(r"(Receive: .*)\n") == "Receive: hello, world!你好"


def test_original_echo_server_refuses_a_client_without_an_origin(originals: Path) -> None:
    with running_original(originals / "echo_server") as server:
        url = server.wait_for(r"runs at http(://\S+)\n").join(("ws", "/echo"))
        with pytest.raises(InvalidHandshake) as refusal:
            connect(url)
        assert refusal.value.status == 403
        with connect(url, origin="http://localhost/") as websocket:
            websocket.send("x")
            assert websocket.receive(PATIENCE) == "[x]"


# The chat, with gorilla/websocket


def join(originals: Path, server: Program) -> Original:
    origin = f"http://127.0.0.1:{server.server_port}/"
    client = Original(originals / "chat_client", f"{server.ws_url}/ws", origin)
    try:
        client.wait_for("(connected)\n")
    except BaseException:
        client.discard()
        raise
    return client


def test_gorilla_client_in_our_chat_hears_and_is_heard(originals: Path, our_chat: Program) -> None:
    client = join(originals, our_chat)
    try:
        with our_chat.join() as other:
            client.say("is anybody there? 你好")
            heard = hear(other)
            assert (heard["email"], heard["username"]) == ("grace@example.org", "Grace")
            assert heard["message"] == "is anybody there? 你好"
            assert client.wait_for("Grace: (.*)\n") == "is anybody there? 你好"
            say(other, "yes")
            assert client.wait_for("Ada: (.*)\n") == "yes"
        assert client.end_of_input() == 0
        assert client.wait_for("(websocket: close.*)\n") == "websocket: close 1000 (normal)"
    finally:
        client.discard()


def test_gorilla_clients_in_our_chat_hear_the_same_in_the_same_order(
    originals: Path, our_chat: Program
) -> None:
    clients = [join(originals, our_chat) for _ in range(3)]
    try:
        for number in range(20):
            clients[number % 3].say(f"{number}")
        for client in clients:
            client.say("over")
        heard = []
        for client in clients:
            client.wait_for("(?s)(over\n.*over\n.*over\n)")
            heard.append(client.output)
        assert len(set(heard)) == 1
        assert heard[0].count("Grace: ") == 23
    finally:
        for client in clients:
            client.discard()


def test_our_client_in_the_gorilla_chat_hears_and_is_heard(
    originals: Path, gorilla_chat: str
) -> None:
    origin = gorilla_chat.replace("ws:", "http:").removesuffix("/ws")
    message = {"email": "ada@example.org", "username": "Ada", "message": "hello 你好"}
    with (
        running_original(originals / "chat_client", gorilla_chat, origin) as other,
        connect(gorilla_chat, origin=origin) as websocket,
    ):
        other.wait_for("(connected)\n")
        websocket.send(json.dumps(message))
        text = websocket.receive(PATIENCE)
        assert isinstance(text, str)
        assert json.loads(text) == message
        assert other.wait_for("Ada: (.*)\n") == "hello 你好"
        other.say("hello yourself")
        text = websocket.receive(PATIENCE)
        assert isinstance(text, str)
        assert json.loads(text)["message"] == "hello yourself"
