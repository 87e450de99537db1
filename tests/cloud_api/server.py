"""The HTTP side: which call it is, whether it may be made, what goes wrong, and the answer."""

import asyncio
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Self

import msgspec
from aiohttp import web

from tests.cloud_api.answers import json, refusal, reset, success, wamid
from tests.cloud_api.config import Config
from tests.cloud_api.errors import MetaError
from tests.cloud_api.faults import Faults
from tests.cloud_api.limits import SECOND, Bucket, Window
from tests.cloud_api.media import LARGEST, Upload, read_upload
from tests.cloud_api.payloads import Message, Template, parse
from tests.cloud_api.report import PAGE, PATH, Accepted, Report
from tests.cloud_api.statuses import Teller

_OUTSIDE_WINDOW = 131047
_SENT_ANYWAY = ("reset-after", "late")
_PAGES = {
    "http-500": (500, b"<!DOCTYPE html><title>Error</title>Sorry, something went wrong."),
    "http-503": (503, b""),
}

_Act = Callable[[web.BaseRequest, str, int], Awaitable[web.StreamResponse]]


class CloudApi:
    """The stand-in, at `url` while it is entered.

    `paused`, `refused` and `outside_window` are as in the Config and may be changed while it runs. `violations`
    says in words what callers did wrong; `messages` is what went out; the rest is as in the Report. `files` are
    what customers sent, by media id.
    """

    def __init__(self, config: Config | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.config = config = config or Config()
        self.paused = dict(config.paused)
        self.refused = dict(config.refused)
        self.outside_window = set(config.outside_window)
        self.messages: list[Accepted] = []
        self.violations: list[str] = []
        self.answers: Counter[str] = Counter()
        self.uploads: dict[str, Upload] = {}
        self.files: dict[str, bytes] = {}
        self._place = host, port
        self._faults = Faults(config)
        self._windows = {number: Window(config.per_second) for number in config.numbers}
        self._pairs: dict[tuple[str, str], Bucket] = {}
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._teller = Teller(self.config.statuses, self.config.seed)
        self._runner = web.ServerRunner(web.Server(self._serve, request_factory=_request), shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._place).start()
        await self._teller.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        await self._runner.cleanup()
        await self._teller.stop()

    @property
    def untold(self) -> int:
        """Statuses that the webhook has not taken yet."""
        return self._teller.untold

    def report(self, offset: int = 0, limit: int | None = None) -> Report:
        """All that was seen; of the messages those from `offset` on, at most `limit`."""
        end = None if limit is None else offset + limit
        told = self._teller
        messages = self.messages[offset:end]
        return Report(messages, self.violations, dict(self.answers), told.untold, told.told, told.refused)

    def delivered_to(self, recipient: str) -> list[Accepted]:
        """See Report."""
        return self.report().delivered_to(recipient)

    def sends(self) -> "Counter[str]":
        """See Report."""
        return self.report().sends()

    def assert_clean(self) -> None:
        """See Report."""
        self.report().assert_clean()

    def fail_next(self, recipient: str, faults: Sequence[str]) -> None:
        """Let the next calls for a recipient fail; uploads under "media". See Fault."""
        self._faults.script(recipient, faults)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        arrived = time.monotonic_ns()
        try:
            return await self._route(request, arrived)
        except MetaError as error:
            self._note(error, request)
            return refusal(error)
        except (ConnectionError, web.RequestPayloadError):  # a caller that was killed broke no rule
            return web.Response(status=400)
        except Exception as error:
            self.violations.append(f"{request.method} {request.path}: the stand-in itself failed: {error!r}")
            raise

    def _note(self, error: MetaError, request: web.BaseRequest) -> None:
        self.answers[str(error.code)] += 1
        if error.violation:
            self.violations.append(f"{request.method} {request.path}: {error.violation}")

    async def _route(self, request: web.BaseRequest, arrived: int) -> web.StreamResponse:
        if request.path == PATH:
            offset = int(request.query.get("offset", 0))
            return json(msgspec.json.encode(self.report(offset, PAGE)))
        file = request.path.rpartition("/")[2]
        if request.method == "GET" and file in self.files:
            return self._file(request, file)
        number, act = self._address(request)
        self._check_token(request, number)
        return await act(request, number, arrived)

    def _address(self, request: web.BaseRequest) -> tuple[str, _Act]:
        """Whose call it is, and for what. Raises MetaError."""
        _, version, *rest = request.path.split("/")
        acts: dict[str, _Act] = {"messages": self._message, "media": self._media}
        known = version in self.config.versions and rest[:1] and rest[0] in self.config.numbers
        if known and len(rest) == 1 and request.method == "GET":
            return rest[0], self._number
        if version not in self.config.versions or len(rest) != 2 or rest[1] not in acts:
            raise MetaError(2500, violation="there is no such address")
        if rest[0] not in self.config.numbers or request.method != "POST":
            raise _unsupported(request.method, rest[0])
        return rest[0], acts[rest[1]]

    def _check_token(self, request: web.BaseRequest, number: str) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            raise _bad_token("An access token is required to request this resource.", "no Bearer token")
        if token != self.config.numbers[number]:
            raise _bad_token(f"Malformed access token {token}", "the token is not this number's")
        if code := self.paused.get(number):
            raise _bad_token(f"Malformed access token {token}") if code == 190 else MetaError(code)

    def _file(self, request: web.BaseRequest, id: str) -> web.StreamResponse:  # noqa: A002
        """Where a file is, or itself there: for any of our numbers."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.config.numbers.values():
            raise _bad_token("An access token is required to request this resource.", "no token of a number")
        content = self.files[id]
        if request.path.startswith("/files/"):
            return web.Response(body=content)
        sha256 = hashlib.sha256(content).hexdigest()
        return json(msgspec.json.encode({"id": id, "url": f"{self.url}/files/{id}", "sha256": sha256}))

    async def _number(self, request: web.BaseRequest, number: str, _: int) -> web.StreamResponse:
        """The fields of a phone number that were asked for; its id is all there is here."""
        if request.query.get("fields", "id") != "id":
            raise MetaError(100, violation=f"no such field of a phone number: {request.query['fields']}")
        return json(msgspec.json.encode({"id": number}))

    async def _message(self, request: web.BaseRequest, number: str, arrived: int) -> web.StreamResponse:
        at_ms = time.time_ns() // 1_000_000
        if request.content_type != "application/json":
            raise MetaError(100, violation=f"Content-Type is {request.content_type}, not application/json")
        message = parse(await request.read())
        self._check_media(message, number)
        self._check_template(message)
        self._check_limits(number, message.address, arrived)
        fault = self._faults.next(message.address, f"{message.address} {message.type} {message.words}")
        if fault != "pass" and fault not in _SENT_ANYWAY:
            return await self._fail(request, fault)
        accepted = self._accept(number, message, at_ms)
        if fault == "reset-after":
            return await self._fail(request, fault)
        if fault == "late":
            await self._be_late()
        await self._take_time(accepted.id)
        return success(message, accepted.id)

    def _check_media(self, message: Message, number: str) -> None:
        media = message.media
        if not media or not media.id:
            return
        upload = self.uploads.get(media.id)
        if not upload or upload.number != number or upload.kind != message.type:
            what = f"Param {message.type}.id is not a valid whatsapp business account media attachment ID"
            raise MetaError(100, what, violation=what)
        if getattr(media, "voice", False) and upload.mime != "audio/ogg":
            raise MetaError(131053, violation=f"a voice message is ogg/opus, not {upload.mime}")

    def _check_template(self, message: Message) -> None:
        if not message.template or not self.config.templates:
            return
        used: Template = message.template
        known = self.config.templates.get(used.name)
        if not known or used.language.code not in known.languages:
            raise MetaError(132001, violation=f"no template {used.name} in {used.language.code}")
        if len(used.values) != known.parameters:
            what = f"{len(used.values)} parameters for the {known.parameters} of {used.name}"
            raise MetaError(132000, what, violation=what)

    def _check_limits(self, number: str, recipient: str, arrived: int) -> None:
        """A call over one limit counts for neither."""
        pair = self._pairs.get((number, recipient))
        if pair is None:
            every = round(self.config.pair_every * SECOND)
            pair = self._pairs[number, recipient] = Bucket(self.config.pair_burst, every)
        if not pair.has_room(arrived):
            raise MetaError(131056, violation=f"too many messages from {number} to {recipient}")
        if not self._windows[number].take(arrived):
            limit = self.config.per_second
            raise MetaError(130429, violation=f"more than {limit} messages a second from {number}")
        pair.take(arrived)

    def _accept(self, number: str, message: Message, at_ms: int) -> Accepted:
        failure = self._failure(message)
        if failure and not self.config.later:
            raise MetaError(failure)
        accepted = Accepted(
            number,
            message.address,
            message.type,
            message.words,
            message.biz_opaque_callback_data,
            wamid(message.address),
            at_ms,
            failure,
        )
        self.messages.append(accepted)
        self.answers["accepted"] += 1
        self._teller.tell(accepted)
        return accepted

    def _failure(self, message: Message) -> int:
        if message.address in self.outside_window and message.type != "template":
            return _OUTSIDE_WINDOW
        return self.refused.get(message.address, 0)

    async def _media(self, request: web.BaseRequest, number: str, arrived: int) -> web.StreamResponse:
        upload = await read_upload(request, number)
        fault = self._faults.next("media", blake2b(upload.content).hexdigest())
        if fault == "late":
            await self._be_late()
        elif fault != "pass":
            return await self._fail(request, fault)
        media_id = str(secrets.randbelow(9 * 10**14) + 10**14)
        self.uploads[media_id] = upload
        self.answers["uploaded"] += 1
        await self._take_time(media_id)
        return json(msgspec.json.encode({"id": media_id}))

    async def _fail(self, request: web.BaseRequest, fault: str) -> web.StreamResponse:
        if fault.isdigit():
            raise MetaError(int(fault))
        self.answers[fault] += 1
        if fault in _PAGES:
            status, body = _PAGES[fault]
            return web.Response(status=status, body=body, content_type="text/html")
        reset(request)
        return web.Response()

    async def _be_late(self) -> None:
        self.answers["late"] += 1
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), self.config.late)

    async def _take_time(self, what: str) -> None:
        if self.config.latency or self.config.jitter:
            await asyncio.sleep(self.config.latency + self._faults.chance(what) * self.config.jitter)


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=LARGEST + 2**20)


def _bad_token(message: str, violation: str = "") -> MetaError:
    return MetaError(190, message=message, violation=violation)


def _unsupported(method: str, number: str) -> MetaError:
    what = f"Unsupported {method.lower()} request. Object with ID '{number}' does not exist, or cannot be loaded"
    return MetaError(100, what, subcode=33, message=what, violation=what)
