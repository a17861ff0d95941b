"""aiohttp: its chat is a loop of `await send_str` over the clients, as in its documentation."""

import asyncio

from aiohttp import WSMsgType, web
from common import HOST, announce, chat_message

clients: set[web.WebSocketResponse] = set()


async def chat(request: web.Request) -> web.WebSocketResponse:
    client = web.WebSocketResponse(compress=False)
    await client.prepare(request)
    clients.add(client)
    try:
        async for received in client:
            if received.type is WSMsgType.TEXT:
                message = chat_message(received.data)
                for other in list(clients):
                    try:
                        await other.send_str(message)
                    except ConnectionError:
                        pass
    finally:
        clients.discard(client)
    return client


async def echo(request: web.Request) -> web.WebSocketResponse:
    client = web.WebSocketResponse(compress=False)
    await client.prepare(request)
    async for received in client:
        if received.type is WSMsgType.TEXT:
            await client.send_str(received.data)
        elif received.type is WSMsgType.BINARY:
            await client.send_bytes(received.data)
    return client


async def main() -> None:
    application = web.Application()
    application.router.add_get("/ws", chat)
    application.router.add_get("/echo", echo)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    announce(runner.addresses[0][1])
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
