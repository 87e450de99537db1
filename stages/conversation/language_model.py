"""A Responder that asks a language model: by Ollama's API, or OpenAI's, which many servers speak."""

import asyncio
import itertools
import logging
import math
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Annotated, Literal, Protocol, Self

import aiohttp
import msgspec

from stages.outgoing import TooLarge, body_of, traced
from stages.ports import Message, Responder

log = logging.getLogger(__name__)

BYTE_LIMIT = 1_000_000  # of a model's answer
TEXT_LIMIT = 4096  # characters WhatsApp takes
PAUSE, LONGEST_PAUSE = 0.5, 5.0  # seconds before another try

# Reasoning comes first where a server does not tell it apart. Some templates begin it themselves, so that only its
# end is seen; of one that was cut off only the beginning is.
REASONING = re.compile(r"\A(?:.*</think>)?(?:\s*<think>.*)?", re.DOTALL)
# What a text that is too long may end in, best first.
ENDS = re.compile(r".*[.!?…](?=\s)", re.DOTALL), re.compile(r".*\S(?=\s)", re.DOTALL)


class _Said(msgspec.Struct):
    content: str | None = None  # none beside tool calls and refusals


class _Choice(msgspec.Struct):
    message: _Said


class _OllamaAnswer(_Choice):
    """https://docs.ollama.com/api/chat"""

    @property
    def text(self) -> str | None:
        return self.message.content


class _OpenAiAnswer(msgspec.Struct):
    """https://platform.openai.com/docs/api-reference/chat/object"""

    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]

    @property
    def text(self) -> str | None:
        return self.choices[0].message.content


# Where each takes its questions; these are alike.
APIS: dict[str, tuple[str, type[_OllamaAnswer | _OpenAiAnswer]]] = {
    "ollama": ("/api/chat", _OllamaAnswer),
    "openai": ("/v1/chat/completions", _OpenAiAnswer),
}


class _NoAnswer(Exception):
    """Why there is none, fit for a log; and how many seconds later there may be one."""

    def __init__(self, why: str, pause: float = PAUSE) -> None:
        super().__init__(why)
        self.pause = pause


class Informed(Protocol):
    """Somebody who knows what a model cannot."""

    async def facts(self, asked: Message) -> str:
        """What may be of use to answer; empty where that is nothing."""


class LanguageModel:
    """Answers with a model's words, or with those of `fallback` where it has none to offer.

    `url` is the server's address with or without `/v1`. A try may take `timeout` seconds; after a time-out, a lost
    connection, an answer that is none, 429 and 5xx there is another, up to `attempts` in all. `prompts` by tenant
    replace `prompt`; what `shop` knows goes with either. A context manager: it keeps connections.
    """

    def __init__(
        self,
        api: Literal["ollama", "openai"],
        url: str,
        *,
        model: str,
        api_key: str,
        timeout: float,
        attempts: int,
        prompt: str,
        prompts: Mapping[str, str],
        fallback: Responder,
        shop: Informed | None = None,
    ) -> None:
        path, self._answer = APIS[api]
        self._url = url.rstrip("/").removesuffix("/v1") + path
        self._model = model
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout = timeout
        self._attempts = attempts
        self._prompt, self._prompts = prompt, prompts
        self._fallback = fallback
        self._shop = shop

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=self._timeout)
        self._http = aiohttp.ClientSession(
            timeout=timeout, headers=self._headers, trace_configs=traced("language model")
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def reply(self, history: Sequence[Message]) -> str:
        """See the port; takes no longer than `longest` says."""
        asked = history[-1]
        facts = await self._shop.facts(asked) if self._shop else ""
        prompt = "\n\n".join(filter(None, (self._prompts.get(asked.tenant, self._prompt), facts)))
        request = {"model": self._model, "messages": _messages(prompt, history), "stream": False}
        try:
            return await self._insist(msgspec.json.encode(request))
        except _NoAnswer as error:
            log.warning("the rules answer in place of the language model %s: %s", self._model, error)
            return await self._fallback.reply(history)

    async def _insist(self, request: bytes) -> str:
        tries_left = self._attempts
        while True:
            try:
                return await self._ask(request)
            except _NoAnswer as error:
                tries_left -= 1
                if not tries_left or error.pause > LONGEST_PAUSE:
                    raise
                await asyncio.sleep(error.pause)

    async def _ask(self, request: bytes) -> str:
        try:
            # Redirected, the key would go elsewhere, and the POST become a GET.
            async with self._http.post(self._url, data=request, allow_redirects=False) as answer:
                _check(answer)
                body = await _read(answer)
        except TimeoutError:
            raise _NoAnswer(f"it took longer than {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:  # its text has the address in it
            raise _NoAnswer(f"the connection failed ({type(error).__name__})") from None
        try:
            text = fit(msgspec.json.decode(body, type=self._answer).text or "")
        except (ValueError, RecursionError):
            raise _NoAnswer("its answer cannot be read") from None
        if not text:
            raise _NoAnswer("its answer is empty")
        return text


def longest(timeout: float, attempts: int) -> float:
    """Seconds that a reply may take, with a time-out for each of so many tries."""
    return attempts * timeout + (attempts - 1) * LONGEST_PAUSE


def fit(answer: str) -> str:
    """What of a model's answer goes to the customer: no reasoning, and no more than WhatsApp takes."""
    text = REASONING.sub("", answer.replace("\0", "")).strip()
    if len(text) <= TEXT_LIMIT:
        return text
    for end in ENDS:
        found = end.match(text[: TEXT_LIMIT + 1])
        if found and found.end() > TEXT_LIMIT / 2:
            return found[0]
    return text[:TEXT_LIMIT].rstrip()


def _messages(prompt: str, history: Sequence[Message]) -> list[dict[str, str]]:
    """The history as both APIs take it. Many models insist on turns, the user's first."""
    from_customer = itertools.dropwhile(lambda message: message.direction == "out", history)
    turns = itertools.groupby(from_customer, lambda message: message.direction)
    roles = {"in": "user", "out": "assistant"}
    said = [(roles[side], "\n".join(message.text for message in turn)) for side, turn in turns]
    return [{"role": role, "content": text} for role, text in [("system", prompt), *said] if text]


def _check(answer: aiohttp.ClientResponse) -> None:
    if answer.status == 200:
        return
    passing = answer.status == 429 or answer.status >= 500
    after = answer.headers.get("Retry-After", "")
    pause = float(after) if after.isdecimal() else PAUSE
    raise _NoAnswer(f"it answered {answer.status}", pause if passing else math.inf)


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    try:
        return await body_of(answer, BYTE_LIMIT)
    except TooLarge as error:
        raise _NoAnswer(f"its answer is {error}", math.inf) from None
