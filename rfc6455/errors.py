"""The exceptions of this package, and the close codes that may be sent (RFC 6455, 7.4).

A class of its own exists only where a caller catches it. Left out: a base class for all of them,
because no caller handles them alike. `frames.CloseCode` has the names of the codes.
"""

from collections.abc import Sequence
from typing import NamedTuple

MAX_REASON = 123  # bytes; with the two bytes of the code they fill a control frame (5.5)
# 7.4.1 defines the codes up to 1011. 1012-1014 were added to the registry of 11.7 later.
_DEFINED_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
_MANDATORY_EXTENSION = 1010


def is_sendable(code: int) -> bool:
    """Whether a Close frame may carry this code.

    These are the codes that are defined (7.4.1), and those which libraries and applications may
    define for themselves (7.4.2).
    """
    return code in _DEFINED_CODES or 3000 <= code <= 4999


class ProtocolError(Exception):
    """The peer broke a rule, and the connection is failed with this close code (7.1.7)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Refused(NamedTuple):
    """The header for which a server refused a request, and the value that would have to be allowed.

    With it a program can tell its user how to allow the same request the next time.
    """

    header: str  # "Origin" or "Host"
    value: str  # in the form that a server takes in `allowed_origins` and `allowed_hosts`
    # The IP address from which the request came, where it has X-Forwarded headers; else None.
    proxy: str | None = None
    is_trusted: bool = False  # whether these headers were believed


class InvalidHandshake(Exception):
    """The opening handshake failed (RFC 6455, 4).

    On a server, `status`, `reason` and `headers` are those of the HTTP response to send. `refused`
    is set where the request could be allowed.

    On a client, `status`, `reason` and `headers` are those of the response that came, and `body`
    is the beginning of its text. `status` is 101 where the server accepted the handshake but broke
    a rule in doing so, and 400 where the response was not HTTP. `reason` and `body` may be printed
    to a terminal, whatever the server sent; `headers` are as they came.
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
        status_and_reason = super().__str__()
        if not self.body:
            return status_and_reason
        # Many servers repeat the status line at the beginning of the body.
        if self.body.startswith(status_and_reason):
            return self.body
        return f"{status_and_reason}: {self.body}"


class ConnectionClosed(Exception):
    """The connection is closed: no more messages can be received or sent.

    `code` and `reason` are those of the peer's Close frame. The code is 1005 for a Close frame
    without a code, and 1006 where the peer sent no Close frame (7.1.5); then `reason` says why the
    connection ended, in our words or in those of the operating system.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class Close(Exception):
    """A server's handler raises this to close its connection with a code and a reason.

    A reason of more than 123 bytes is cut between two characters, because it often quotes what a
    peer has sent. Raises ValueError for a code that a server may not send (7.4).
    """

    def __init__(self, code: int, reason: str = "") -> None:
        # 7.4.1: only a client sends 1010, when the server did not accept an extension it needs.
        if not is_sendable(code) or code == _MANDATORY_EXTENSION:
            raise ValueError(f"a server may not send the close code {code}")
        reason = reason.encode(errors="replace")[:MAX_REASON].decode(errors="ignore")
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason
