"""Messages that go out in fragments, as bytes, without a socket (RFC 6455, 5.4)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest

from protocols import Endpoint, both_roles
from rfc6455 import Deflate
from rfc6455.protocol import Part


def sent_for(endpoint: Endpoint, parts: Iterable[Part]) -> list[bytes]:
    """The frames of a message, as a server would send them."""
    return [endpoint.readable(frame) for frame in endpoint.protocol.build_fragments(parts)]


@both_roles
@pytest.mark.requirement("5.4-5", "5.1-1", "5.1-3")
@pytest.mark.parametrize(
    ("parts", "frames"),
    [
        # The example of 5.7
        (["Hel", "lo"], ["01 03 48656c", "80 02 6c6f"]),
        (("Hel", "lo"), ["01 03 48656c", "80 02 6c6f"]),
        (["a", "", "b"], ["01 01 61", "00 00", "80 01 62"]),
        (["", ""], ["01 00", "80 00"]),
        (["Hello"], ["81 05 48656c6c6f"]),
        ([""], ["81 00"]),
        (["\U0001f600", "é"], ["01 04 f09f9880", "80 02 c3a9"]),
        ([b"\x00", b"\xff"], ["02 01 00", "80 01 ff"]),
        ([bytearray(b"a"), memoryview(b"b"), b"c"], ["02 01 61", "00 01 62", "80 01 63"]),
        ([memoryview(b"abcd")[::2], b""], ["02 02 6163", "80 00"]),
        ([], []),
        (["x" * 126, b"".decode()], ["01 7e 007e" + "78" * 126, "80 00"]),
    ],
)
def test_each_part_of_a_list_is_a_frame_and_the_last_one_has_fin(
    role: str, parts: Any, frames: list[str]
) -> None:
    assert sent_for(Endpoint(role), parts) == [bytes.fromhex(frame) for frame in frames]


class Slow(Sequence[str]):
    """Two parts; it notes when it is asked for each."""

    def __init__(self, asked: list[int]) -> None:
        self._asked = asked

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        self._asked.append(index)
        return ["Hel", "lo"][index]


def test_sequence_that_makes_its_parts_is_asked_for_each_when_its_turn_comes() -> None:
    asked: list[int] = []
    fragments = Endpoint("server").protocol.build_fragments(Slow(asked))
    assert (next(fragments), asked) == (b"\x01\x03Hel", [0])
    assert (next(fragments), asked) == (b"\x80\x02lo", [0, 1])


@both_roles
@pytest.mark.requirement("5.4-5")
@pytest.mark.parametrize(
    ("parts", "frames"),
    [
        (["Hel", "lo"], ["01 03 48656c", "00 02 6c6f", "80 00"]),
        ([b"\x00"], ["02 01 00", "80 00"]),
        ([""], ["01 00", "80 00"]),
        ([], []),
    ],
)
def test_parts_whose_last_is_not_known_are_ended_by_an_empty_frame(
    role: str, parts: list[str | bytes], frames: list[str]
) -> None:
    assert sent_for(Endpoint(role), iter(parts)) == [bytes.fromhex(frame) for frame in frames]


def test_part_is_asked_for_only_when_its_frame_is() -> None:
    asked = []

    def parts() -> Iterator[str]:
        for part in ("a", "b"):
            asked.append(part)
            yield part

    frames = Endpoint("server").protocol.build_fragments(parts())
    assert asked == []
    assert next(frames) == bytes.fromhex("01 01 61")
    assert asked == ["a"]
    assert next(frames) == bytes.fromhex("00 01 62")
    assert asked == ["a", "b"]


@pytest.mark.parametrize(
    ("parts", "error", "words"),
    [
        (["a", b"b"], TypeError, "all text or all binary"),
        ([b"a", "b"], TypeError, "all text or all binary"),
        ([1], TypeError, "bytes-like"),
        ([b"a", 1], TypeError, "bytes-like"),
        (["a", None], TypeError, "bytes-like"),
        ({"a": "b"}, TypeError, "a mapping has no order"),
        (7, TypeError, "an iterable of those"),
        (["\ud800"], UnicodeEncodeError, "surrogates not allowed"),
    ],
)
def test_what_is_no_part_of_the_message_is_refused(
    parts: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        sent_for(Endpoint("server"), parts)


@both_roles
def test_fragments_are_not_compressed_and_the_peer_can_tell(role: str) -> None:
    endpoint = Endpoint(role, deflate=Deflate())
    frames = sent_for(endpoint, ["x" * 1000, "y" * 1000])
    assert [frame[0] for frame in frames] == [0x01, 0x80]  # RSV1 is not set


@both_roles
@pytest.mark.requirement("5.4-1")
def test_other_side_reads_the_fragments_as_one_message(role: str) -> None:
    sender = Endpoint(role)
    receiver = Endpoint("client" if role == "server" else "server")
    for frame in sender.protocol.build_fragments(iter(["你", "", "好" * 30000])):
        receiver.protocol.receive_data(frame)
    assert receiver.messages() == ["你" + "好" * 30000]
