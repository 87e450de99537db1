"""The language model as a responder, against strict stand-ins of Ollama's and OpenAI's APIs."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from api.adapters import Adapters, ResponderUnusable
from config import Secret, load, replaced
from stages.conversation import language_model
from stages.conversation.language_model import BYTE_LIMIT, TEXT_LIMIT, LanguageModel, longest
from stages.conversation.rules import UNSURE, RuleResponder
from stages.ports import Message

pytestmark = pytest.mark.integration

KEY = "sk-much-too-secret"
PATHS = {"ollama": "/api/chat", "openai": "/v1/chat/completions"}
QUESTION = "Olá, meu CPF é 123"
FROM_RULES = UNSURE["pt"]
PROMPT = "Be brief."

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Model:
    """A server of one of the APIs. It refuses what the API would, and keeps that as a mistake; asked rightly it
    behaves as the test has it behave, one thing after the other, the last for good."""

    def __init__(self, api: str) -> None:
        self.api = api
        self.behaviours: list[Behaviour] = []
        self.asked: list[list[tuple[str, str]]] = []
        self.times: list[float] = []
        self.mistakes: list[str] = []
        self.key = KEY
        self.stalled = asyncio.Event()
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.times.append(time.monotonic())
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": f"bad key {request.headers.get('Authorization')}"}, status=401)
        try:
            self.asked.append(await self._read(request))
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            self.mistakes.append(repr(error))
            return web.json_response({"error": "malformed"}, status=400)
        behaviour = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
        return await behaviour(request)

    async def _read(self, request: web.Request) -> list[tuple[str, str]]:
        assert (request.method, request.path) == ("POST", PATHS[self.api])
        assert request.content_type == "application/json"
        body = await request.json()
        assert set(body) == {"model", "messages", "stream"}, set(body)
        assert (body["model"], body["stream"]) == ("small", False)
        messages = [(message.pop("role"), message.pop("content"), message) for message in body["messages"]]
        assert all(text and isinstance(text, str) and not more for _, text, more in messages)
        assert messages[0][0] == "system"
        assert [role for role, *_ in messages[1:]] == (["user", "assistant"] * len(messages))[: len(messages) - 1]
        assert messages[-1][0] == "user"
        return [(role, text) for role, text, _ in messages]

    def says(self, content: object, **more: object) -> Behaviour:
        """An answer of this content, in the API's shape."""
        message = {"role": "assistant", "content": content} | more
        if self.api == "ollama":
            return json({"model": "small", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": True})
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return json({"id": "chatcmpl-1", "object": "chat.completion", "model": "small", "choices": [choice]})

    async def stalls(self, request: web.Request) -> web.StreamResponse:
        """Begins an answer and goes silent."""
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"{")
        await self.stalled.wait()
        return answer


def json(body: object, status: int = 200, **headers: str) -> Behaviour:
    async def behave(_: web.Request) -> web.Response:
        return web.json_response(body, status=status, headers=headers)

    return behave


def raw(body: bytes, status: int = 200, **headers: str) -> Behaviour:
    async def behave(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status, content_type="text/html", headers=headers)

    return behave


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before another try, where the model names none."""
    monkeypatch.setattr(language_model, "PAUSE", 0.01)
    # There it is a default, which was taken when the module was loaded.
    monkeypatch.setattr(language_model._NoAnswer.__init__, "__defaults__", (0.01,))


async def hangs_up(request: web.Request) -> web.Response:
    assert request.transport
    request.transport.close()
    return web.Response()


@pytest.fixture(params=PATHS)
async def model(request: pytest.FixtureRequest) -> AsyncIterator[Model]:
    model, app = Model(request.param), web.Application()
    app.router.add_route("*", "/{path:.*}", model.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    model.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield model
    model.stalled.set()
    await runner.cleanup()
    assert model.mistakes == []


async def ask(model: Model, history: Sequence[Message] = (), **options: Any) -> str:
    chosen: dict[str, Any] = {
        "model": "small",
        "api_key": KEY,
        "timeout": 5.0,
        "attempts": 2,
        "prompt": PROMPT,
        "prompts": {},
        "fallback": RuleResponder(),
    }
    api: Any = model.api
    async with LanguageModel(api, options.pop("url", model.url), **chosen | options) as responder:
        return await responder.reply(history or [message(QUESTION)])


def message(text: str, direction: Any = "in", tenant: str = "shop") -> Message:
    return Message(tenant, "ana", text, direction, text, 0)


async def test_the_history_goes_to_the_model_in_turns_and_its_answer_to_the_customer(model: Model) -> None:
    model.behaviours = [model.says("  Claro!\n")]
    told = [("out", "too long ago"), ("in", "Oi"), ("in", "Tem pizza?"), ("out", "Tem!"), ("in", "Quero uma")]
    assert await ask(model, [message(text, direction) for direction, text in told]) == "Claro!"
    turns = [("user", "Oi\nTem pizza?"), ("assistant", "Tem!"), ("user", "Quero uma")]
    assert model.asked == [[("system", PROMPT), *turns]]


@pytest.mark.parametrize(("tenant", "prompt"), [("shop", PROMPT), ("bakery", "You sell bread.")])
async def test_a_shop_can_have_a_prompt_of_its_own(model: Model, tenant: str, prompt: str) -> None:
    model.behaviours = [model.says("Claro!")]
    await ask(model, [message("Oi", tenant=tenant)], prompts={"bakery": "You sell bread."})
    assert model.asked[0][0] == ("system", prompt)


@pytest.mark.parametrize("ending", ["/", "/v1", "/v1/"])
async def test_the_address_may_end_as_others_write_it(model: Model, ending: str) -> None:
    model.behaviours = [model.says("Claro!")]
    assert await ask(model, url=model.url + ending) == "Claro!"


async def test_reasoning_stays_with_us_and_a_long_answer_is_cut(model: Model) -> None:
    model.behaviours = [model.says(f"<think>\nHe wants a pizza.\n</think>\n\n{'Sim. ' * 2000}", thinking="…")]
    answer = await ask(model)
    assert answer.startswith("Sim. Sim.")
    assert TEXT_LIMIT - 5 < len(answer) <= TEXT_LIMIT
    assert answer.endswith("Sim.")


def passing(model: Model) -> dict[str, Behaviour]:
    """Failures after which there is another try."""
    calls = [{"id": "1", "type": "function", "function": {"name": "order", "arguments": "{}"}}]
    return {
        "500": json({"error": f"{KEY} {QUESTION}"}, 500),
        "503": raw(b"<html>try later</html>", 503),
        "429": json({"error": "slow down"}, 429),
        "hangs up": hangs_up,
        "stalls": model.stalls,
        "html": raw(b"<html>Welcome to nginx!</html>"),
        "no text": raw(b"\xff\xfe"),
        "other json": json({"choices": [], "message": None}),
        "deep": raw(b'{"message":' + b"[" * 100_000),
        "empty": model.says(" \n"),
        "tool call": model.says(None, tool_calls=calls),
        "parts": model.says([{"type": "text", "text": "Oi"}]),
        "only reasoning": model.says("<think>He wants"),
    }


def final(model: Model) -> dict[str, Behaviour]:
    """Failures after which there is none."""
    return {
        "400": json({"error": f"{KEY} {QUESTION}"}, 400),
        "404": json({"error": "model 'small' not found"}, 404),
        "elsewhere": raw(b"", 307, Location=f"{model.url}/elsewhere"),
        "busy for an hour": json({}, 429, **{"Retry-After": "3600"}),
        "huge": raw(b'{"message": "' + b"x" * BYTE_LIMIT + b'"}'),
    }


def warning(caplog: pytest.LogCaptureFixture) -> str:
    """The one thing that was logged; nothing of it is a secret."""
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    for secret in (KEY, "CPF", QUESTION):
        assert secret not in caplog.text
    return record.getMessage()


@pytest.mark.parametrize("failure", passing(Model("")))
async def test_after_a_failure_that_may_pass_there_is_another_try(model: Model, failure: str) -> None:
    model.behaviours = [passing(model)[failure], model.says("Claro!")]
    assert await ask(model, timeout=0.5) == "Claro!"


@pytest.mark.parametrize("failure", passing(Model("")))
async def test_when_the_tries_are_used_up_the_rules_answer(
    model: Model, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    model.behaviours = [passing(model)[failure]]
    assert await ask(model, timeout=1.0, attempts=1) == FROM_RULES
    assert len(model.asked) == 1
    assert warning(caplog).startswith("the rules answer in place of the language model small: ")


@pytest.mark.parametrize("failure", final(Model("")))
async def test_where_another_try_cannot_help_there_is_none(
    model: Model, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    model.behaviours = [final(model)[failure], model.says("Claro!")]
    assert await ask(model, attempts=9) == FROM_RULES
    assert len(model.times) == 1
    warning(caplog)


async def test_a_key_that_is_not_known_is_not_tried_again_and_not_shown(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    model.key = "another"
    assert await ask(model) == FROM_RULES
    assert len(model.times) == 1
    assert "401" in warning(caplog)


async def test_nobody_listens(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    assert await ask(model, url="http://127.0.0.1:1") == FROM_RULES
    assert "the connection failed" in warning(caplog)


async def test_the_model_is_asked_again_when_it_said_and_not_before(model: Model) -> None:
    model.behaviours = [json({}, 429, **{"Retry-After": "1"}), model.says("Claro!")]
    assert await ask(model) == "Claro!"
    assert 1 <= model.times[1] - model.times[0] < 5


async def test_a_reply_takes_no_longer_than_is_reckoned_with(model: Model) -> None:
    model.behaviours = [model.stalls]
    before = time.monotonic()
    assert await ask(model, timeout=0.3, attempts=3) == FROM_RULES
    assert 0.9 <= time.monotonic() - before < 5 < longest(0.3, 3)
    assert len(model.asked) == 3


# ── as it is put together ────────────────────────────────────────────────────────────────────────


def settings(tmp_path: Path, **responder: Any) -> Any:
    return replaced(load(environ={}), data={"folder": tmp_path}, responder=responder)


async def test_the_settings_choose_the_model(model: Model, tmp_path: Path) -> None:
    model.behaviours = [model.stalls, model.says("Claro!")]
    chosen = settings(
        tmp_path, kind=model.api, url=model.url, model="small", api_key=Secret(KEY), timeout=0.5, attempts=2
    )
    adapters = Adapters(chosen)
    async with adapters.opened():
        assert await adapters.responder.reply([message("Oi")]) == "Claro!"
    assert model.asked[0][0] == ("system", chosen.responder.prompt)


def test_the_stage_has_the_time_that_the_model_may_take(tmp_path: Path) -> None:
    usable = {"kind": "ollama", "url": "http://127.0.0.1:11434", "model": "small"}
    slow = Adapters(settings(tmp_path, **usable, timeout=100.0, attempts=3)).pipeline()
    assert slow.stage("process-conversation").timeout > longest(100, 3) >= 300


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"url": ""}, "RIACHO_RESPONDER_URL"),
        ({"url": "127.0.0.1:11434"}, "RIACHO_RESPONDER_URL"),
        ({"url": "http://"}, "RIACHO_RESPONDER_URL"),
        ({"url": "http://[oops"}, "RIACHO_RESPONDER_URL"),
        ({"url": f"http://me:{KEY}@127.0.0.1"}, "RIACHO_RESPONDER_URL"),
        ({"model": ""}, "RIACHO_RESPONDER_MODEL"),
        ({"api_key": Secret(KEY + "\n")}, "RIACHO_RESPONDER_API_KEY"),
        ({"api_key": Secret(KEY + "ü")}, "RIACHO_RESPONDER_API_KEY"),
    ],
)
def test_settings_that_do_not_go_together_are_an_error_at_the_start(
    tmp_path: Path, wrong: dict[str, Any], named: str
) -> None:
    usable = {"kind": "ollama", "url": "http://127.0.0.1:11434", "model": "small"}
    Adapters(settings(tmp_path, **usable))
    with pytest.raises(ResponderUnusable, match=named) as raised:
        Adapters(settings(tmp_path, **usable | wrong))
    assert KEY not in str(raised.value)
