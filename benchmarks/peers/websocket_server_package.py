"""The websocket-server package: a thread per connection on the standard library's socketserver.

It reads no binary messages, so it is left out of the 1-MB echo.
"""

from typing import Any

from common import HOST, announce, chat_message, wants_chat
from websocket_server import WebsocketServer
from websocket_server.websocket_server import WebSocketHandler

Client = dict[str, Any]


def chat(client: Client, server: WebsocketServer, text: str) -> None:
    server.send_message_to_all(chat_message(text))


def echo(client: Client, server: WebsocketServer, text: str) -> None:
    server.send_message(client, text)


def main() -> None:
    WebSocketHandler.disable_nagle_algorithm = True
    server = WebsocketServer(HOST, 0)
    server.set_fn_message_received(chat if wants_chat() else echo)
    announce(server.port)
    server.run_forever()


if __name__ == "__main__":
    main()
