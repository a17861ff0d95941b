"""WebSockets as RFC 6455 defines them, both sides, on Python's standard library.

Read it in this order. Without sockets and threads: `errors`, `frames` (5.1-5.3), `handshake` (3,
4), `deflate` (RFC 7692), `protocol`, which is one connection as a state machine (5.4-8), and
`keepalive` (5.5.2). With them: `clock`, which has all deadlines, `stream`, which is TCP or TLS,
`connection`, which is the WebSocket itself, `server` and `client`. `trace` and `trace_words` show
what travels. `__main__`, with `interactive` and `cli`, is a client to type in.
"""

from .client import connect
from .connection import Handshake, WebSocket, broadcast
from .deflate import Deflate
from .errors import Close, ConnectionClosed, InvalidHandshake, ProtocolError, Refused
from .frames import CloseCode, Opcode
from .handshake import printable
from .protocol import State
from .server import PageText, WebSocketServer
from .stream import Timeouts
from .trace import Frame, HandshakeLine
from .trace_words import describe, wants_colour

__all__ = [
    "Close",
    "CloseCode",
    "ConnectionClosed",
    "Deflate",
    "Frame",
    "Handshake",
    "HandshakeLine",
    "InvalidHandshake",
    "Opcode",
    "PageText",
    "ProtocolError",
    "Refused",
    "State",
    "Timeouts",
    "WebSocket",
    "WebSocketServer",
    "broadcast",
    "connect",
    "describe",
    "printable",
    "wants_colour",
]
