"""Log lines, to standard error: for people on a terminal, else JSON, an object a line.

Each is masked as a whole: message, exception with its traceback, extra fields. What masks, and what tells of the
job that runs, comes from outside: nothing here knows of the engine.
"""

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace

from config.settings import Log

Mask = Callable[[str], str]
Facts = Callable[[], Mapping[str, str | int]]

LINE_LIMIT = 16_384  # characters, which are bytes in JSON
MESSAGE_LIMIT = 8_192
TRACE_LIMIT = 6_000  # the beginning of it, and more of its end, where the error is
VALUE_LIMIT = 1_024  # of an extra field
MOST_EXTRA = 20
SECRET_NAMES = ("token", "secret", "password", "api_key", "authorization")

_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}  # what every record has
_NUMBER = re.compile(r"True|False|-?[0-9.e+-]{1,24}", re.ASCII)  # neither masked nor infinite

log = logging.getLogger(__name__)


class Line(logging.Formatter):
    """What both forms share. Formatting never raises: a line that cannot be made says so."""

    def __init__(self, masked: Mask, running: Facts) -> None:
        super().__init__()
        self._masked, self._running = masked, running

    def format(self, record: logging.LogRecord) -> str:
        try:
            return self._line(record)
        except Exception as error:  # noqa: BLE001 - in here is others' code: arguments and errors are made text of
            return json.dumps(
                {"level": "error", "logger": __name__, "message": f"a line is lost: {type(error)!r}"}
            )

    def _line(self, record: logging.LogRecord) -> str:
        raise NotImplementedError

    def _message(self, record: logging.LogRecord) -> str:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit their message, or cannot be shown
            text = f"{_said(record.msg)} (its arguments do not fit)"
        return _shortened(self._masked(text), MESSAGE_LIMIT)

    def _traceback(self, record: logging.LogRecord) -> str:
        parts = [record.stack_info] if record.stack_info else []
        if record.exc_info and record.exc_info[1]:
            parts.append("".join(traceback.format_exception(record.exc_info[1])).rstrip("\n"))
        return _shortened(self._masked("\n".join(parts)), TRACE_LIMIT, end=0.7)

    def _extra(self, record: logging.LogRecord) -> dict[str, Any]:
        """The fields that whoever logged it gave beside the message."""
        names = [name for name in vars(record) if name not in _OWN and not name.startswith("_")][:MOST_EXTRA]
        return {ascii(self._masked(name))[1:-1][:40]: self._value(name, getattr(record, name)) for name in names}

    def _value(self, name: str, value: object) -> Any:
        if any(word in name.lower() for word in SECRET_NAMES):
            return "***"
        shown = self._masked(_said(value))
        if value is None or (isinstance(value, int | float) and _NUMBER.fullmatch(shown)):
            return value
        return _shortened(shown, VALUE_LIMIT)


class Text(Line):
    """Time, level, place, message: on one line whatever is in them, a traceback indented below it, so that no
    text from outside can move a terminal, or look like a line of ours."""

    def _line(self, record: logging.LogRecord) -> str:
        message = self._message(record)
        if extra := self._extra(record):
            message = f"{message} {extra}"
        head = f"{self.formatTime(record)} {record.levelname:<7} {record.name}: {_harmless(message)}"
        below = [f"  {_harmless(line)}" for line in self._traceback(record).split("\n") if line]
        return _shortened("\n".join([head, *below]), LINE_LIMIT)


class Json(Line):
    """One object. ASCII alone: safe on every terminal, whatever its encoding."""

    def _line(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name[:200],
            "message": self._message(record),
            **self._known(),
        }
        if record.exc_info and record.exc_info[1]:
            fields["exception"] = self._exception(record.exc_info[1], record)
        elif record.stack_info:
            fields["stack"] = self._traceback(record)
        if extra := self._extra(record):
            fields["extra"] = extra
        return _bounded(fields)

    def _known(self) -> dict[str, Any]:
        """Where in the work it was said."""
        known: dict[str, Any] = dict(self._running())
        if "tenant" in known:  # whoever may add jobs names it
            known["tenant"] = _shortened(self._masked(known["tenant"]), VALUE_LIMIT)
        span = trace.get_current_span().get_span_context()
        if not span.is_valid:
            return known
        ids = {"trace_id": trace.format_trace_id(span.trace_id), "span_id": trace.format_span_id(span.span_id)}
        return known | ids

    def _exception(self, error: BaseException, record: logging.LogRecord) -> dict[str, str]:
        return {
            "type": f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."),
            "message": _shortened(self._masked(_said(error)), VALUE_LIMIT),
            "traceback": self._traceback(record),
        }


class _ToStandardError(logging.Handler):
    """To what is standard error at the time; a line that cannot be written is lost without a word."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):  # nobody reads it, it is closed, there is none
            return


_handler = _ToStandardError()


def set_up(settings: Log, *, masked: Mask, running: Facts) -> None:
    """Send our own log lines from the settings' level up, and other libraries' warnings, to standard error.

    `masked` makes a text fit to be shown; `running` says what is known of the job that runs where it is called.
    """
    _begin(settings.format, masked, running)
    for name in ("pipeline", "stages", "api", "config"):
        logging.getLogger(name).setLevel(settings.level.upper())


def take_over(*, masked: Mask, running: Facts) -> None:
    """For a process of ours: what nobody caught in threads, warnings, and what Python itself complains of are log
    lines, too, already before the settings are read."""
    _begin("auto", masked, running)
    logging.captureWarnings(True)
    sys.unraisablehook = _unraisable
    threading.excepthook = _uncaught_in_thread


def _begin(form: str, masked: Mask, running: Facts) -> None:
    as_text = form == "text" or (form == "auto" and sys.stderr is not None and sys.stderr.isatty())
    _handler.setFormatter((Text if as_text else Json)(masked, running))
    logging.basicConfig(handlers=[_handler], level="WARNING")
    # Clients that send nonsense are told so in their answer; a traceback for each would only fill the log.
    logging.getLogger("aiohttp.server").setLevel("CRITICAL")


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value and not isinstance(args.exc_value, SystemExit):
        name = args.thread.name if args.thread else "a thread"
        log.critical("%s ended by an error that nobody caught", name, exc_info=args.exc_value)


def _unraisable(args: "sys.UnraisableHookArgs") -> None:
    log.error("%s: %r", args.err_msg or "an error that cannot be raised", args.object, exc_info=args.exc_value)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _said(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - even that is others' code
        return f"<{type(value).__name__} that cannot be shown>"


def _harmless(text: str) -> str:
    """Text without what a terminal would take for an order, or for another line."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _shortened(text: str, limit: int, *, end: float = 0.0) -> str:
    """The beginning of a text that is too long, and of what is kept so large a part from its end."""
    if len(text) <= limit:
        return text
    tail = int(limit * end)
    return f"{text[: limit - tail - 1]}…{text[len(text) - tail :]}"


def _bounded(fields: dict[str, Any]) -> str:
    """In JSON, its longest parts halved until it is no longer than a line may be."""
    while len(line := json.dumps(fields, allow_nan=False)) > LINE_LIMIT:
        _halve(fields)
    return line


def _halve(fields: dict[str, Any]) -> None:
    parts = [part for part in (fields, fields.get("exception"), fields.get("extra")) if part]
    texts = [
        (len(json.dumps(text)), part, name) for part in parts for name, text in part.items() if type(text) is str
    ]
    _, part, name = max(texts, key=lambda each: each[0])
    part[name] = _shortened(part[name], len(part[name]) // 2, end=0.7 if name == "traceback" else 0.0)
