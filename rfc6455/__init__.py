"""WebSockets from RFC 6455 on the standard library, both sides. Read it in the order of the RFC:

`frames` (5.1-5.3), `handshake` (3, 4), `connection` (5.4-8), `server`, `client`. Below these are
`stream`, which is TCP or TLS, `clock` with all deadlines, and `keepalive`; `deflate` is RFC 7692.
"""

from .client import connect
from .connection import Handshake, WebSocket, broadcast
from .deflate import Deflate
from .errors import Close, ConnectionClosed, InvalidHandshake, ProtocolError, Refused
from .frames import CloseCode, Opcode
from .handshake import printable
from .protocol import State
from .server import WebSocketServer
from .stream import Timeouts

__all__ = [
    "Close",
    "CloseCode",
    "ConnectionClosed",
    "Deflate",
    "Handshake",
    "InvalidHandshake",
    "Opcode",
    "ProtocolError",
    "Refused",
    "State",
    "Timeouts",
    "WebSocket",
    "WebSocketServer",
    "broadcast",
    "connect",
    "printable",
]
