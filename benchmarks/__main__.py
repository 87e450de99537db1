"""`python -m benchmarks SCENARIO [--json FILE]`, or several with `run`."""

import asyncio
import inspect
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.capacity import Wanted
from benchmarks.parts.janitor import janitor
from benchmarks.peers.environments import Unavailable
from benchmarks.reports import capacity as capacity_page
from benchmarks.reports import comparison, readme
from benchmarks.reports.document import document
from benchmarks.reports.report import NoReport, Report
from benchmarks.scenarios import NAMES, module_of

LATEST = Path(".riacho") / "benchmarks" / "report"
COMMITTED = Path(__file__).parent / "results"

app = typer.Typer(help="Measure Riacho.", no_args_is_help=True, pretty_exceptions_enable=False)
console = Console(highlight=False, stderr=True)

Json = Annotated[
    Path | None,
    typer.Option("--json", help="Write knobs, versions and figures to this file.", dir_okay=False, writable=True),
]
Folder = Annotated[Path, typer.Option(help="Where a report has its files.")]


@app.command("list")
def names() -> None:
    """Say what can be measured."""
    for name in NAMES:
        typer.echo(f"{name:<14} {_about(name)}")


@app.command()
def run(
    scenarios: Annotated[list[str], typer.Argument(help="Which; `all` stands for each.")],
    quick: Annotated[bool, typer.Option(help="A minute or so for each, and not as exact.")] = False,
    folder: Folder = LATEST,
) -> None:
    """Measure several scenarios, one file of JSON each; one that cannot be measured here is said, and left out."""
    chosen = list(NAMES) if "all" in scenarios else scenarios
    for name in chosen:
        if name not in NAMES:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(NAMES)}")
    folder.mkdir(parents=True, exist_ok=True)
    left_out: dict[str, str] = {}
    for name in chosen:
        module = module_of(name)
        console.print(f"{name}: {_about(name)}", style="bold")
        try:
            report = _measured(module.measure, **(module.QUICK if quick else {}))
        except Unavailable as error:
            left_out[name] = str(error)
        except Exception as error:  # noqa: BLE001 - the others are worth measuring all the same
            left_out[name] = f"it broke: {type(error).__name__}: {error}"
            console.print_exception()
        if name in left_out:
            (folder / f"{name}.json").unlink(missing_ok=True)
            continue
        report.show()
        (folder / f"{name}.json").write_bytes(report.as_json())
    for name, why in left_out.items():
        console.print(f"{name} is left out: {why}", style="bold")
    raise typer.Exit(any(why.startswith("it broke") for why in left_out.values()))


@app.command()
def report(
    folder: Folder = LATEST,
    into: Annotated[
        Path | None,
        typer.Option("--readme", help="A page to put its figures into, too.", exists=True, dir_okay=False),
    ] = None,
) -> None:
    """Write report.md and its plots from the files that `run` left in a folder."""
    with _named():
        typer.echo(document(folder))
        if into:
            readme.write(into, folder)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="A file of JSON, or a folder of them.")],
    after: Annotated[Path, typer.Argument(help="The same, of later.")],
    tolerance: Annotated[
        float, typer.Option(help="What is not more than that slower is noise, as a fraction.", min=0)
    ] = 0.1,
) -> None:
    """Say what became slower or faster beyond the noise; exits with 1 if something is slower, or missing."""
    with _named():
        found = comparison.compare(before, after, tolerance)
    typer.echo(comparison.table(found))
    raise typer.Exit(found.worse)


@app.command()
def capacity(
    rate: Annotated[float, typer.Option(help="Messages a second when there are most.", min=0.001)],
    audio: Annotated[float, typer.Option(help="How many of a hundred are voice notes.", min=0, max=100)] = 0,
    daily: Annotated[
        float | None, typer.Option(help="Messages a second over a whole day, if fewer.", min=0)
    ] = None,
    outage: Annotated[float, typer.Option(help="Seconds without workers that Redis is to survive.", min=0)] = 600,
    busy: Annotated[
        float, typer.Option(help="How much of what it can do anything is to do, in %.", min=1, max=100)
    ] = 70,
    cores: Annotated[int, typer.Option(help="Of a machine; this one's, if not said.", min=1)] = os.cpu_count()
    or 1,
    folder: Annotated[Path, typer.Option(help="Where chat.json is.")] = COMMITTED,
) -> None:
    """Say how many processes and partitions and how much Redis memory so many messages a second take."""
    wanted = Wanted(
        rate=rate,
        audio=audio / 100,
        daily=rate if daily is None else daily,
        outage=outage,
        busy=busy / 100,
        cores=cores,
    )
    with _named():
        typer.echo(capacity_page.page(folder, wanted))


def _command(name: str) -> Callable[..., None]:
    """A command with a scenario's knobs as its options."""
    measure = module_of(name).measure
    asked = inspect.signature(measure, eval_str=True)
    to = inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Json)

    def command(json: Path | None = None, **knobs: Any) -> None:
        if json and not json.parent.is_dir():
            raise typer.BadParameter(f"{json} cannot be written: there is no folder {json.parent}, make it first")
        with _named():
            found = _measured(measure, **knobs)
        found.show()
        if json:
            json.write_bytes(found.as_json())

    command.__signature__ = asked.replace(  # type: ignore[attr-defined]
        parameters=[*asked.parameters.values(), to], return_annotation=None
    )
    command.__annotations__ = {each.name: each.annotation for each in (*asked.parameters.values(), to)}
    command.__doc__ = measure.__doc__
    return command


@contextmanager
def _named() -> Iterator[None]:
    """What cannot be done is said in a line."""
    try:
        yield
    except (NoReport, Unavailable) as error:
        raise typer.BadParameter(str(error)) from None


def _measured(measure: Callable[..., Any], **knobs: Any) -> Report:
    """With nothing left behind, whatever ends it."""
    with janitor():
        found = measure(**knobs)
        report: Report = asyncio.run(found) if inspect.iscoroutine(found) else found
        return report


def _about(name: str) -> str:
    return (module_of(name).measure.__doc__ or "").partition("\n")[0]


for scenario in NAMES:
    app.command(scenario)(_command(scenario))

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is under way ends as by Ctrl-C
    app()
