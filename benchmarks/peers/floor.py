"""The floor: the chat's and the echo's system calls on bare sockets, and nothing else.

What remains when everything is left out that makes a server: no frame is read, nothing is
unmasked, checked, decoded, logged or numbered, nobody is ever pinged or dropped. It counts the
frames of one receive by their length and sends each client as many frames that it made once,
of the length that chat_server.py's have; the same way and order, one non-blocking write for a
client and batch. A server on these sockets in Python cannot be faster than this by much, so
what it loses against it is what its features cost.

One thread and epoll stand for a thread per connection: no lock is handed over either.
"""

import base64
import hashlib
import json
import select
import socket

from common import HOST, announce, wants_chat

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CLOSE = 0x88  # a final frame with opcode 8
MESSAGE_BYTES = 100  # of the load generator's chat message
RECEIVE_BYTES = 256 << 10  # a batch, or a good part of a large message
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
CLIENT_FRAME_BYTES = 2 + 4 + MESSAGE_BYTES


def upgrade(request: bytes) -> bytes:
    key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def write(client: socket.socket, data: bytes | memoryview) -> None:
    """What the kernel does not take at once is written blocking: nobody here is stuck."""
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
        self.rest: dict[int, int] = {}  # bytes of a frame that has not come whole
        self.waiting = 0  # frames

    def join(self, client: socket.socket) -> None:
        self.clients[client.fileno()] = client
        self.rest[client.fileno()] = 0

    def leave(self, client: socket.socket) -> None:
        del self.clients[client.fileno()]

    def take(self, client: socket.socket, data: bytes) -> bool:
        """False when the client says Close."""
        number = client.fileno()
        if not self.rest[number] and data[0] == CLOSE:
            return False
        count, self.rest[number] = divmod(self.rest[number] + len(data), CLIENT_FRAME_BYTES)
        self.waiting += count
        return True

    def flush(self) -> None:
        """Everything that came, from whichever senders, in one write for each client."""
        if self.waiting:
            batch = CHAT_FRAME * self.waiting
            self.waiting = 0
            for client in self.clients.values():
                write(client, batch)


class Echo:
    """Unmasks the first frame of each length, and sends it again for every one that follows."""

    def __init__(self) -> None:
        self.length: dict[int, int] = {}
        self.rest: dict[int, int] = {}
        self.first: dict[int, bytearray] = {}
        self.answers: dict[int, bytes] = {}

    def join(self, client: socket.socket) -> None:
        self.rest[client.fileno()] = 0

    def leave(self, client: socket.socket) -> None:
        del self.rest[client.fileno()]

    def take(self, client: socket.socket, data: bytes) -> bool:
        """False when the client says Close."""
        number = client.fileno()
        if not self.rest[number]:
            if data[0] == CLOSE:
                return False
            self.length[number] = frame_length(data)
            self.first[number] = bytearray()
        length = self.length[number]
        if length not in self.answers:
            self.first[number] += data
            if len(self.first[number]) >= length:
                self.answers[length] = unmasked(self.first[number][:length])
        count, self.rest[number] = divmod(self.rest[number] + len(data), length)
        if count:
            answer = self.answers[length]
            write(client, answer if count == 1 else answer * count)
        return True

    def flush(self) -> None:
        """Nothing waits: each connection is answered by itself."""


def frame_length(data: bytes) -> int:
    length = data[1] & 127
    if length < 126:
        return 6 + length
    size = 2 if length == 126 else 8
    return 6 + size + int.from_bytes(data[2 : 2 + size], "big")


def unmasked(frame: bytearray) -> bytes:
    length = frame[1] & 127
    header = 2 if length < 126 else 4 if length == 126 else 10
    mask, payload = frame[header : header + 4], frame[header + 4 :]
    key = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)])
    plain = (int.from_bytes(payload) ^ key).to_bytes(len(payload))
    return bytes([frame[0], length]) + bytes(frame[2:header]) + plain


def main() -> None:
    listener = socket.create_server((HOST, 0), backlog=128)
    announce(listener.getsockname()[1])
    service: Chat | Echo = Chat() if wants_chat() else Echo()
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    upgrading: dict[int, socket.socket] = {}
    clients: dict[int, socket.socket] = {}
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                upgrading[client.fileno()] = client
                poll.register(client, select.EPOLLIN)
            elif number in upgrading:
                client = upgrading.pop(number)
                client.sendall(upgrade(client.recv(RECEIVE_BYTES)))
                clients[number] = client
                service.join(client)
            else:
                client = clients[number]
                data = client.recv(RECEIVE_BYTES)
                if not data or not service.take(client, data):
                    poll.unregister(client)
                    service.leave(clients.pop(number))
                    if data:
                        client.sendall(b"\x88\x00")
                    client.close()
        service.flush()


if __name__ == "__main__":
    main()
