"""The opening handshake of both sides, as functions over headers (RFC 6455, 3, 4, 9.1, 10.2, 11).

No socket is read or written here, and any thread may call these functions. The standard library
reads HTTP: `http.server` the request, and `http.client` the headers of the response. Both accept
some lines that HTTP forbids; `check_header_line` refuses these. A server may stand behind a reverse
proxy, which says in X-Forwarded headers what it has hidden. Left out on the client's side: proxies,
redirects and authentication, as 4.1 allows. A cookie is a header like any other.
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

VERSION = "13"  # 4.1: the version of the RFC; its drafts had the smaller numbers
MAX_HEAD = 16384  # bytes of a request's or response's head; browsers with many cookies send 8 KiB
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # 1.3: only a WebSocket server appends it to the key
_MAX_EXCERPT = 200  # characters of a server's text that an error message repeats
_MAX_QUOTE = 100  # characters of a bad value that an error message repeats
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
# Headers that build_request writes itself, and Content-Length, since the request has no body.
_RESERVED_HEADERS = frozenset({"host", "upgrade", "connection", "origin", "content-length"})

_TOKEN_CHARS = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TOKEN = re.compile(_TOKEN_CHARS)
_VERSION_NUMBER = re.compile(r"0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5]")  # 4.3: 0 to 255
_HEADER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00\r\n]*\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([0-9]{3})(?: ([^\x00\r\n]*))?\r\n")
# 9.1: one parameter of an extension: `; name`, `; name=token` or `; name="quoted string"`
_PARAMETER = re.compile(
    rf'[ \t]*;[ \t]*({_TOKEN_CHARS})(?:[ \t]*=[ \t]*(?:({_TOKEN_CHARS})|"((?:[^"\\]|\\.)*)"))?'
)
_HOST_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
# An IP address with a port: `192.0.2.1:50000` or `[2001:db8::1]:50000`; or the brackets alone
_HOP_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")
# Some proxies say in X-Forwarded-Proto the scheme of the page, others that of the WebSocket.
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@\\]+)/?", re.IGNORECASE)
# What a log or a terminal must not get from a peer: control characters other than the tab and line
# separators, which it obeys; marks that change the direction of text, which make a line look like
# another; and halves of surrogate pairs, which cannot be encoded.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ESCAPES = {
    ord(character): character.encode("unicode_escape").decode()
    for character in _UNPRINTABLE.findall("".join(map(chr, range(0xE000))))  # up to the surrogates
}


class Address(NamedTuple):
    """What a ws: or wss: URI says about the server to connect to (3)."""

    secure: bool
    host: str  # ASCII; an IPv6 address without its brackets
    port: int
    target: str  # 3: the resource name, that is path and query, percent-encoded

    @property
    def authority(self) -> str:
        """The value of the Host header: with the port unless it is the scheme's default."""
        is_default = self.port == (443 if self.secure else 80)
        return str(Authority(self.host, None if is_default else self.port))

    @property
    def origin(self) -> str:
        """The origin of a page at this address, which a client can send to pass for that page."""
        return str(Origin("https" if self.secure else "http", self.host, self.port))


class Authority(NamedTuple):
    """A host, and a port if one was written, as in a Host header (RFC 3986, 3.2).

    Two that mean the same compare equal: names are in lower case, and addresses in their shortest
    form.
    """

    host: str  # an IPv6 address without its brackets
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Authority":
        """Read `host` or `host:port`. Raises ValueError with a message for the user."""
        host, _, port = text.rpartition(":")
        if not re.fullmatch("[0-9]{0,5}", port) or not host or _is_bare_ipv6(text, host):
            return cls(_normalize_host(text))
        if not port:  # RFC 3986, 3.2.3: the port after the colon may be empty
            return cls(_normalize_host(host))
        if int(port) > 65535:
            raise ValueError(f"the port of {_quote(text)} is over 65535")
        return cls(_normalize_host(host), int(port))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def _is_bare_ipv6(text: str, host: str) -> bool:
    """Whether a text is an IPv6 address without brackets; `host` is what precedes its last colon.

    Looser than RFC 3986, which requires the brackets: some clients leave them out, and as a name
    has no colon, nothing is mistaken for something else. Where both readings are possible, as in
    `::1:8080`, what follows the last colon is a port.
    """
    return ":" in host and _normalize_address(host) is None and _normalize_address(text) is not None


def _normalize_host(text: str) -> str:
    """A name or an address in the one form in which hosts are compared. Raises ValueError."""
    if text.startswith("[") and text.endswith("]") and ":" in text:
        address = _normalize_address(text[1:-1])
    else:
        address = _normalize_address(text)
    if address is not None:
        return address
    name = text.lower().removesuffix(".")  # in the DNS, the name with the dot is the same
    if not name.isascii() and len(name) < 256:  # longer than any name, and slow to encode
        with contextlib.suppress(UnicodeError):
            name = name.encode("idna").decode()
    if not _HOST_NAME.fullmatch(name):
        raise ValueError(f"{_quote(text)} is not a host name or address")
    return name


def _normalize_address(text: str) -> str | None:
    """An IP address in its shortest form and without a zone; None if the text is not an address."""
    before_zone = text.partition("%")[0]
    if ":" in before_zone:  # only IPv6 has zones
        text = before_zone
    elif not text[-1:].isdigit():  # a name, as in most requests; ipaddress takes long to say so
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).compressed


def is_loopback(host: str) -> bool:
    """Whether a host, in the form that `Authority` has, is reached from its own machine alone."""
    if _normalize_address(host) is None:
        return host == "localhost"
    return ipaddress.ip_address(host).is_loopback


LOOPBACK_HOSTS = {Authority("localhost"), Authority("127.0.0.1"), Authority("::1")}


class Origin(NamedTuple):
    """Where a page comes from (RFC 6454). Two that mean the same compare equal, as URLs do."""

    scheme: str
    host: str
    port: int | None  # the scheme's default where none was written, None if it has no default

    @classmethod
    def parse(cls, text: str) -> "Origin":
        """Read `scheme://host` or `scheme://host:port`. Raises ValueError, as Authority does."""
        match = _ORIGIN.fullmatch(text)
        if match is None:
            raise ValueError(f"{_quote(text)} is not an origin such as https://chat.example")
        scheme = match[1].lower()
        host, port = Authority.parse(match[2])
        return cls(scheme, host, _DEFAULT_PORTS.get(scheme) if port is None else port)

    def __str__(self) -> str:
        is_default = self.port == _DEFAULT_PORTS.get(self.scheme)
        return f"{self.scheme}://{Authority(self.host, None if is_default else self.port)}"


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_network(text: str) -> Network:
    """Read an IP address, which is a network of one, or a network. Raises ValueError."""
    try:
        network = ipaddress.ip_network(_normalize_address(text) or text)
    except ValueError:
        example = "an address such as 10.0.0.5 or a network such as 10.0.0.0/8"
        raise ValueError(f"{_quote(text)} is not {example}") from None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped and network.prefixlen >= 96:  # the 96 bits before the IPv4 address
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


class Forwarded(NamedTuple):
    """What is known of a request that may have come through a proxy."""

    client: str  # the IP address of the client; where nobody says it, of whoever has connected
    scheme: str | None = None  # "http" or "https": how the client has reached the proxy
    host: str | None = None  # the Host header that the proxy got; not checked yet
    proxy: str | None = None  # the IP address that has connected, if there are X-Forwarded headers
    is_trusted: bool = False  # whether these headers are believed


_DIRECT = Forwarded("")  # for a request of which only its own headers count


class Headers(http.client.HTTPMessage):
    """The headers of a request or a response, of which only names and values are looked at.

    The standard library reads them as it reads a mail, and would take the parameters of a
    Content-Type apart to find the parts of the body. There is no body here, and 16 KiB of
    parameters could take it a tenth of a second.
    """

    def get_content_type(self) -> str:
        return "text/plain"  # whatever the header says: a body of one part


class Extension(NamedTuple):
    """One element of a Sec-WebSocket-Extensions header (9.1)."""

    name: str
    parameters: list[tuple[str, str | None]]  # names and values in order; None: without a value


def accept_value(key: str) -> str:
    """The Sec-WebSocket-Accept for a Sec-WebSocket-Key, taken as text (4.2.2, step 5.4)."""
    digest = hashlib.sha1((key + _GUID).encode("latin-1")).digest()
    return base64.b64encode(digest).decode()


def printable(text: str) -> str:
    r"""A peer's text, fit for a terminal or a log: control characters are escaped, as in `\x1b`.

    The result is at most six times as long, and no more memory is needed than it takes.
    """
    if not _UNPRINTABLE.search(text):
        return text
    # `sub` would make a string for each character first: gigabytes for a message of megabytes.
    return text.translate(_ESCAPES)


def _quote(value: str | bytes) -> str:
    """The beginning of a bad value, quoted and escaped, for an error message."""
    return repr(value[:_MAX_QUOTE])


def check_header_line(line: bytes) -> None:
    """Refuse a line that is not `Name: value` and CR LF, of which http.client accepts several.

    These are a bare CR or LF, NUL, a folded line, no colon, and white space before the colon.
    Raises InvalidHandshake.
    """
    if not _HEADER_LINE.fullmatch(line):
        raise InvalidHandshake(400, "a header line is malformed")


# The server's side (4.2)


def check_request(method: str, version: str, headers: Message) -> None:
    """Refuse a request that does not open a WebSocket (4.2.1). Raises InvalidHandshake.

    `version` is that of HTTP, such as "HTTP/1.1". Host and Origin have checks of their own.
    """
    if method != "GET":
        raise InvalidHandshake(405, "a WebSocket is opened with GET", [("Allow", "GET")])
    if not has_token(headers, "Upgrade", "websocket"):
        # RFC 9110, 15.5.22: the answer to a plain GET names the protocol that is needed here.
        upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
        raise InvalidHandshake(426, "this address accepts WebSocket connections only", upgrade)
    major, minor = version.removeprefix("HTTP/").split(".")
    if (int(major), int(minor)) < (1, 1):
        raise InvalidHandshake(400, "a WebSocket needs at least HTTP/1.1")
    if not has_token(headers, "Connection", "upgrade"):
        raise InvalidHandshake(400, "the Connection header does not contain Upgrade")
    _check_version(headers)
    _check_key(headers)


def _check_version(headers: Message) -> None:
    number = _single(headers, "Sec-WebSocket-Version")
    if not _VERSION_NUMBER.fullmatch(number):
        raise InvalidHandshake(400, "Sec-WebSocket-Version is not a number from 0 to 255")
    if number != VERSION:  # 4.4: the answer names the version that is supported
        supported = [("Sec-WebSocket-Version", VERSION)]
        raise InvalidHandshake(426, f"WebSocket version {number} is not supported", supported)


def _check_key(headers: Message) -> None:
    key = _single(headers, "Sec-WebSocket-Key")
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise InvalidHandshake(400, "Sec-WebSocket-Key is not 16 bytes in base64")


def choose_subprotocol(headers: Message, supported: Sequence[str]) -> str | None:
    """The first of the client's subprotocols that is supported, or None (4.2.2, step 4).

    Raises InvalidHandshake where the client's list breaks 4.1: its elements are distinct tokens.
    """
    values = headers.get_all("Sec-WebSocket-Protocol", [])
    offered = _split(values)
    is_empty = bool(values) and not offered
    has_duplicates = len(set(offered)) < len(offered)
    if is_empty or has_duplicates or not all(_TOKEN.fullmatch(name) for name in offered):
        raise InvalidHandshake(400, "Sec-WebSocket-Protocol is not a list of distinct tokens")
    return next((name for name in offered if name in supported), None)


def response_headers(
    headers: Message, subprotocol: str | None, extension: str | None
) -> list[tuple[str, str]]:
    """The headers of the 101 response to a request with these headers (4.2.2, step 5)."""
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


def read_forwarded(headers: Message, address: str, trusted: Collection[Network]) -> Forwarded:
    """What the X-Forwarded headers of a request say, if it comes from a trusted proxy.

    address: the IP address from which the request has come.
    trusted: the addresses of proxies. What others say is ignored, as any client can send it.
    """
    direct = Forwarded(_normalize_address(address) or address)
    names = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")
    if not any(name in headers for name in names):
        return direct
    if not _is_in(direct.client, trusted):
        return direct._replace(proxy=direct.client)
    return Forwarded(
        client=_find_client(headers, direct.client, trusted),
        scheme=_SCHEMES.get((_last_forwarded(headers, "X-Forwarded-Proto") or "").lower()),
        host=_last_forwarded(headers, "X-Forwarded-Host"),
        proxy=direct.client,
        is_trusted=True,
    )


def _find_client(headers: Message, address: str, trusted: Collection[Network]) -> str:
    """The last address in X-Forwarded-For that is not a trusted proxy's.

    Each proxy adds, at the end, the address from which it got the request. So the list is believed
    from its end up to the first address that is not trusted: what is before that may be made up.
    Nothing is believed from the first element on that is not an IP address.
    """
    hops = ",".join(headers.get_all("X-Forwarded-For", [])).split(",")
    while hops and _is_in(address, trusted):
        hop = _parse_hop(hops.pop().strip(" \t"))
        if hop is None:
            break
        address = hop
    return address


def _parse_hop(text: str) -> str | None:
    """An element of X-Forwarded-For, to which some proxies add the port; None if malformed."""
    found = _HOP_WITH_PORT.fullmatch(text)
    return _normalize_address(found[1] or found[2] if found else text)


def _is_in(address: str, networks: Collection[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def _last_forwarded(headers: Message, name: str) -> str | None:
    """The last element of a header, which is what the last proxy has added; None without it."""
    if name not in headers:
        return None
    return str(headers.get_all(name, [])[-1]).rpartition(",")[2].strip(" \t")


class _HostHeader(NamedTuple):
    """The header that says under which host the client has asked for something."""

    name: str
    value: str


def _host_header(headers: Message, forwarded: Forwarded) -> _HostHeader:
    """What a trusted proxy says, or else the request's Host. Raises InvalidHandshake."""
    if forwarded.host is not None:
        return _HostHeader("X-Forwarded-Host", forwarded.host)
    return _HostHeader("Host", _single(headers, "Host"))


def check_host(
    headers: Message,
    allowed: Collection[Authority] | None,
    forwarded: Forwarded = _DIRECT,
) -> None:
    """Refuse a request whose Host is not one of `allowed`; None allows every host.

    An allowed host without a port is allowed with every port. This check stops DNS rebinding, where
    the name evil.example suddenly means 127.0.0.1: a page from there has an Origin that equals its
    Host, so `check_origin` alone would let it in. Raises InvalidHandshake.
    """
    _single(headers, "Host")  # 4.1: a request has exactly one Host, even if another header counts
    if allowed is None:
        return
    name, text = _host_header(headers, forwarded)
    try:
        host, port = Authority.parse(text)
    except ValueError:
        raise InvalidHandshake(403, f"{name} {_quote(text)} is not allowed") from None
    # Without a port it is the scheme's default. A proxy that ends TLS hides which scheme that was.
    ports = (80, 443) if port is None else (port,)
    if not any(Authority(host, each) in allowed for each in (None, *ports)):
        value = str(Authority(host))
        refused = Refused("Host", value, forwarded.proxy, forwarded.is_trusted)
        reason = f"{name} '{Authority(host, port)}' is not allowed"
        raise InvalidHandshake(403, reason, refused=refused)


def check_origin(
    headers: Message,
    allowed: Collection[Origin] | None,
    *,
    secure: bool = False,
    forwarded: Forwarded = _DIRECT,
) -> None:
    """Refuse the page of another site (10.2). Raises InvalidHandshake.

    Browsers send the Origin of the page, and other clients need none. Pages of this server are let
    in, and those of `allowed`; None allows every page. `secure` says whether this server itself
    speaks TLS.
    """
    if "Origin" not in headers:
        return
    text = _single(headers, "Origin")
    if allowed is None:
        return
    try:
        origin = Origin.parse(text)
    except ValueError:  # this includes "null", the origin of a sandboxed page
        raise InvalidHandshake(403, f"Origin {_quote(text)} is not allowed") from None
    if origin not in allowed and not _is_own_page(origin, headers, secure, forwarded):
        refused = Refused("Origin", str(origin), forwarded.proxy, forwarded.is_trusted)
        reason = f"Origin '{origin}' is not allowed, as {_describe_target(headers, forwarded)}"
        raise InvalidHandshake(403, reason, refused=refused)


def _describe_target(headers: Message, forwarded: Forwarded) -> str:
    """The headers with which an Origin was compared, for who has to mend one of them."""
    name, value = _host_header(headers, forwarded)
    text = f"{name} is {_quote(value)}"
    if forwarded.scheme is None:
        return text
    return f"{text} and X-Forwarded-Proto is '{forwarded.scheme}'"


def _is_own_page(origin: Origin, headers: Message, secure: bool, forwarded: Forwarded) -> bool:
    """Whether a page comes from the host and port to which it now sends a request.

    Looser than RFC 6454, the scheme may differ, unless a trusted proxy says which one it is: behind
    a proxy that ends TLS, the page's scheme is https, while the request reaches this server over
    http. For the same reason, a Host without a port means the default port of the page's scheme:
    443 for a page of https://h, 80 for one of http://h. Where this server itself speaks TLS, it
    means 443.
    """
    try:
        host, port = Authority.parse(_host_header(headers, forwarded).value)
    except ValueError:
        return False
    if origin.scheme not in _DEFAULT_PORTS:
        return False  # an app's own page, such as capacitor://localhost
    if forwarded.scheme is not None and origin.scheme != forwarded.scheme:
        return False
    if port is None:
        is_https = secure and forwarded.scheme is None
        port = 443 if is_https else _DEFAULT_PORTS[origin.scheme]
    return (host, port) == (origin.host, origin.port)


# The client's side (4.1)


def parse_url(url: str) -> Address:
    """Read a ws: or wss: URI (3). Raises ValueError with a message for the user."""
    if any(character <= " " or character == "\x7f" for character in url):
        # urlsplit would silently remove some of them.
        raise ValueError(f"{url!r} contains a space or control character")
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss"):
        raise ValueError(f"{url!r} is not a ws: or wss: URL")
    if "#" in url:  # 3: "#" in a path has to be written as %23
        raise ValueError(f"{url!r} has a fragment, which a WebSocket URL must not have")
    if "@" in parts.netloc:  # 3: the grammar has no user name
        raise ValueError(f"{url!r} has a user name, which a WebSocket URL must not have")
    if not parts.hostname:
        raise ValueError(f"{url!r} has no host")
    secure = parts.scheme == "wss"
    port = parts.port
    if port is None:
        port = 443 if secure else 80
    host = parts.hostname
    if not host.isascii():
        host = host.encode("idna").decode()
    # Percent signs are safe, so that what is encoded already is not encoded twice.
    target = quote(parts.path or "/", safe="%/:=&?~+!$,;'@()*[]")
    if parts.query:
        target += "?" + quote(parts.query, safe="%/:=&?~+!$,;'@()*[]")
    return Address(secure, host, port, target)


def new_key() -> str:
    """A Sec-WebSocket-Key: 16 unpredictable bytes in base64 (4.1, 10.3)."""
    return base64.b64encode(os.urandom(16)).decode()


def build_request(
    address: Address,
    key: str,
    origin: str | None = None,
    subprotocols: Sequence[str] = (),
    extension: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """The client's request (4.1). `headers` are further ones, such as a cookie.

    Raises ValueError for an argument that would not be one well-formed header line, or that would
    repeat one.
    """
    lines = [
        ("Host", address.authority),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", VERSION),
    ]
    if origin is not None:
        if not origin.isascii():
            raise ValueError(f"the origin {origin!r} is not ASCII")
        lines.append(("Origin", origin))
    if subprotocols:
        _check_subprotocols(subprotocols)
        lines.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    if extension is not None:
        lines.append(("Sec-WebSocket-Extensions", extension))
    for name, value in headers:
        if name.lower() in _RESERVED_HEADERS or name.lower().startswith("sec-websocket-"):
            raise ValueError(f"the header {name!r} is written by the handshake itself")
        lines.append((name, value))
    request = f"GET {address.target} HTTP/1.1\r\n".encode("ascii")
    return request + b"".join(_header_line(name, value) for name, value in lines) + b"\r\n"


def _check_subprotocols(names: Sequence[str]) -> None:
    """4.1: subprotocols are distinct tokens. Raises ValueError."""
    for name in names:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"the subprotocol {name!r} is not a token")
    if len(set(names)) < len(names):
        raise ValueError("a subprotocol is offered twice")


def _header_line(name: str, value: str) -> bytes:
    """One line of a head. Raises ValueError for what would be malformed, or more than one line."""
    line = f"{name}: {value}\r\n".encode("latin-1")
    if not _HEADER_LINE.fullmatch(line):
        raise ValueError(f"the header {name!r} has characters that a header must not have")
    return line


class Response(NamedTuple):
    """The head of a response."""

    status: int
    reason: str  # the server's reason phrase, fit for a terminal
    headers: Message


def parse_response(head: bytes) -> Response:
    """Read the head of a response, with the empty line that ends it. Raises InvalidHandshake."""
    first, *lines, _ = head.splitlines(keepends=True)
    found = _STATUS_LINE.fullmatch(first)
    if not found:
        raise InvalidHandshake(400, f"not an HTTP/1.1 response: {_quote(first)}")
    minor, status, reason = found.groups(default=b"")
    if status == b"101":
        if minor == b"0":  # 4.2.2: only HTTP/1.1 can switch protocols; a refusal may be HTTP/1.0
            raise InvalidHandshake(101, "the server agreed in HTTP/1.0")
        for line in lines:
            check_header_line(line)
    else:  # A malformed line of a refusal is ignored: the caller still learns that it is one.
        lines = [line for line in lines if _HEADER_LINE.fullmatch(line)]
    try:
        headers = http.client.parse_headers(io.BytesIO(b"".join(lines)), _class=Headers)
    except http.client.HTTPException as error:
        raise InvalidHandshake(400, f"the response is malformed: {error}") from None
    return Response(int(status), _excerpt(reason), headers)


def refusal(response: Response, body: bytes) -> InvalidHandshake:
    """The exception for a response other than 101 (4.1), with what the server said in it.

    `body` is the beginning of the response's body; perhaps nothing.
    """
    reason = response.reason
    if not reason and response.status in list(HTTPStatus):
        reason = HTTPStatus(response.status).phrase
    location = response.headers.get("Location")
    if 300 <= response.status < 400 and location is not None:
        where = f"to {_excerpt(location.encode('latin-1', 'replace'))}"
        reason = f"{reason}, {where}" if reason else where
    shown = _excerpt(body) if _is_text(response.headers) else ""
    return InvalidHandshake(response.status, reason, response.headers.items(), body=shown)


def _is_text(headers: Message) -> bool:
    """Whether a body is text for people. One without a Content-Type usually is."""
    if headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        return False
    kind = headers.get("Content-Type", "text/plain")
    return re.match(r"\s*(text/|application/[^;]*(json|xml))", kind, re.IGNORECASE) is not None


def _excerpt(data: bytes) -> str:
    """The beginning of a server's text, as one line that is fit for a terminal."""
    line = " ".join(data.decode(errors="replace").split())
    text = printable(line)
    return text if len(text) <= _MAX_EXCERPT else text[: _MAX_EXCERPT - 1] + "…"


class Answer(NamedTuple):
    """What the server chose in its 101 response. The extensions are not checked yet."""

    subprotocol: str | None
    extensions: list[Extension]


def check_response(response: Response, key: str, subprotocols: Sequence[str]) -> Answer:
    """Refuse a response that does not accept the handshake as it was offered (4.1).

    `key` and `subprotocols` are those of the request. Raises InvalidHandshake.
    """
    status = response.status
    headers = response.headers
    if status != 101:
        raise refusal(response, b"")
    # The numbers are those of the list in 4.1 that begins with "If the status code received".
    if _single(headers, "Upgrade", status).lower() != "websocket":  # 2.
        raise InvalidHandshake(status, "the Upgrade header is not websocket")
    if not has_token(headers, "Connection", "upgrade"):  # 3.
        raise InvalidHandshake(status, "the Connection header does not contain Upgrade")
    if _single(headers, "Sec-WebSocket-Accept", status) != accept_value(key):  # 4.
        raise InvalidHandshake(status, "Sec-WebSocket-Accept does not match the key that was sent")
    subprotocol = None
    if "Sec-WebSocket-Protocol" in headers:
        subprotocol = _single(headers, "Sec-WebSocket-Protocol", status)
        if subprotocol not in subprotocols:  # 6.
            reason = f"the server chose the subprotocol {subprotocol!r}, which was not offered"
            raise InvalidHandshake(status, reason)
    return Answer(subprotocol, parse_extensions(headers, status))


# Header values (4.3, 9.1)


def parse_extensions(headers: Message, status: int = 400) -> list[Extension]:
    """The elements of Sec-WebSocket-Extensions in order, with quoted values unquoted (9.1).

    Raises InvalidHandshake with this status where the header breaks the grammar of 9.1.
    """
    values = headers.get_all("Sec-WebSocket-Extensions", [])
    elements = _split(values)
    if values and not elements:
        raise InvalidHandshake(status, "Sec-WebSocket-Extensions is empty")
    return [_parse_extension(element, status) for element in elements]


def _parse_extension(text: str, status: int) -> Extension:
    name = _TOKEN.match(text)
    if name is None:
        raise InvalidHandshake(status, "Sec-WebSocket-Extensions is malformed")
    parameters: list[tuple[str, str | None]] = []
    end = name.end()
    # Parameter by parameter: one regular expression for all could take exponential time.
    while end < len(text):
        parameter = _PARAMETER.match(text, end)
        if parameter is None:
            raise InvalidHandshake(status, "Sec-WebSocket-Extensions is malformed")
        attribute, token, quoted = parameter.groups()
        value = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        if value is not None and not _TOKEN.fullmatch(value):
            # 9.1: a quoted value is a token once it is unquoted
            reason = "Sec-WebSocket-Extensions has a value that is not a token"
            raise InvalidHandshake(status, reason)
        parameters.append((attribute, value))
        end = parameter.end()
    return Extension(name[0], parameters)


def _split(values: Iterable[str]) -> list[str]:
    """The elements of comma lists, which may be spread over several headers.

    Empty elements are skipped, as the lists of HTTP have it (4.3; RFC 2616, 2.1).
    """
    elements = (element.strip(" \t") for value in values for element in value.split(","))
    return [element for element in elements if element]


def has_token(headers: Message, name: str, token: str) -> bool:
    """Whether the comma list in a header contains a token, which is given in lower case.

    2.1: only A-Z match a-z. `lower` does no more than that here, because http.client decodes
    headers as Latin-1, in which the lower case of no other letter is an ASCII letter.
    """
    return token in (element.lower() for element in _split(headers.get_all(name, [])))


def _single(headers: Message, name: str, status: int = 400) -> str:
    """The value of a header that has to appear exactly once (11.3). Raises InvalidHandshake."""
    values = headers.get_all(name, [])
    if not values:
        raise InvalidHandshake(status, f"the {name} header is missing")
    if len(values) > 1:
        raise InvalidHandshake(status, f"the {name} header appears {len(values)} times")
    return str(values[0]).strip(" \t")
