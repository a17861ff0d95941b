"""permessage-deflate for tests: offers, answers, and messages, deflated and not.

What a peer compresses is written out as bytes, mostly the examples of RFC 7692, 7.2.3. What our
side compresses is inflated by zlib.
"""

import functools
import random
import zlib

from rfc6455 import Deflate

PMD = "permessage-deflate"
DEFAULT = Deflate()
SERVER_10 = Deflate(server_max_window_bits=10)
SERVER_FORGETS = Deflate(server_no_context_takeover=True)
CLIENT_10 = Deflate(client_max_window_bits=10)
CLIENT_FORGETS = Deflate(client_no_context_takeover=True)
TAIL = bytes.fromhex("00 00 ff ff")
HELLO = bytes.fromhex("f2 48 cd c9 c9 07 00")  # "Hello" (7.2.3.1)
AGAIN = bytes.fromhex("f2 00 11 00 00")  # "H" and four of the five bytes before it (7.2.3.2)
TEXT = "All work and no play makes Jack a dull boy. " * 20  # 880 bytes
BAD_BITS = ["", "=7", "=16", "=0", "=08", "=+9", "=-9", "=1.0", "=abc", "=010", "=1e1", '="08"']


# What the server wants, the offer, and its answer.
ACCEPTED = [
    (Deflate(), "", ""),
    (Deflate(), "; server_no_context_takeover", ""),
    (Deflate(), "; client_no_context_takeover", "; client_no_context_takeover"),
    (Deflate(), "; client_max_window_bits", ""),
    (Deflate(), "; client_max_window_bits=15", ""),
    (Deflate(), "; client_max_window_bits=10", ""),
    (Deflate(), "; client_max_window_bits=8", ""),
    (Deflate(), "; server_max_window_bits=15", "; server_max_window_bits=15"),
    (Deflate(), "; server_max_window_bits=10", "; server_max_window_bits=10"),
    (Deflate(), "; server_max_window_bits=9", "; server_max_window_bits=9"),
    (Deflate(), '; server_max_window_bits="10"', "; server_max_window_bits=10"),
    (Deflate(), '; server_max_window_bits="1\\0"', "; server_max_window_bits=10"),
    (SERVER_10, "", "; server_max_window_bits=10"),
    (SERVER_10, "; server_max_window_bits=12", "; server_max_window_bits=10"),
    (SERVER_10, "; server_max_window_bits=9", "; server_max_window_bits=9"),
    (CLIENT_FORGETS, "", "; client_no_context_takeover"),
    (Deflate(client_max_window_bits=0), "", ""),
    (Deflate(client_max_window_bits=0), "; client_max_window_bits=10", ""),
    (CLIENT_10, "; client_max_window_bits", "; client_max_window_bits=10"),
    (CLIENT_10, "; client_max_window_bits=12", "; client_max_window_bits=10"),
    (CLIENT_10, '; client_max_window_bits="9"', "; client_max_window_bits=9"),
    (Deflate(client_max_window_bits=8), "; client_max_window_bits", "; client_max_window_bits=8"),
    (
        Deflate(server_max_window_bits=11, client_max_window_bits=10),
        "; client_max_window_bits; client_no_context_takeover; server_no_context_takeover",
        "; client_no_context_takeover; server_max_window_bits=11; client_max_window_bits=10",
    ),
]


# What the server wants, and an offer that it declines.
DECLINED = [
    (Deflate(), "; foo=1"),
    (Deflate(), "; foo"),
    (Deflate(), "; server_no_context_takeover; server_no_context_takeover"),
    (Deflate(), "; client_max_window_bits; client_max_window_bits=10"),
    (Deflate(), "; server_max_window_bits=10; server_max_window_bits=10"),
    (Deflate(), "; server_max_window_bits=8"),
    (Deflate(server_max_window_bits=8), ""),
    (Deflate(), "; server_no_context_takeover=1"),
    (Deflate(), "; client_no_context_takeover=1"),
    (Deflate(), '; client_no_context_takeover="true"'),
    (CLIENT_10, ""),
    (CLIENT_10, "; client_no_context_takeover"),
    *((Deflate(), f"; server_max_window_bits{value}") for value in BAD_BITS),
    *((Deflate(), f"; client_max_window_bits{value}") for value in BAD_BITS[1:]),
]


# What the client wants, and its offer.
OFFERED = [
    (Deflate(), f"{PMD}; client_max_window_bits"),
    (Deflate(client_max_window_bits=0), PMD),
    (Deflate(client_max_window_bits=11), f"{PMD}; client_max_window_bits=11"),
    (
        Deflate(server_max_window_bits=10),
        f"{PMD}; server_max_window_bits=10; client_max_window_bits",
    ),
    (
        Deflate(True, True, 12, 0),
        f"{PMD}; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12",
    ),
]


# What the client offered, the answer, and what is agreed: both flags and both windows.
AGREED = [
    (Deflate(), "", (False, False, 15, 15)),
    (Deflate(), "; server_no_context_takeover", (True, False, 15, 15)),
    (Deflate(), "; client_no_context_takeover", (False, True, 15, 15)),
    (Deflate(), "; server_max_window_bits=15", (False, False, 15, 15)),
    (Deflate(), "; server_max_window_bits=8", (False, False, 8, 15)),
    (Deflate(), '; server_max_window_bits="10"', (False, False, 10, 15)),
    (Deflate(), "; client_max_window_bits=10", (False, False, 15, 10)),
    (Deflate(), '; client_max_window_bits="9"', (False, False, 15, 9)),
    (Deflate(), "; client_max_window_bits=8", (False, False, 15, 8)),
    (Deflate(client_max_window_bits=8), "; client_max_window_bits=8", (False, False, 15, 8)),
    (SERVER_10, "; server_max_window_bits=10", (False, False, 10, 15)),
    (SERVER_10, "; server_max_window_bits=9", (False, False, 9, 15)),
    (SERVER_FORGETS, "; server_no_context_takeover", (True, False, 15, 15)),
    (CLIENT_FORGETS, "", (False, False, 15, 15)),
    (CLIENT_FORGETS, "; client_no_context_takeover", (False, True, 15, 15)),
    (CLIENT_10, "", (False, False, 15, 10)),
    (CLIENT_10, "; client_max_window_bits=12", (False, False, 15, 10)),
    (CLIENT_10, "; client_max_window_bits=9", (False, False, 15, 9)),
    (Deflate(client_max_window_bits=0), "; server_max_window_bits=11", (False, False, 11, 15)),
]


# What the client offered, and an answer that it refuses.
REFUSED = [
    (Deflate(), f"{PMD}, {PMD}"),
    (Deflate(), f"{PMD}, foo"),
    (Deflate(), f"foo, {PMD}"),
    (Deflate(), "foo"),
    (None, PMD),
    (None, "foo"),
    (SERVER_10, PMD),
    (SERVER_10, f"{PMD}; server_max_window_bits=11"),
    (SERVER_10, f"{PMD}; server_no_context_takeover"),
    (SERVER_FORGETS, PMD),
    (SERVER_FORGETS, f"{PMD}; client_no_context_takeover"),
    (Deflate(), f"{PMD}; foo=1"),
    (Deflate(), f"{PMD}; server_max_window_bits=10; server_max_window_bits=10"),
    (Deflate(), f"{PMD}; client_no_context_takeover; client_no_context_takeover"),
    (Deflate(), f"{PMD}; server_no_context_takeover=1"),
    (Deflate(), f"{PMD}; client_no_context_takeover=1"),
    (Deflate(client_max_window_bits=0), f"{PMD}; client_max_window_bits=10"),
    (Deflate(client_max_window_bits=0), f"{PMD}; client_max_window_bits=15"),
    *((Deflate(), f"{PMD}; server_max_window_bits{value}") for value in BAD_BITS),
    *((Deflate(), f"{PMD}; client_max_window_bits{value}") for value in BAD_BITS),
]


def server_bits(bits: int) -> str:
    """An offer or an answer that limits the server's window."""
    return f"{PMD}; server_max_window_bits={bits}"


def inflated(payload: bytes, bits: int = 15) -> bytes:
    """One message, inflated byte by byte, so that zlib cannot refer back beyond the window."""
    inflater = zlib.decompressobj(-bits)
    clear = b""
    rest = payload + TAIL
    while rest:
        clear += inflater.decompress(rest, 1)
        rest = inflater.unconsumed_tail
    while more := inflater.decompress(b"", 1):
        clear += more
    assert not inflater.eof, "a block with BFINAL"
    return clear


def whole(payload: bytes) -> bytes:
    """One message, inflated with the largest window."""
    inflater = zlib.decompressobj(-15)
    clear = inflater.decompress(payload + TAIL)
    assert not inflater.eof, "a block with BFINAL"
    return clear


def far_apart(distance: int) -> bytes:
    """So many random bytes, each of 4 bits of entropy, and then the same bytes again."""
    block = bytes(random.Random(6455).choices(range(16), k=distance))
    return block * 2


def deflated(message: bytes, bits: int) -> bytes:
    """A message as a peer compresses it that has a window of so many bits."""
    compressor = zlib.compressobj(9, wbits=-bits)
    return (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


@functools.cache
def bomb(mebibytes: int) -> bytes:
    """So many MiB of zeros, deflated to about a thousandth."""
    compressor = zlib.compressobj(9, wbits=-15)
    pieces = [compressor.compress(bytes(1 << 20)) for _ in range(mebibytes)]
    return (b"".join(pieces) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def frame_of_hello(role: str) -> bytes:
    """The compressed message "Hello" as the peer of an endpoint in this role sends it."""
    if role == "client":
        return bytes.fromhex("c1 07 f2 48 cd c9 c9 07 00")
    return bytes.fromhex("c1 87 00 00 00 00 f2 48 cd c9 c9 07 00")
