"""Headers of requests and responses, as the functions of the opening handshake take them."""

import http.client
import io
from email.message import Message

from peers import ACCEPT, KEY
from rfc6455.handshake import Extension, Headers, parse_extensions


def headers_of(*lines: str) -> Message:
    """Headers as http.server and http.client read them."""
    text = "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return http.client.parse_headers(io.BytesIO(text.encode("latin-1")), _class=Headers)


def request_headers(**changes: str | None) -> Message:
    """Those of a good request; `changes` replace headers (`_` for `-`), None leaves one out."""
    headers = {
        "Host": "server.example.com",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    return _changed(headers, changes)


def response_headers(**changes: str | None) -> Message:
    """Those of a good 101 response to KEY, changed in the same way."""
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}
    return _changed(headers, changes)


def _changed(headers: dict[str, str], changes: dict[str, str | None]) -> Message:
    changed = headers | {name.replace("_", "-"): value for name, value in changes.items()}
    return headers_of(*(f"{name}: {value}" for name, value in changed.items() if value is not None))


def extensions(*values: str) -> list[Extension]:
    """What the layer reads from Sec-WebSocket-Extensions headers with these values."""
    return parse_extensions(headers_of(*(f"Sec-WebSocket-Extensions: {each}" for each in values)))
