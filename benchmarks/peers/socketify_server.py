"""socketify: µWebSockets in C++ under Python. Everyone is subscribed to one topic.

Its default for a client's backlog is 64 KiB, past which messages are silently left out for that
client. Here it is 16 MiB, so that every client gets every message, as with the others.
"""

from common import HOST, announce, chat_message, wants_chat
from socketify import App, AppListenOptions, OpCode, WebSocket

TOPIC = "chat"
application = App()


def join(client: WebSocket) -> None:
    client.subscribe(TOPIC)


def chat(client: WebSocket, text: str, opcode: OpCode) -> None:
    application.publish(TOPIC, chat_message(text), OpCode.TEXT)


def echo(client: WebSocket, message: str | bytes, opcode: OpCode) -> None:
    client.send(message, opcode)


def main() -> None:
    handlers = {"open": join, "message": chat} if wants_chat() else {"message": echo}
    limits = {"max_payload_length": 2 << 20, "max_backpressure": 16 << 20, "idle_timeout": 120}
    application.ws("/*", {**handlers, **limits})
    application.listen(AppListenOptions(port=0, host=HOST), lambda at: announce(at.port))
    application.run()


if __name__ == "__main__":
    main()
