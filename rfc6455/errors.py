"""The ways a WebSocket can go wrong, and which close codes may say so (RFC 6455, 7.4).

A class exists only where a caller catches it.
"""

from collections.abc import Sequence
from typing import NamedTuple

MAX_REASON = 123  # bytes; with the two of the code they fill a control frame (5.5)
# 7.4.1, and the registry of 11.7 for 1012-1014, which came after the RFC.
_DEFINED_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
_MISSING_EXTENSION = 1010


def is_sendable(code: int) -> bool:
    """Whether the code may stand in a Close frame: defined, or of a free range (7.4.1, 7.4.2)."""
    return code in _DEFINED_CODES or 3000 <= code <= 4999


class ProtocolError(Exception):
    """The peer broke a rule: the connection is failed with this close code (RFC 6455, 7.1.7)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Refused(NamedTuple):
    """What a server refused and a program could allow: which header, and what it would allow."""

    header: str  # "Origin" or "Host"
    value: str  # as `allowed_origins` and `allowed_hosts` of a server take it


class InvalidHandshake(Exception):
    """The opening handshake failed (RFC 6455, 4): `status` is the HTTP status that says so.

    On a server it is the answer to send, with `headers`, and `refused` is what could be allowed.
    On a client `status` is the one that was received, `reason` its reason phrase, and `body` the
    beginning of a text that came with it. There it is 101 where the answer claimed to agree but
    broke the rules of doing so, and 400 where it was no HTTP response. `reason` and `body` are
    fit for a terminal, whatever the peer sent; `headers` are as they came.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        headers: Sequence[tuple[str, str]] = (),
        *,
        body: str = "",
        refused: Refused | None = None,
    ) -> None:
        super().__init__(f"{status} {reason}".rstrip())
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = body
        self.refused = refused

    def __str__(self) -> str:
        said = super().__str__()
        if not self.body:
            return said
        # Many servers begin the text with the status line, too: once is enough.
        return self.body if self.body.startswith(said) else f"{said}: {self.body}"


class ConnectionClosed(Exception):
    """No more messages come or go: `code` and `reason` are those the peer closed with.

    Where it did not close, `reason` says in our words or the system's why the connection ended.
    1005 stands for a Close without a code, 1006 for a connection that ended without a Close
    (RFC 6455, 7.1.5).
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class Close(Exception):
    """A server's handler raises it to close its connection with this code and reason.

    A reason of more than 123 bytes, which often quotes what a peer has sent, is cut at a character.
    Raises ValueError for a code that a server may not send (RFC 6455, 7.4).
    """

    def __init__(self, code: int, reason: str = "") -> None:
        if not is_sendable(code) or code == _MISSING_EXTENSION:  # 7.4.1: 1010 is for clients
            raise ValueError(f"a server may not close with {code}")
        reason = reason.encode(errors="replace")[:MAX_REASON].decode(errors="ignore")
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason
