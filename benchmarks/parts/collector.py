"""A collector that takes spans over OTLP/HTTP and forgets them. It says its address, and goes on until killed."""

import asyncio

from aiohttp import web


async def take(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(content_type="application/x-protobuf")


async def main() -> None:
    app = web.Application(client_max_size=2**26)
    app.add_routes([web.post("/v1/traces", take)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    print(f"http://{host}:{port}", flush=True)  # noqa: T201 - who started it reads this
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
