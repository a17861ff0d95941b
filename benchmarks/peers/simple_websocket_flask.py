"""simple-websocket on Flask-Sock and Flask's threaded server: two threads for each connection."""

import threading

from common import HOST, announce, chat_message
from flask import Flask
from flask_sock import Sock
from simple_websocket import ConnectionClosed, Server
from werkzeug.serving import WSGIRequestHandler, make_server

application = Flask(__name__)
sock = Sock(application)
clients: set[Server] = set()
clients_lock = threading.Lock()


@sock.route("/ws")
def chat(client: Server) -> None:
    with clients_lock:
        clients.add(client)
    try:
        while True:
            message = chat_message(client.receive())
            with clients_lock:
                everyone = list(clients)
            for other in everyone:
                try:
                    other.send(message)
                except (ConnectionClosed, OSError):
                    pass
    finally:
        with clients_lock:
            clients.discard(client)


@sock.route("/echo")
def echo(client: Server) -> None:
    while True:
        client.send(client.receive())


class QuietHandler(WSGIRequestHandler):
    disable_nagle_algorithm = True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Print nothing, as the other peers do."""


def main() -> None:
    server = make_server(HOST, 0, application, threaded=True, request_handler=QuietHandler)
    announce(server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    main()
