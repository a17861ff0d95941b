"""The opening handshake, both sides, as functions over headers (RFC 6455, 3, 4, 9.1, 10.2, 11).

No socket here. HTTP itself is the standard library's: `http.server` reads a request,
`http.client` the headers of a response; what they let pass and the RFC does not is refused by
`check_header_line`. Left out: redirects, authentication and proxies, as 4.1 allows.
"""

import base64
import binascii
import contextlib
import hashlib
import http.client
import io
import ipaddress
import os
import re
from collections.abc import Collection, Iterable, Sequence
from email.message import Message
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from .errors import InvalidHandshake, Refused

VERSION = "13"  # the one version there is (4.1); drafts had others
MAX_HEAD = 16384  # bytes of request or response head; browsers with many cookies stay below 8 KiB
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # 1.3: a value no other protocol would send back
_TOKEN_CHARS = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TOKEN = re.compile(_TOKEN_CHARS)
_HEADER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00\r\n]*\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([0-9]{3})(?: ([^\x00\r\n]*))?\r\n")
_SHOWN = 200  # characters of what a server said that an error repeats
# Control characters but the tab, line ends, and what turns the direction of text: a terminal obeys
# them, and one line can look like two, or like another. Half a surrogate can't even be printed.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PARAMETER = re.compile(
    rf'[ \t]*;[ \t]*({_TOKEN_CHARS})(?:[ \t]*=[ \t]*(?:({_TOKEN_CHARS})|"((?:[^"\\]|\\.)*)"))?'
)
_RESERVED = frozenset({"host", "upgrade", "connection", "origin", "content-length"})
_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@\\]+)/?", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

Extension = tuple[str, list[tuple[str, str | None]]]  # a name and its parameters, as written


class Address(NamedTuple):
    """Where a ws: or wss: URI leads (3)."""

    secure: bool
    host: str  # ASCII; an IPv6 address without its brackets
    port: int
    target: str  # path and query, percent-encoded, for the request line

    @property
    def authority(self) -> str:
        """The Host header's value: the port only where it is not the scheme's own."""
        is_default = self.port == (443 if self.secure else 80)
        return str(Authority(self.host, None if is_default else self.port))

    @property
    def origin(self) -> str:
        """The origin of a page at this address, for a client to claim that it comes from there."""
        return str(Origin("https" if self.secure else "http", self.host, self.port))


class Authority(NamedTuple):
    """A host and perhaps a port, as a Host header has them (RFC 3986, 3.2).

    Two that mean the same are equal: names are in lower case, addresses in their shortest form.
    """

    host: str  # an IPv6 address without its brackets
    port: int | None = None  # as it was written

    @classmethod
    def parse(cls, text: str) -> "Authority":
        """Raises ValueError, in words."""
        host, _, port = text.rpartition(":")
        if not re.fullmatch("[0-9]{0,5}", port) or not host or _is_bare_ipv6(text, host):
            host, port = text, ""
        if int(port or 0) > 65535:
            raise ValueError(f"the port of {text!r} is over 65535")
        return cls(_normal_host(host), int(port) if port else None)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def _is_bare_ipv6(text: str, host: str) -> bool:
    """Whether the last colon of a text belongs to an address, and does not begin a port.

    An IPv6 address should have brackets. Some clients send it without them, which is no risk, as
    no name has a colon. Where both readings make sense (`::1:8080`) there is a port.
    """
    if ":" not in host or host.startswith("["):
        return False
    return _normal_address(host) is None and _normal_address(text) is not None


def _normal_host(text: str) -> str:
    """A name or an address in the one form in which it is compared. Raises ValueError, in words."""
    if text.startswith("[") and text.endswith("]") and ":" in text:
        address = _normal_address(text[1:-1])
    else:
        address = _normal_address(text)
    if address is not None:
        return address
    name = text.lower().removesuffix(".")  # with the dot it is the same name in the DNS
    if not name.isascii() and len(name) < 256:
        with contextlib.suppress(UnicodeError):
            name = name.encode("idna").decode()
    if not _NAME.fullmatch(name):
        raise ValueError(f"{text[:100]!r} is no host name or address")
    return name


def _normal_address(text: str) -> str | None:
    """An IP address in its shortest form, without a zone; None for what is no address."""
    if ":" in text:
        text = text.partition("%")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).compressed


def is_loopback(host: str) -> bool:
    """Whether a host, as `Authority` has it, is reached from its own machine alone."""
    if _normal_address(host) is None:
        return host == "localhost"
    return ipaddress.ip_address(host).is_loopback


LOOPBACK_HOSTS = {Authority("localhost"), Authority("127.0.0.1"), Authority("::1")}


class Origin(NamedTuple):
    """Where a page comes from (RFC 6454). Two that mean the same are equal, as URLs are."""

    scheme: str
    host: str
    port: int | None  # the scheme's own where none was written; None where it has none

    @classmethod
    def parse(cls, text: str) -> "Origin":
        """Raises ValueError, in words."""
        match = _ORIGIN.fullmatch(text)
        if match is None:
            raise ValueError(f"{text[:100]!r} is no origin, as https://chat.example is one")
        scheme = match[1].lower()
        host, port = Authority.parse(match[2])
        return cls(scheme, host, _DEFAULT_PORTS.get(scheme) if port is None else port)

    def __str__(self) -> str:
        is_default = self.port == _DEFAULT_PORTS.get(self.scheme)
        return f"{self.scheme}://{Authority(self.host, None if is_default else self.port)}"


def accept_value(key: str) -> str:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key, as text (4.2.2, step 5.4)."""
    return base64.b64encode(hashlib.sha1((key + _GUID).encode("latin-1")).digest()).decode()


def printable(text: str) -> str:
    """A peer's text for a terminal or a log: what would act on it is shown as `\\x1b` or `\\n`."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def check_header_line(line: bytes) -> None:
    """Refuse what http.client takes: bare CR or LF, NUL, folding, no colon, a space before it."""
    if not _HEADER_LINE.fullmatch(line):
        raise InvalidHandshake(400, "a header line is malformed")


# The server's side (4.2)


def check_request(method: str, version: str, headers: Message) -> None:
    """Refuse a request that does not open a WebSocket (4.2.1). Raises InvalidHandshake."""
    if method != "GET":
        raise InvalidHandshake(405, "a WebSocket opens with GET", [("Allow", "GET")])
    if not has_token(headers, "Upgrade", "websocket"):
        upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
        raise InvalidHandshake(426, "this address speaks WebSocket", upgrade)
    major, minor = version.removeprefix("HTTP/").split(".")
    if (int(major), int(minor)) < (1, 1):
        raise InvalidHandshake(400, "a WebSocket needs HTTP/1.1")
    if not has_token(headers, "Connection", "upgrade"):
        raise InvalidHandshake(400, "the Connection header does not say Upgrade")
    number = _single(headers, "Sec-WebSocket-Version")
    if not re.fullmatch(r"0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5]", number):
        raise InvalidHandshake(400, "Sec-WebSocket-Version is no number from 0 to 255")
    if number != VERSION:  # 4.4: say what would be understood
        offer = [("Sec-WebSocket-Version", VERSION)]
        raise InvalidHandshake(426, f"WebSocket version {number} is not spoken here", offer)
    key = _single(headers, "Sec-WebSocket-Key")
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise InvalidHandshake(400, "Sec-WebSocket-Key is not 16 bytes in base64")


def choose_subprotocol(headers: Message, supported: Sequence[str]) -> str | None:
    """The first of the client's subprotocols that is supported, or None (4.2.2, step 4)."""
    values = headers.get_all("Sec-WebSocket-Protocol", [])
    offered = _split(values)
    tokens = all(_TOKEN.fullmatch(name) for name in offered)
    if not tokens or len(set(offered)) < len(offered) or (values and not offered):
        raise InvalidHandshake(400, "Sec-WebSocket-Protocol is no list of different tokens")
    return next((name for name in offered if name in supported), None)


def response_headers(
    headers: Message, subprotocol: str | None, extension: str | None
) -> list[tuple[str, str]]:
    """What a 101 response says beside its status line (4.2.2, step 5)."""
    response = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_value(_single(headers, "Sec-WebSocket-Key"))),
    ]
    if subprotocol is not None:
        response.append(("Sec-WebSocket-Protocol", subprotocol))
    if extension is not None:
        response.append(("Sec-WebSocket-Extensions", extension))
    return response


def check_host(headers: Message, allowed: Collection[Authority] | None) -> None:
    """Refuse a request whose Host is not one of `allowed`; None is any.

    One that is allowed without a port is allowed with any. This is what stops DNS rebinding: a
    page of evil.example whose name suddenly means 127.0.0.1 has an Origin equal to its Host, so
    that the check of the origin alone would let it in.
    """
    text = _single(headers, "Host")
    if allowed is None:
        return
    try:
        found = Authority.parse(text)
    except ValueError:
        raise InvalidHandshake(403, f"Host {text[:100]!r} is not allowed") from None
    # A port that is not written is the scheme's; a proxy that ends TLS hides which that was.
    ports = (None, 80, 443) if found.port is None else (None, found.port)
    if not any(Authority(found.host, port) in allowed for port in ports):
        could_be = Refused("Host", str(Authority(found.host)))
        raise InvalidHandshake(403, f"Host '{found}' is not allowed", refused=could_be)


def check_origin(
    headers: Message, allowed: Collection[Origin] | None, *, secure: bool = False
) -> None:
    """Refuse a page of another site (10.2): browsers name it, and other clients need no Origin.

    `allowed` None is any. `secure` tells that this server itself speaks TLS.
    """
    if "Origin" not in headers:
        return
    text = _single(headers, "Origin")
    if allowed is None:
        return
    try:
        origin = Origin.parse(text)
    except ValueError:  # among them "null", which a sandboxed page says
        raise InvalidHandshake(403, f"Origin {text[:100]!r} is not allowed") from None
    if origin not in allowed and not _is_own(origin, headers, secure):
        could_be = Refused("Origin", str(origin))
        raise InvalidHandshake(403, f"Origin '{origin}' is not allowed", refused=could_be)


def _is_own(origin: Origin, headers: Message, secure: bool) -> bool:
    """Whether a page comes from the host and port that it now asks.

    The schemes need not be equal: behind a proxy that ends TLS the page's is https, while the
    request reaches us by http. For the same reason a Host without a port is read by the page's
    scheme: `Host: h` is port 443 to a page of https://h and port 80 to one of http://h. Where
    this server speaks TLS itself there is nothing to guess, and it is port 443.
    """
    try:
        host, port = Authority.parse(_single(headers, "Host"))
    except ValueError:
        return False
    if origin.scheme not in _DEFAULT_PORTS:
        return False  # an app's own page, which may call itself localhost
    if port is None:
        port = 443 if secure else _DEFAULT_PORTS.get(origin.scheme)
    return (host, port) == (origin.host, origin.port)


# The client's side (4.1)


def parse_url(url: str) -> Address:
    """Read a ws: or wss: URI (3). Raises ValueError, in words, before anything is sent."""
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError(f"a space or control character in {url!r}")  # urlsplit would drop it
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss"):
        raise ValueError(f"not a ws: or wss: URL: {url!r}")
    if "#" in url:
        raise ValueError(f"a WebSocket URL has no fragment: {url!r}")
    if not parts.hostname or "@" in parts.netloc:
        raise ValueError(f"no host, or a user name, in {url!r}")
    secure = parts.scheme == "wss"
    port = parts.port if parts.port is not None else (443 if secure else 80)
    host = parts.hostname
    if not host.isascii():
        host = host.encode("idna").decode()
    # Percent signs stay: what is encoded already (3: "#" as %23) is not encoded twice.
    target = quote(parts.path or "/", safe="%/:=&?~+!$,;'@()*[]")
    if parts.query:
        target += "?" + quote(parts.query, safe="%/:=&?~+!$,;'@()*[]")
    return Address(secure, host, port, target)


def new_key() -> str:
    """A nonce for Sec-WebSocket-Key: 16 unpredictable bytes in base64 (4.1, 10.3)."""
    return base64.b64encode(os.urandom(16)).decode()


def build_request(
    address: Address,
    key: str,
    origin: str | None = None,
    subprotocols: Sequence[str] = (),
    extension: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """The client's request (4.1). Raises ValueError for what would not be one header line each."""
    if len(set(subprotocols)) < len(subprotocols):
        raise ValueError("a subprotocol is asked for twice")
    if not all(_TOKEN.fullmatch(name) for name in subprotocols):
        raise ValueError("a subprotocol is not a token")
    lines = [
        ("Host", address.authority),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", VERSION),
    ]
    if origin is not None:
        if not origin.isascii():
            raise ValueError("an origin is ASCII")
        lines.append(("Origin", origin))
    if subprotocols:
        lines.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    if extension is not None:
        lines.append(("Sec-WebSocket-Extensions", extension))
    for name, value in headers:
        if name.lower() in _RESERVED or name.lower().startswith("sec-websocket-"):
            raise ValueError(f"the header {name} is the handshake's own")
        lines.append((name, value))
    request = f"GET {address.target} HTTP/1.1\r\n".encode("ascii")
    for name, value in lines:
        line = f"{name}: {value}\r\n".encode("latin-1")
        if not _HEADER_LINE.fullmatch(line):
            raise ValueError(f"not one header line: {name}")
        request += line
    return request + b"\r\n"


class Response(NamedTuple):
    """A response's head."""

    status: int
    phrase: str  # in the server's words, fit for a terminal
    headers: Message


def parse_response(head: bytes) -> Response:
    """Read a response's head, its empty line included. Raises InvalidHandshake."""
    first, *lines, _ = head.splitlines(keepends=True)
    found = _STATUS_LINE.fullmatch(first)
    if not found:
        raise InvalidHandshake(400, f"not an HTTP/1.1 response: {first[:60]!r}")
    minor, status, phrase = found.groups(default=b"")
    if (minor, status) == (b"0", b"101"):  # 4.1: a refusal may be of any version, this may not
        raise InvalidHandshake(101, "the server agreed in HTTP/1.0")
    if status == b"101":
        for line in lines:
            check_header_line(line)
    else:  # A refusal is told even where a line of it is malformed: nothing hangs on the line.
        lines = [line for line in lines if _HEADER_LINE.fullmatch(line)]
    try:
        headers = http.client.parse_headers(io.BytesIO(b"".join(lines)))
    except http.client.HTTPException as error:
        raise InvalidHandshake(400, f"the response is malformed: {error}") from None
    return Response(int(status), _excerpt(phrase), headers)


def refusal(response: Response, body: bytes) -> InvalidHandshake:
    """What to raise for a response other than 101 (4.1): what the server said, and how it ends."""
    status, reason, headers = response
    if not reason and status in list(HTTPStatus):
        reason = HTTPStatus(status).phrase
    location = headers.get("Location")
    if 300 <= status < 400 and location is not None:
        where = f"to {_excerpt(location.encode('latin-1', 'replace'))}"
        reason = f"{reason}, {where}" if reason else where
    shown = _excerpt(body) if _is_text(headers) else ""
    return InvalidHandshake(status, reason, headers.items(), body=shown)


def _is_text(headers: Message) -> bool:
    """Whether a body is for people to read; what says nothing of itself usually is."""
    if headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        return False
    kind = headers.get("Content-Type", "text/plain")
    return re.match(r"\s*(text/|application/[^;]*(json|xml))", kind, re.IGNORECASE) is not None


def _excerpt(data: bytes) -> str:
    """The beginning of a server's words, as one line that does nothing to a terminal."""
    words = printable(" ".join(data.decode(errors="replace").split()))
    return words if len(words) <= _SHOWN else words[: _SHOWN - 1] + "…"


class Answer(NamedTuple):
    """What a server's 101 chose; its extensions are not checked yet."""

    subprotocol: str | None
    extensions: list[Extension]


def check_response(response: Response, key: str, subprotocols: Sequence[str]) -> Answer:
    """Refuse an answer that does not agree to what was asked (4.1). Raises InvalidHandshake."""
    status, _, headers = response
    if status != 101:
        raise refusal(response, b"")
    if _single(headers, "Upgrade", status).lower() != "websocket":
        raise InvalidHandshake(status, "the Upgrade header is not websocket")
    if not has_token(headers, "Connection", "upgrade"):
        raise InvalidHandshake(status, "the Connection header does not say Upgrade")
    if _single(headers, "Sec-WebSocket-Accept", status) != accept_value(key):
        raise InvalidHandshake(status, "Sec-WebSocket-Accept does not belong to the key sent")
    subprotocol = None
    if "Sec-WebSocket-Protocol" in headers:
        subprotocol = _single(headers, "Sec-WebSocket-Protocol", status)
        if subprotocol not in subprotocols:
            raise InvalidHandshake(status, f"subprotocol {subprotocol!r} was not asked for")
    return Answer(subprotocol, parse_extensions(headers, status))


# Header values (4.3, 9.1)


def parse_extensions(headers: Message, status: int = 400) -> list[Extension]:
    """Sec-WebSocket-Extensions by the grammar of 9.1, in order; quoted values are unquoted.

    Raises InvalidHandshake with this status.
    """
    values = headers.get_all("Sec-WebSocket-Extensions", [])
    elements = _split(values)
    if values and not elements:
        raise InvalidHandshake(status, "Sec-WebSocket-Extensions is empty")
    return [_parse_extension(element, status) for element in elements]


def _parse_extension(text: str, status: int) -> Extension:
    name = _TOKEN.match(text)
    at = name.end() if name else 0
    parameters: list[tuple[str, str | None]] = []
    while at < len(text):  # one regex for all of it could take exponential time
        parameter = _PARAMETER.match(text, at) if name else None
        if parameter is None:
            raise InvalidHandshake(status, "Sec-WebSocket-Extensions is malformed")
        attribute, token, quoted = parameter.groups()
        value = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        if value is not None and not _TOKEN.fullmatch(value):  # 9.1: a token, once unquoted
            what = "Sec-WebSocket-Extensions has a value that is no token"
            raise InvalidHandshake(status, what)
        parameters.append((attribute, value))
        at = parameter.end()
    assert name
    return name[0], parameters


def _split(values: Iterable[str]) -> list[str]:
    """The elements of comma lists, also over several headers; empty ones do not count (4.3)."""
    elements = (element.strip(" \t") for value in values for element in value.split(","))
    return [element for element in elements if element]


def has_token(headers: Message, name: str, token: str) -> bool:
    """Whether a comma list holds this token, in any case."""
    return token in (element.lower() for element in _split(headers.get_all(name, [])))


def _single(headers: Message, name: str, status: int = 400) -> str:
    """The value of a header that has to be there once (11.3). Raises InvalidHandshake."""
    values = headers.get_all(name, [])
    if not values:
        raise InvalidHandshake(status, f"the {name} header is missing")
    if len(values) > 1:
        raise InvalidHandshake(status, f"the {name} header comes {len(values)} times")
    return str(values[0]).strip(" \t")
