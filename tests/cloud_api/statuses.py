"""Status webhooks: what became of each message, told in Meta's envelope, signed, until it is taken."""

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import aiohttp
import msgspec

from api.signatures import sign
from tests.cloud_api.config import Statuses
from tests.cloud_api.errors import in_status
from tests.cloud_api.report import Accepted

_AT_ONCE = 8  # events under way


class Teller:
    """Tells the webhook of each message that it is given, from `start` until `stop`."""

    def __init__(self, config: Statuses, seed: int) -> None:
        self._config = config
        self._random = random.Random(seed)
        self._due: list[tuple[float, int, Accepted, str]] = []
        self._count = itertools.count()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self.untold = self.told = self.refused = 0

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._config.timeout))
        self._keep(asyncio.create_task(self._run()))

    async def stop(self) -> None:
        """What is not told yet never will be."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    def tell(self, message: Accepted) -> None:
        """Have the webhook told of a message that was just accepted."""
        if not self._config.url:
            return
        for status in self._statuses(message):
            for _ in range(1 + (self._random.random() < self._config.twice)):
                self._plan(message, status)

    def _statuses(self, message: Accepted) -> Sequence[str]:
        if message.failure:
            return ("failed",)
        if self._random.random() >= self._config.read:
            return ("sent", "delivered")
        return ("sent", "delivered", "played" if message.type == "audio" else "read")

    def _plan(self, message: Accepted, status: str) -> None:
        at = time.monotonic() + self._config.delay + self._random.random() * self._config.spread
        heapq.heappush(self._due, (at, next(self._count), message, status))
        self.untold += 1

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._config.batch)
            due = list(self._take())
            if self._config.shuffle:
                self._random.shuffle(due)
            for start in range(0, len(due), self._config.most):
                event = due[start : start + self._config.most]
                self._keep(asyncio.create_task(self._deliver(event)))

    def _take(self) -> Iterator[tuple[Accepted, str]]:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, _, message, status = heapq.heappop(self._due)
            yield message, status

    async def _deliver(self, statuses: Sequence[tuple[Accepted, str]]) -> None:
        body = _event(statuses)
        headers = {
            "Content-Type": "application/json",
            "X-Hub-Signature-256": sign(body, self._config.app_secret),
        }
        while not await self._taken(body, headers):
            self.refused += 1
            await asyncio.sleep(self._config.again)
        self.untold -= len(statuses)
        self.told += len(statuses)

    async def _taken(self, body: bytes, headers: dict[str, str]) -> bool:
        async with self._slots:
            try:
                async with self._session.post(self._config.url, data=body, headers=headers) as answer:
                    return answer.status == 200
            except (aiohttp.ClientError, TimeoutError):
                return False

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _event(statuses: Iterable[tuple[Accepted, str]]) -> bytes:
    """An event with a change for each number."""
    changes: dict[str, list[dict[str, Any]]] = {}
    for message, status in statuses:
        changes.setdefault(message.number, []).append(_status(message, status))
    entry = {"id": "102290129340398", "changes": [_change(number, told) for number, told in changes.items()]}
    return msgspec.json.encode({"object": "whatsapp_business_account", "entry": [entry]})


def _change(number: str, statuses: list[dict[str, Any]]) -> dict[str, Any]:
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550783881", "phone_number_id": number},
        "statuses": statuses,
    }
    return {"value": value, "field": "messages"}


def _status(message: Accepted, status: str) -> dict[str, Any]:
    recipient = "recipient_id" if message.recipient.isdigit() else "recipient_user_id"
    told: dict[str, Any] = {
        "id": message.id,
        "status": status,
        "timestamp": str(message.at_ms // 1000),  # the same in every copy
        recipient: message.recipient,
    }
    if message.job:
        told["biz_opaque_callback_data"] = message.job
    if status == "failed":
        told["errors"] = [in_status(message.failure)]
    if status == "sent":
        told["pricing"] = {"billable": True, "pricing_model": "PMP", "category": "utility", "type": "regular"}
    return told
