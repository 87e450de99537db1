"""`python -m tests.cloud_api --port … --config JSON`: the stand-in as a process; a SIGTERM ends it.

It prints its address when it can be called.
"""

import argparse
import asyncio
import signal
import sys

import msgspec
import uvloop

from tests.cloud_api import CloudApi, Config


async def main(port: int, config: Config) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with CloudApi(config, port=port) as api:
        sys.stdout.write(f"{api.url}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--config", default="{}")
    arguments = parser.parse_args()
    uvloop.run(main(arguments.port, msgspec.json.decode(arguments.config, type=Config)))
