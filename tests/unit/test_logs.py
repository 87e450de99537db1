"""Log lines: what is in them, what never is, and that each is one line of bounded length."""

import asyncio
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from api import __main__ as commands
from config import load, logs
from config.secrecy import secrets_of
from pipeline import Broker, Context, Job, Pipeline, RiachoError, masking, running
from pipeline.executor import Executor, Slot
from pipeline.message import Delivery, seal
from pipeline.outcome import Ending
from pipeline.stage import Batch
from tests.support import Number, stage

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("knowing_no_secrets")]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
JOB = "one.0.1795363715263-0"
log = logging.getLogger("stages.test")


def as_json(record: logging.LogRecord) -> dict[str, Any]:
    line = logs.Json(masking.masked, running.facts).format(record)
    assert "\n" not in line
    assert len(line.encode()) <= logs.LINE_LIMIT
    assert line.isascii()
    found: dict[str, Any] = json.loads(line)
    return found


def as_text(record: logging.LogRecord) -> str:
    return logs.Text(masking.masked, running.facts).format(record)


def record(message: object, *args: object, **more: Any) -> logging.LogRecord:
    fields = {
        "name": "stages.test",
        "levelno": logging.WARNING,
        "levelname": "WARNING",
        "created": 1795363715.2634,
        "msecs": 263.4,
    }
    return logging.makeLogRecord(fields | {"msg": message, "args": args} | more)


def raised(error: BaseException) -> dict[str, Any]:
    try:
        raise error
    except BaseException:  # noqa: BLE001 - it is what is logged
        return {"exc_info": sys.exc_info()}


@contextmanager
def as_a_process_of_ours() -> Iterator[io.StringIO]:
    """Logging as it is set up there, to what is yielded. No fixture, as pytest sets up its own for each phase."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(sys, "stderr", output)
        patch.setattr(logging.root, "handlers", [])
        for place, name in ((sys, "unraisablehook"), (threading, "excepthook")):
            patch.setattr(place, name, getattr(place, name))
        warnings.simplefilter("always")
        logs.take_over(masked=masking.masked, running=running.facts)
        yield output
        logging.captureWarnings(capture=False)


def test_a_line_in_json_says_when_how_bad_where_and_what() -> None:
    assert as_json(record("%d jobs\nwait for %s", 3, "5511987654321")) == {
        "time": "2026-11-22T16:08:35.263Z",
        "level": "warning",
        "logger": "stages.test",
        "message": "3 jobs\nwait for ***21",
    }


def test_a_line_of_text_is_as_it_always_was() -> None:
    assert as_text(record("%d jobs", 3)).partition(",263 ")[2] == "WARNING stages.test: 3 jobs"


def test_an_error_is_told_with_type_message_and_traceback_all_masked() -> None:
    caused = ConnectionError("redis://:hush@127.0.0.1 is away")
    error = ValueError("5511987654321 has no joao@shop.example")
    error.__cause__ = caused
    shown = as_json(record("failed", **raised(error)))["exception"]
    assert shown["type"] == "ValueError"
    assert shown["message"] == "***21 has no ***@shop.example"
    assert "ConnectionError: redis://***@127.0.0.1 is away" in shown["traceback"]
    assert shown["traceback"].endswith("ValueError: ***21 has no ***@shop.example")
    text = as_text(record("failed", **raised(error)))
    assert "hush" not in text
    assert "\n  ValueError: ***21 has no ***@shop.example" in text


def test_extra_fields_are_told_and_masked() -> None:
    extra = {
        "phone": 5511987654321,
        "count": 3,
        "share": 0.5,
        "nothing": None,
        "whole": float("inf"),
        "api_token": "abc",
        "headers": {"Authorization": "Bearer abc"},
    }
    shown = {
        "phone": "***21",
        "count": 3,
        "share": 0.5,
        "nothing": None,
        "whole": "inf",
        "api_token": "***",
        "headers": "{'Authorization': '***'}",
    }
    assert as_json(record("x", **extra))["extra"] == shown
    assert as_text(record("x", **extra)).endswith(str(shown))


class Unshowable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("5511987654321")

    __repr__ = __str__


@pytest.mark.parametrize("form", [as_json, as_text])
def test_what_cannot_be_shown_is_a_line_all_the_same(form: Callable[[logging.LogRecord], object]) -> None:
    cases = [
        record("%d", "5511987654321"),
        record("%s", Unshowable()),
        record("x", thing=Unshowable(), huge=10**5000),
        record("x", **raised(Unshowable())),
        record("%s", "\ud800"),
        record(Unshowable()),
    ]
    for case in cases:
        shown = str(form(case))
        assert "5511987654321" not in shown
        assert "stages.test" in shown


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_words_move_a_terminal_or_make_another_line(said: str, error: str) -> None:
    case = record("%s", f"\x1b[2J\x9b1m\r\n2026 ERROR forged{said}", **raised(ValueError(error)))
    head, *below = as_text(case).split("\n")
    assert (head + "".join(below)).isprintable()
    assert "\\x1b[2J\\x9b1m\\r\\n2026 ERROR forged" in head
    assert all(line.startswith("  ") for line in below)
    as_json(case)


@pytest.mark.parametrize("filling", ["x", "\x00", "😀", "5511987654321 ", "\\", '"'])
def test_a_line_is_bounded_and_keeps_what_matters(filling: str) -> None:
    long = filling * 50_000
    extra = {f"field{number}{filling * 100}": long for number in range(30)}
    case = record("%s", long, **extra, **raised(ValueError(long)))
    shown = as_json(case)
    assert shown["exception"]["type"] == "ValueError"
    assert shown["logger"] == "stages.test"
    assert len(as_text(case)) <= logs.LINE_LIMIT


def test_of_a_long_traceback_its_beginning_and_end_are_kept() -> None:
    error: Exception = ValueError("the first")
    for number in range(200):
        error, error.__cause__ = RuntimeError(f"number {number}"), error
    shown = as_json(record("failed", **raised(error)))["exception"]["traceback"]
    assert shown.startswith("ValueError: the first")
    assert shown.endswith("RuntimeError: number 199")
    assert len(shown) == logs.TRACE_LIMIT


async def run(
    handler: Any, *, trace: str = "", tenant: str = "shop", batch: int = 0, count: int = 1
) -> list[Ending]:
    one = stage("one", handler, batch=Batch(batch) if batch else None)
    executor = Executor(Broker("redis://unused", Pipeline([one])), "a")
    slot = Slot(cast("asyncio.Task[Any]", asyncio.current_task()))
    body = seal(Job(stage="one", payload=Number(7), tenant=tenant), trace)
    deliveries = [Delivery("one", 0, b"1795363715263-%d" % number, body, 2) for number in range(count)]
    if batch:
        return await executor.run_batch(one, deliveries, slot)
    return [await executor.run(one, deliveries[0], slot)]


async def test_what_a_handler_logs_names_its_job_and_nothing_does_afterwards() -> None:
    shown: list[dict[str, Any]] = []
    outlives = asyncio.Event()

    def note() -> None:
        shown.append(as_json(record("x")))

    async def left_behind() -> None:
        await outlives.wait()
        note()

    async def handle(ctx: Context, payload: Number) -> None:
        note()
        await asyncio.to_thread(note)
        await asyncio.gather(asyncio.sleep(0), asyncio.create_task(asyncio.to_thread(note)))
        tasks.append(asyncio.create_task(left_behind()))

    tasks: list[asyncio.Task[None]] = []
    await run(handle, trace=f"00-{TRACE}-00f067aa0ba902b7-01", tenant="5511987654321")
    outlives.set()
    await tasks[0]
    note()
    job = {"trace_id": TRACE, "job_id": JOB, "stage": "one", "tenant": "***21", "attempt": 2}
    assert [{key: line[key] for key in line if key in (*job, "span_id")} for line in shown] == [job] * 3 + [{}] * 2


@pytest.mark.parametrize(("count", "jobs"), [(1, {JOB}), (2, {None})])
async def test_of_a_batch_a_job_is_named_where_it_is_the_only_one(count: int, jobs: set[str | None]) -> None:
    shown = []

    async def handle(contexts: list[Context], payloads: list[Number]) -> list[int]:
        shown.append(as_json(record("x")).get("job_id"))
        raise ValueError

    async def before(ctx: Context, payload: Number) -> None: ...

    await run(before)
    await run(handle, batch=3, count=count)
    assert set(shown) == jobs
    assert running.facts() == {}


async def test_the_current_span_is_named_before_the_job_s_trace() -> None:
    shown = []

    async def handle(ctx: Context, payload: Number) -> None:
        with TracerProvider().get_tracer("test").start_as_current_span("within") as span:
            shown.append((as_json(record("x")), span.get_span_context()))

    await run(handle, trace=f"00-{TRACE}-00f067aa0ba902b7-01", tenant="")
    ((line, span),) = shown
    assert (line["trace_id"], line["span_id"]) == (f"{span.trace_id:032x}", f"{span.span_id:016x}")
    assert "tenant" not in line


def test_every_secret_of_the_settings_is_known_wherever_it_is() -> None:
    settings = load(
        environ={
            "REDIS_URL": "rediss://user:red%2Fis-pass@host.example:6380/1",
            "RIACHO_STORE_URL": "postgresql+asyncpg://postgres:post-pass@db/riacho",
            "RIACHO_WHATSAPP_ACCESS_TOKEN": "tok-default",
            "RIACHO_WHATSAPP_SENDERS": '{"shop": {"app_secret": "app://secret"}}',
            "RIACHO_FALLBACK_URL": "https://hooks.example/T0001/B0002-XYZ?sig=sig-value",
            "RIACHO_ALERTS_TO": "ops@shop.example,https://[broken",
        }
    )
    environ = {"AWS_SECRET_ACCESS_KEY": "aws-secret", "OTEL_EXPORTER_OTLP_HEADERS": "x-key=otel%2Dkey,b=other-key"}
    assert secrets_of(settings, environ) == {
        *("red%2Fis-pass", "red/is-pass", "post-pass", "tok-default", "app://secret", "sig-value"),
        *(
            "https://hooks.example/T0001/B0002-XYZ?sig=sig-value",
            "/T0001/B0002-XYZ?sig=sig-value",
            "/T0001/B0002-XYZ",
        ),
        *("ops@shop.example", "https://[broken", "aws-secret", "otel%2Dkey", "otel-key", "other-key"),
    }


def test_warnings_and_what_threads_the_loop_and_the_collector_meet_are_lines() -> None:
    def fail() -> None:
        raise ValueError("5511987654321")

    class Fails:
        def __del__(self) -> None:
            fail()

    async def main() -> None:
        asyncio.get_running_loop().call_soon(fail)
        await asyncio.sleep(0.001)

    with as_a_process_of_ours() as output:
        warnings.warn("an old way, +5511987654321", DeprecationWarning, stacklevel=1)
        thread = threading.Thread(target=fail, name="lease")
        thread.start()
        thread.join()
        asyncio.run(main())
        Fails()
    warned, threads, loops, unraisable = map(json.loads, output.getvalue().splitlines())
    assert (warned["logger"], warned["level"]) == ("py.warnings", "warning")
    assert "DeprecationWarning: an old way, ***21" in warned["message"]
    assert (threads["level"], threads["message"]) == ("critical", "lease ended by an error that nobody caught")
    assert (loops["logger"], loops["level"]) == ("asyncio", "error")
    assert [line["exception"]["message"] for line in (threads, loops, unraisable)] == ["***21"] * 3


@pytest.mark.parametrize(
    ("form", "terminal", "expected"),
    [
        ("auto", True, logs.Text),
        ("auto", False, logs.Json),
        ("json", True, logs.Json),
        ("text", False, logs.Text),
    ],
)
def test_the_form_follows_the_settings_and_the_terminal(
    form: str, terminal: bool, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    with as_a_process_of_ours() as output:
        monkeypatch.setattr(output, "isatty", lambda: terminal)
        settings = load(environ={"RIACHO_LOG_FORMAT": form}).log
        logs.set_up(settings, masked=masking.masked, running=running.facts)
        (handler,) = logging.root.handlers
        assert type(handler.formatter) is expected


def test_who_closed_standard_error_gets_no_lines_and_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    with as_a_process_of_ours():
        for output in (closed, None):
            monkeypatch.setattr(sys, "stderr", output)
            log.warning("x")


def test_a_process_that_nobody_saved_ends_with_a_masked_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> None:
        raise KeyError("5511987654321")

    monkeypatch.setattr(commands, "app", app)
    with as_a_process_of_ours() as output, pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == 1
    (line,) = map(json.loads, output.getvalue().splitlines())
    assert (line["level"], line["exception"]["type"]) == ("critical", "KeyError")
    assert "5511987654321" not in output.getvalue()


def test_a_refusal_stays_a_line_for_people_without_what_is_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> None:
        raise RiachoError("cannot reach redis://:hush@host:6379 for transcribe.0.1795363715263-0")

    monkeypatch.setattr(commands, "app", app)
    with as_a_process_of_ours() as output, pytest.raises(SystemExit):
        commands.main()
    assert output.getvalue() == f"riacho: cannot reach redis://***@host:6379 for transcribe.0.{JOB[6:]}\n"
