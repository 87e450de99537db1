"""`python -m benchmarks SCENARIO [--json FILE]`."""

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from benchmarks import cleanup as cleanup_scenario
from benchmarks import engine as engine_scenario
from benchmarks import http as http_scenario
from benchmarks import tracing as tracing_scenario
from benchmarks import transcribe as transcribe_scenario
from benchmarks import webhook as webhook_scenario
from benchmarks.peers.environments import PeerUnavailable
from benchmarks.report import Report
from benchmarks.table import markdown

app = typer.Typer(help="Measure Riacho.", no_args_is_help=True, pretty_exceptions_enable=False)

Json = Annotated[Path | None, typer.Option("--json", help="Write knobs, versions and figures to this file.")]


@app.callback()
def scenarios() -> None:
    """Each scenario prints its knobs and figures."""


@app.command()
def webhook(
    rate: Annotated[float, typer.Option(help="Webhooks a second, sent on time whatever the answers do.")] = 50,
    seconds: Annotated[float, typer.Option(help="Length of each of the two phases.")] = 20,
    json: Json = None,
) -> None:
    """The webhook's latency on an idle machine, and while transcription keeps every core busy."""
    _finish(asyncio.run(webhook_scenario.measure(rate=rate, seconds=seconds)), json)


@app.command()
def engine(
    jobs: Annotated[int, typer.Option(help="Jobs a round.")] = 100_000,
    rounds: Annotated[int, typer.Option(help="Rounds of which the median counts.")] = 5,
    peers: Annotated[bool, typer.Option(help="Measure the peers too, each installed on its first use.")] = True,
    json: Json = None,
) -> None:
    """Adding, consuming, latency at half load, bytes per waiting job; Riacho's beside its peers'."""
    _finish(engine_scenario.measure(jobs=jobs, rounds=rounds, peers=peers), json)


@app.command()
def transcribe(
    batch: Annotated[int, typer.Option(help="Notes in a model call.")] = 8,
    rounds: Annotated[int, typer.Option(help="Rounds of which the median counts.")] = 3,
    seconds: Annotated[float, typer.Option(help="How long notes arrive, at twice what one by one can do.")] = 60,
    model: Annotated[str, typer.Option(help="A Whisper model's name, or its folder.")] = "base",
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    json: Json = None,
) -> None:
    """Voice notes in batches beside one by one: audio seconds a second, word errors, memory, latency."""
    measuring = transcribe_scenario.measure(
        batch=batch, rounds=rounds, seconds=seconds, model=model, device=device
    )
    _finish(asyncio.run(measuring), json)


@app.command()
def cleanup(
    messages: Annotated[int, typer.Option(help="Old messages, and as many fresh ones.")] = 1_000_000,
    database: Annotated[str, typer.Option(help="sqlite, postgresql, or the address of an empty one.")] = "sqlite",
    rate: Annotated[float, typer.Option(help="Messages a second that the chat records meanwhile.")] = 100,
    json: Json = None,
) -> None:
    """Old chats deleted among as many fresh ones while chat goes on: how fast, and how long chat has to wait."""
    _finish(asyncio.run(cleanup_scenario.measure(number=messages, database=database, rate=rate)), json)


@app.command()
def http(
    rounds: Annotated[int, typer.Option(help="Rounds of which the median counts.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of a round; a stage takes 100,000 jobs.")] = 2,
    json: Json = None,
) -> None:
    """Jobs taken in over HTTP a second, and their latency at half of that; beside Fastify + BullMQ. Needs wrk."""
    try:
        report = http_scenario.measure(rounds=rounds, seconds=seconds)
    except (http_scenario.Unavailable, PeerUnavailable) as error:
        raise typer.BadParameter(str(error)) from None
    _finish(report, json)


@app.command()
def tracing(
    messages: Annotated[int, typer.Option(help="Text messages a round.")] = 400,
    rounds: Annotated[int, typer.Option(help="Rounds of which the median counts.")] = 9,
    json: Json = None,
) -> None:
    """The chat's messages a second without tracing, with one trace of a hundred, and with all."""
    _finish(asyncio.run(tracing_scenario.measure(messages=messages, rounds=rounds)), json)


@app.command()
def table(file: Annotated[Path, typer.Argument(help="What `engine --json` wrote.")]) -> None:
    """The figures of an engine run as a Markdown table."""
    typer.echo(markdown(msgspec.json.decode(file.read_bytes(), type=Report)))


def _finish(report: Report, file: Path | None) -> None:
    report.show()
    if file:
        file.write_bytes(report.as_json())


if __name__ == "__main__":
    app()
