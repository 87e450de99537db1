"""The command line: `riacho`, or `python -m api`."""

import io
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer
import uvloop
from rich.console import Console

from api import (
    completion,
    dead,
    doctor,
    hold,
    jobs,
    key,
    probe,
    processes,
    schedule,
    senders,
    steer,
    top,
    watch,
    workers,
)
from api import demo as demonstration
from api.access import check_exposure
from api.console import AsJson, ask, harmless, read_settings, with_address
from api.exits import CODES, by_settings, exit_code
from api.load import QueueLoad, load_of, look
from api.root import check
from api.status import status_table
from api.tls import certificates_of
from config import Secret, Settings, SettingsError, logs, replaced, telemetry
from config.metrics import Metering, metering
from pipeline import Broker, RiachoError, masking, running
from pipeline.embedded import EmbeddedServer

log = logging.getLogger(__name__)

T = TypeVar("T")

STANDARD_ERROR = 2

app = typer.Typer(
    help="Riacho: stream processing for high-volume chat on Redis Streams.",
    epilog=CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.add_typer(dead.app, name="dead")
app.add_typer(senders.app, name="senders")
app.add_typer(hold.app, name="hold")
app.add_typer(schedule.app, name="schedule")
app.add_typer(key.app, name="key")
app.add_typer(jobs.app)
app.add_typer(dead.commands)
app.add_typer(workers.app)
app.add_typer(steer.app)
app.add_typer(top.app)
app.add_typer(doctor.app)
app.add_typer(probe.app)
app.add_typer(watch.app)

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[int | None, typer.Option(help="Port to listen on.", show_default="8080")]
Data = Annotated[Path | None, typer.Option(help="Folder of the data kept between runs.", show_default=".riacho")]
WithParent = Annotated[bool, typer.Option("--with-parent", hidden=True)]


@app.command()
def up(host: Host = None, port: Port = None, data: Data = None) -> None:
    """Run everything: API, workers and, unless a Redis is configured, a server of our own."""
    settings = read_settings(http={"host": host, "port": port}, data={"folder": data})
    check_exposure(settings.http)  # here already: what a child says is one line among many
    certificates_of(settings.http)

    async def run(served: Settings) -> None:
        stop = processes.stop_signal()
        async with processes.ProcessTree(served) as tree:
            await tree.run_until(stop)

    with by_settings():
        with_server(settings, run)


@app.command()
def demo(data: Data = None) -> None:
    """Run everything, send a sample chat through it, show each step, and end."""
    settings = read_settings(data={"folder": data or Path(".riacho/demo")}, log={"level": "warning"})
    ok = with_server(settings, demonstration.run)
    raise typer.Exit(0 if ok else 1)


@app.command()
def api(
    host: Host = None,
    port: Port = None,
    with_workers: Annotated[
        bool, typer.Option("--with-workers", help="Not ready before every stage has had a worker.")
    ] = False,
    with_parent: WithParent = False,
) -> None:
    """Run the HTTP service."""
    settings = with_address(read_settings(http={"host": host, "port": port}))
    telemetry.set_up("api")

    async def run(figures: Metering) -> None:
        stop = processes.stop_signal(with_parent=with_parent)
        await processes.run_api(settings, stop, with_workers=with_workers, metering=figures)

    with by_settings(), metering("api", served=True) as figures:
        uvloop.run(run(figures))


@app.command()
def worker(
    stages: Annotated[
        str,
        typer.Option(
            help="Stages to work, separated by commas.",
            show_default="all",
            autocompletion=completion.many_stages,
        ),
    ] = "",
    nice: Annotated[int, typer.Option(help="Lower the priority by so much (0 to 19).", min=0, max=19)] = 0,
    count: Annotated[int, typer.Option("--processes", help="Work in so many processes.", min=1, max=64)] = 1,
    with_parent: WithParent = False,
) -> None:
    """Run a worker, in one process or several."""
    settings = with_address(read_settings())
    names = [name for name in stages.split(",") if name]

    async def supervise() -> None:
        stop = processes.stop_signal(with_parent=with_parent)
        await processes.run_workers(settings, count, names, nice, stop)

    if count > 1:
        with by_settings():
            uvloop.run(supervise())
        return
    os.nice(nice)
    send_last_spans = telemetry.set_up("worker")

    async def run(figures: Metering) -> None:
        stop = processes.stop_signal(with_parent=with_parent)
        stuck = await processes.run_worker(settings, names, stop, figures)
        if stuck:
            log.error("%d jobs did not end, or could not be settled; their lease will bring them back", stuck)
            send_last_spans()
            figures.end()
            os._exit(1)  # threads that do not end would be waited for

    with by_settings(), metering("worker", served=bool(settings.metrics.port)) as figures:
        uvloop.run(run(figures))


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show the depth of every queue, how long its oldest job waits, and what holds it up."""
    silent = read_settings().worker.lease

    async def question(broker: Broker) -> list[QueueLoad]:
        return load_of(list(broker.pipeline), await look(broker, silent)).queues

    queues = ask(question)
    if as_json:
        typer.echo(msgspec.json.encode({"queues": queues}))
    else:
        Console().print(status_table(queues))


def with_server(settings: Settings, run: Callable[[Settings], Awaitable[T]]) -> T:
    """Run on the configured Redis, or on an embedded server that lasts as long, started again when it ends."""
    if settings.redis.url:
        return uvloop.run(_call(run, settings))
    with EmbeddedServer(settings.data.folder) as server:
        served = replaced(settings, redis={"url": Secret(server.url)})
        return uvloop.run(processes.on_server(server, _call(run, served)))


async def _call(run: Callable[[Settings], Awaitable[T]], settings: Settings) -> T:
    await check(settings)
    return await run(settings)


def main() -> None:
    """Entry point; errors made for a person are one line without a traceback."""
    _open_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # of customers' texts, not every terminal can show all
    logs.take_over(masked=masking.masked, running=running.facts)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except (RiachoError, SettingsError) as error:
        typer.echo(harmless(f"riacho: {masking.masked(str(error))}"), err=True)
        sys.exit(exit_code(error))
    except Exception:  # caught here, as typer has a hook of its own, which prints
        log.critical("an error that nobody caught", exc_info=True)
        sys.exit(1)


def _open_standard_streams() -> None:
    """Where whoever started us had closed one: uvloop ends the process when it gets a number below 3 itself."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass
    os.close(opened)


if __name__ == "__main__":
    main()
