"""The third exercise of docs/how-it-works.md: a picture, sent as a binary message."""

import pytest

from chatting import assert_here, hear, hear_said, resume, say
from peers import masked
from programs import Program, answer_close

PROGRAM = "chat_server.py"
OPTIONS = ("--rate", "0")
SOLUTION = "pictures.py"

HEAD = b'{"email": "ada@example.org", "username": "Ada"}\n'
# A GIF of one transparent pixel, and the address that means the same.
GIF = bytes.fromhex(
    "47494638396101000100800000000000ffffff"
    "21f90401000000002c00000000010001000002024401003b"
)  # fmt: skip
GIF_URL = (
    "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICRAEAOw=="
)  # fmt: skip


def test_everyone_gets_the_picture_as_a_message_that_holds_its_data_url(server: Program) -> None:
    with server.join() as ada, server.join() as bob:
        ada.send(masked(0x82, HEAD + GIF))
        for peer in (ada, bob):
            heard = hear(peer)
            assert heard.pop("id")
            assert heard == {
                "email": "ada@example.org",
                "username": "Ada",
                "message": GIF_URL,
                "avatar": "cfe00dde46ef942601ffafb9e2825e802858b460e586b8305b344c1eb826357d",
            }


def test_picture_is_in_the_history(server: Program) -> None:
    with server.join() as ada:
        say(ada, "look:")
        before = hear(ada)["id"]
        ada.send(masked(0x82, HEAD + GIF))
        assert hear(ada)["message"] == GIF_URL
        with resume(server, before) as newcomer:
            assert hear_said(newcomer)["message"] == GIF_URL


def test_picture_that_is_sent_twice_under_one_key_is_shown_once(server: Program) -> None:
    with server.join() as ada, server.join() as bob:
        for _ in range(2):
            ada.send(masked(0x82, b'{"key": "gif-1"}\n' + GIF))
        first = hear(ada)
        assert (first["message"], first["key"]) == (GIF_URL, "gif-1")
        assert hear(ada) == first  # the acknowledgement of the second
        assert hear(bob) == first
        assert_here(bob)


@pytest.mark.parametrize(
    ("beginning", "url"),
    [
        ("89504e470d0a1a0a", "data:image/png;base64,iVBORw0KGgo="),
        ("ffd8ffe0", "data:image/jpeg;base64,/9j/4A=="),
        ("474946383761", "data:image/gif;base64,R0lGODdh"),
        ("524946460400000057454250", "data:image/webp;base64,UklGRgQAAABXRUJQ"),
    ],
)
def test_kind_of_a_picture_is_known_by_its_first_bytes(
    server: Program, beginning: str, url: str
) -> None:
    with server.join() as ada:
        ada.send(masked(0x82, b"{}\n" + bytes.fromhex(beginning)))
        assert hear(ada)["message"] == url


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no JSON before it",
        b"{}\n",
        b"{}\nnot a picture",
        b"{}\n<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"{}\nRIFF\x04\x00\x00\x00WAVE",
        GIF,
    ],
)
def test_what_is_no_picture_is_refused_with_1003(server: Program, data: bytes) -> None:
    with server.join() as ada:
        ada.send(masked(0x82, data))
        assert answer_close(ada)[0] == 1003


@pytest.mark.parametrize(
    "head",
    [b'{"username": 5}', b"{", b"[]", b'{"username": "\xff"}', b'{"key": "%s"}' % (b"k" * 65)],
)
def test_bad_json_before_a_picture_is_refused_with_1008(server: Program, head: bytes) -> None:
    with server.join() as ada:
        ada.send(masked(0x82, head + b"\n" + GIF))
        assert answer_close(ada)[0] == 1008


def test_picture_that_is_too_big_is_refused_with_1009(server: Program) -> None:
    with server.join() as ada:
        ada.send(masked(0x82, HEAD + GIF + bytes(65536)))
        assert ada.read_close()[0] == 1009


def test_largest_picture_reaches_everyone(server: Program) -> None:
    picture = (GIF + bytes(65536))[: 65536 - len(HEAD)]
    with server.join() as ada, server.join() as bob:
        ada.send(masked(0x82, HEAD + picture))
        heard = hear(bob)["message"]
        assert (len(heard), heard[:60]) == (22 + 87320, GIF_URL[:60])
        assert hear(ada)["message"] == heard


def test_picture_is_never_an_event(server: Program) -> None:
    with resume(server) as ada, server.join() as bob:
        ada.send(masked(0x82, b'{"event": "ping"}\n' + GIF))
        assert hear(bob)["message"] == GIF_URL


def test_text_is_said_as_before(server: Program) -> None:
    with server.join() as ada:
        say(ada, "only text")
        assert hear(ada)["message"] == "only text"
