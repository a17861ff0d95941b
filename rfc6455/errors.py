"""The three ways a WebSocket can go wrong. A class exists only where a caller catches it."""

from collections.abc import Sequence


class ProtocolError(Exception):
    """The peer broke a rule: the connection is failed with this close code (RFC 6455, 7.1.7)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class InvalidHandshake(Exception):
    """The opening handshake failed (RFC 6455, 4): `status` is the HTTP status that says so.

    On a server it is the answer to send, with `headers`; on a client the one that was received,
    which is 101 where the answer claimed to agree but broke the rules of doing so, and 400 where
    it was no HTTP response.
    """

    def __init__(self, status: int, reason: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.headers = headers


class ConnectionClosed(Exception):
    """No more messages come or go: `code` and `reason` are those the peer closed with.

    1005 stands for a Close without a code, 1006 for a connection that ended without a Close
    (RFC 6455, 7.1.5).
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason
