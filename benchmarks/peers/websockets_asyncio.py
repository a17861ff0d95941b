"""websockets, its asyncio server, with the library's own `broadcast`."""

import asyncio

from common import HOST, announce, chat_message, wants_chat
from websockets.asyncio.server import ServerConnection, broadcast, serve

clients: set[ServerConnection] = set()


async def chat(client: ServerConnection) -> None:
    clients.add(client)
    try:
        async for text in client:
            broadcast(clients, chat_message(text))
    finally:
        clients.discard(client)


async def echo(client: ServerConnection) -> None:
    async for message in client:
        await client.send(message)


async def main() -> None:
    async with serve(chat if wants_chat() else echo, HOST, 0, compression=None) as server:
        announce(server.sockets[0].getsockname()[1])
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
