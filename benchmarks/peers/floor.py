"""The floor: the chat's system calls on bare sockets, and nothing else.

This is what remains when everything is left out that makes a server: no frame is read, nothing is
unmasked, checked, decoded, stored or numbered, and nobody is ever pinged or dropped. It counts the
frames of one receive by their length and sends each client as many frames that it made once, of
the length that chat_server.py's have, with one non-blocking write for each client and batch. A
server in Python cannot be much faster on these sockets, so what ours loses against the floor is
what its features cost.

One thread with epoll stands for a thread per connection: no lock is handed over either.
"""

import base64
import hashlib
import json
import select
import socket

from common import HOST, announce

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
RECEIVE_BYTES = 256 << 10
CLIENT_FRAME_BYTES = 2 + 4 + 100  # header, masking key, the load generator's chat message
CHAT_MESSAGE = json.dumps(
    {
        "email": "bench@example.org",
        "username": "bench",
        "message": "-" * 39,
        "id": "1700000000000-0",
        "avatar": "0" * 64,
    }
).encode()
CHAT_FRAME = b"\x81\x7e" + len(CHAT_MESSAGE).to_bytes(2, "big") + CHAT_MESSAGE


def upgrade(request: bytes) -> bytes:
    key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def write(client: socket.socket, data: bytes) -> None:
    """What the kernel does not take at once is written blocking, as every client here reads."""
    try:
        sent = client.send(data, socket.MSG_DONTWAIT)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        client.sendall(memoryview(data)[sent:])


class Chat:
    """Counts the frames that come, and sends everyone as many of its own."""

    def __init__(self) -> None:
        self.clients: dict[int, socket.socket] = {}
        self.rest: dict[int, int] = {}  # bytes of a frame that is not complete
        self.waiting = 0  # frames

    def join(self, client: socket.socket) -> None:
        client.sendall(upgrade(client.recv(RECEIVE_BYTES)))
        self.clients[client.fileno()] = client
        self.rest[client.fileno()] = 0

    def read(self, number: int) -> None:
        data = self.clients[number].recv(RECEIVE_BYTES)
        if not data:
            self.clients.pop(number).close()
        count, self.rest[number] = divmod(self.rest[number] + len(data), CLIENT_FRAME_BYTES)
        self.waiting += count

    def flush(self) -> None:
        """Everything that came, in one write for each client."""
        if self.waiting:
            batch = CHAT_FRAME * self.waiting
            self.waiting = 0
            for client in self.clients.values():
                write(client, batch)


def main() -> None:
    listener = socket.create_server((HOST, 0), backlog=128)
    announce(listener.getsockname()[1])
    chat = Chat()
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    upgrading: dict[int, socket.socket] = {}
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                upgrading[client.fileno()] = client
                poll.register(client, select.EPOLLIN)
            elif number in upgrading:
                chat.join(upgrading.pop(number))
            else:
                chat.read(number)
        chat.flush()


if __name__ == "__main__":
    main()
