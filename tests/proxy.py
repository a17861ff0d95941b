"""What may stand before a server under test: nginx, and a forwarder of TCP that can be told to
drop everything.
"""

import contextlib
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from finding import find_nginx, require
from peers import PATIENCE, Peer, eventually, free_port

# Around `server` blocks: nginx stays in the foreground, and keeps its files in a folder.
NGINX_AROUND = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{servers}
}}
"""

SERVER = """
    server {{
        listen 127.0.0.1:{port};
        location {location} {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header Host $http_host;
            {more}
        }}
    }}
"""


class Proxy:
    """A running nginx, which listens on 127.0.0.1; `url` does not end in a slash."""

    def __init__(self, port: int) -> None:
        self.server_port = port
        self.url = f"http://127.0.0.1:{port}"
        self.ws_url = f"ws://127.0.0.1:{port}"

    def tcp(self) -> Peer:
        """A TCP connection, nothing sent yet."""
        return Peer(socket.create_connection(("127.0.0.1", self.server_port), PATIENCE))


@contextlib.contextmanager
def nginx(upstream: str, *, location: str = "/", more: str = "") -> Iterator[Proxy]:
    """Run an nginx that passes requests for `location` on to `upstream`, an http: URL.

    If the URL ends in a slash, nginx removes the location from the path, as its `proxy_pass` does.
    `more` are further lines for the location's block. Skips the test where there is no nginx.
    """
    program = require(find_nginx(), "nginx", "apt install nginx-light")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
        port = free_port()
        configuration = Path(folder, "nginx.conf")
        server = SERVER.format(port=port, location=location, upstream=upstream, more=more)
        configuration.write_text(NGINX_AROUND.format(folder=folder, servers=server))
        process = subprocess.Popen(
            [program, "-p", folder, "-e", "stderr", "-c", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            eventually(lambda: process.poll() is not None or accepts_connections(port))
            errors.seek(0)
            assert process.poll() is None, errors.read()
            yield Proxy(port)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def accepts_connections(port: int) -> bool:
    """Whether something listens on this port of 127.0.0.1."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def pump(
    source: socket.socket,
    target: socket.socket,
    is_deaf: Callable[[], bool] = lambda: False,
    record: Callable[[bytes], object] = lambda data: None,
) -> None:
    """Pass on what the source sends until either ends, except for what comes while it `is_deaf`."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            record(data)
            if not is_deaf():
                target.sendall(data)


class Forwarder:
    """Passes TCP connections on to a server, until it is told to drop what they send.

    Use it in a `with` statement; `url` does not end in a slash.
    """

    def __init__(self, server_port: int) -> None:
        self._upstream = ("127.0.0.1", server_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._swallowed: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        # What was sent on each connection so far: by the client, and by the server.
        self.recorded: list[tuple[bytearray, bytearray]] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads[0].start()

    def go_deaf(self, *, to_servers_only: bool = False) -> None:
        """Drop what comes on the connections that there are, but close none.

        With `to_servers_only` what servers send is dropped, and else what clients send, too.
        """
        self._swallowed = set(self._sockets[1::2] if to_servers_only else self._sockets)

    def hang_up(self) -> None:
        """End the connections that there are, in both directions."""
        for each in self._sockets:
            with contextlib.suppress(OSError):  # it has ended already
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was shut
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._upstream, PATIENCE)
                far.settimeout(None)
                self._sockets += [near, far]
                records = (bytearray(), bytearray())
                self.recorded.append(records)
                for source, target, record in zip((near, far), (far, near), records, strict=True):
                    thread = threading.Thread(target=self._pass_on, args=(source, target, record))
                    self._threads.append(thread)
                    thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket, record: bytearray) -> None:
        pump(source, target, lambda: source in self._swallowed, record.extend)
        if source not in self._swallowed:
            with contextlib.suppress(OSError):  # the target has ended already
                target.shutdown(socket.SHUT_WR)

    def __enter__(self) -> "Forwarder":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(PATIENCE)
        self.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE)
        for each in (self._listener, *self._sockets):
            each.close()
