"""websockets, its threading server: each sender's own thread writes to every client."""

import threading

from common import HOST, announce, chat_message, wants_chat
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

clients: set[ServerConnection] = set()
clients_lock = threading.Lock()


def chat(client: ServerConnection) -> None:
    with clients_lock:
        clients.add(client)
    try:
        for text in client:
            message = chat_message(text)
            with clients_lock:
                everyone = list(clients)
            for other in everyone:
                try:
                    other.send(message)
                except ConnectionClosed:
                    pass
    finally:
        with clients_lock:
            clients.discard(client)


def echo(client: ServerConnection) -> None:
    for message in client:
        client.send(message)


def main() -> None:
    with serve(chat if wants_chat() else echo, HOST, 0, compression=None) as server:
        announce(server.socket.getsockname()[1])
        server.serve_forever()


if __name__ == "__main__":
    main()
