"""Hands what is told of jobs out to everybody who listens to this process.

One tail reads it, whatever the number of clients. An event is put into words once; clients that want the same
get the same bytes. Whoever does not read them is cut off.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import msgspec

from api.problems import Problem
from pipeline import Broker, JobId, Pipeline
from pipeline.events import Event, Said, Told, cursor_of, event_of, order, read
from pipeline.tail import Tail

log = logging.getLogger(__name__)

MOST_UNSENT = 524_288  # bytes that may wait for one client, besides those on their way
MOST_PER_SECOND = 1_000.0  # events for those who want the same; of more they are told how many
MOST_IN_ALL = 20_000.0  # a second for all clients together; what many want is less for each
PACE = 0.1  # seconds: a busy server's events come in few pieces, and in fewer
PACE_EACH = 0.002  # seconds later for each client
WOKEN_AT_ONCE = 10  # clients: jobs that come in meanwhile do not wait for all of them to be written to
WAKE_EVERY = 0.002  # seconds
CATCH_UP = 2.0  # seconds for which one who has seen more than we have waits for us
STOP_TIMEOUT = 3.0  # seconds
RETRY_AFTER = {"Retry-After": "5"}

encode = msgspec.json.Encoder().encode


class Wanted(NamedTuple):
    """Whose events a client gets: a queue's, a job's, or ('') everybody's."""

    queue: str = ""
    job: str = ""


EVERYTHING = Wanted()


def wanted_of(pipeline: Pipeline, queue: str, job: str) -> Wanted:
    """What a client names. Raises UnknownStage, BadJobId."""
    if not job:
        if queue:
            pipeline.queue(queue)
        return Wanted(queue)
    job_id = JobId.parse(job)
    pipeline.find(queue or pipeline.stage(job_id.stage).queue, job_id.stage)
    return Wanted("", str(job_id))


def block(event: Event, cursor: str) -> bytes:
    """An event as it is sent; `cursor` leads to what comes after it."""
    return b"id: %b\nevent: job\ndata: %b\n\n" % (cursor.encode(), encode(event))


def gap(cursor: str, reason: str, missed: int | None = None) -> bytes:
    """Says that there were events that a client does not get; how many, if that is known."""
    data = {"reason": reason} | ({} if missed is None else {"missed": missed})
    return b"id: %b\nevent: gap\ndata: %b\n\n" % (cursor.encode(), encode(data))


def _wanting(told: Told, said: Said, queue: str) -> set[Wanted]:
    """By whom an event is wanted."""
    job = f"{said.stage.decode()}.{told.partition}.{said.entry.decode()}"
    return {EVERYTHING, Wanted(queue), Wanted("", job)}


def queues_of(pipeline: Pipeline) -> dict[bytes, str]:
    """The queue of each stage."""
    return {stage.name.encode(): stage.queue for stage in pipeline}


def wanted_event(queues: Mapping[bytes, str], told: Told, wanted: Wanted) -> Event | None:
    """An event, where it is one and is wanted."""
    if told.said is None:
        return None
    said = read(told.said)
    queue = queues.get(said.stage, "")
    return event_of(told, said, queue) if wanted in _wanting(told, said, queue) else None


class Client:
    """What one client is still to be sent. `writing` is for whoever sends it to say that it is on its way."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self.ended = False
        self.writing = False
        self._transport = transport
        self._unsent: list[bytes] = []
        self._size = 0
        self._news = asyncio.Event()

    def put(self, chunk: bytes) -> None:
        """Have this sent when woken; cuts off a client that has not taken what came before."""
        if self._size > MOST_UNSENT:
            self.cut()
        elif not self.ended:
            self._unsent.append(chunk)
            self._size += len(chunk)

    def wake(self) -> None:
        """Have it sent now."""
        if self._unsent:
            self._news.set()

    async def take(self, timeout: float) -> bytes:
        """What is to be sent; nothing after so many seconds, or at the end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._news.wait()
        chunks, self._unsent, self._size = b"".join(self._unsent), [], 0
        if not self.ended:
            self._news.clear()
        return chunks

    def forget(self) -> None:
        """Do not send what is not sent yet."""
        self._unsent.clear()
        self._size = 0

    def end(self) -> None:
        """Send nothing more."""
        self.ended = True
        self._unsent.clear()
        self._news.set()
        if self.writing:  # to somebody who does not read, who would be waited for
            self.cut()

    def cut(self) -> None:
        """Break the connection."""
        self.writing = False
        self._transport.abort()
        self.end()

    def end_if_gone(self) -> None:
        """There are no news of a client that went away before it is written to."""
        if self._transport.is_closing():
            self.end()


class Feed:
    """The clients that want the same."""

    def __init__(self) -> None:
        self.clients: set[Client] = set()
        self._blocks: list[bytes] = []
        self._left_out = 0
        self._allowance, self._allowed_at = MOST_PER_SECOND, time.monotonic()

    def allow(self, now: float, per_second: float) -> None:
        """Let more pass, by the time that went by."""
        earned = (now - self._allowed_at) * per_second
        self._allowance, self._allowed_at = min(max(1.0, per_second), self._allowance + earned), now

    def takes(self) -> bool:
        """Whether one more event may pass, which then counts."""
        if self._allowance < 1:
            self._left_out += 1
            return False
        self._allowance -= 1
        return True

    def add(self, content: bytes) -> None:
        self._blocks.append(content)

    def hand_out(self, cursor: str) -> None:
        """Give it to the clients; `cursor` is where all have come to."""
        if self._left_out:
            self.add(gap(cursor, "rate", self._left_out))
            self._left_out = 0
        if self._blocks:
            chunk = b"".join(self._blocks)
            self._blocks.clear()
            for client in self.clients:
                client.put(chunk)


class Hub:
    """Listens while anybody does. Of more than `most` clients the newest is sent away."""

    def __init__(self, broker: Broker, most: int) -> None:
        self.queues = queues_of(broker.pipeline)
        self.position: list[bytes] = []  # what was read
        self.handed_out: list[bytes] = []
        self._broker = broker
        self._most = most
        self._count = 0
        self._feeds: defaultdict[Wanted, Feed] = defaultdict(Feed)
        self._starting = asyncio.Lock()
        self._running: asyncio.Task[None] | None = None
        self._tails: dict[asyncio.Task[None], Tail] = {}  # of that one, and of those that are about to end
        self._closed = False
        self._handed_out_at = 0.0
        self._moved = asyncio.Event()

    @asynccontextmanager
    async def joined(self, wanted: Wanted, transport: asyncio.WriteTransport) -> AsyncIterator[Client]:
        """A client that gets everything from `begin` on. Raises Problem 503, ServerUnavailable."""
        if self._count >= self._most:
            detail = f"{self._most} clients listen already, as many as may."
            raise Problem(503, "Service unavailable", detail, RETRY_AFTER)
        self._count += 1
        client = Client(transport)
        try:
            await self._start()
            self._feeds[wanted].clients.add(client)
            if self._closed:
                client.end()
            yield client
        finally:
            self._count -= 1
            self._leave(wanted, client)

    def begin(self, client: Client) -> list[bytes]:
        """Have a client get what is told from here on, wherever that is."""
        self._hand_out()
        client.forget()
        return list(self.position)

    async def catch_up(self, position: list[bytes]) -> None:
        """Wait until as much was handed out; others may have handed out more, but not by much."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP):
                while self._is_behind(position):
                    self._moved.clear()
                    await self._moved.wait()

    def _is_behind(self, position: list[bytes]) -> bool:
        pairs = zip(position, self.position, strict=True)
        return any(order(there) > order(here) for there, here in pairs)

    async def close(self) -> None:
        """Have all clients end."""
        self._closed = True
        for feed in self._feeds.values():
            for client in tuple(feed.clients):
                client.end()
        self._running = None
        if tails := dict(self._tails):
            await asyncio.gather(*(tail.hurry() for tail in tails.values()))
            await asyncio.wait(tails, timeout=STOP_TIMEOUT)

    async def _start(self) -> None:
        async with self._starting:
            if self._running is None and not self._closed:
                tail = Tail(self._broker)
                await tail.begin()
                self.position = list(tail.position)
                self._running = asyncio.create_task(self._run(tail))
                self._tails[self._running] = tail
                self._running.add_done_callback(self._tails.pop)

    def _leave(self, wanted: Wanted, client: Client) -> None:
        if feed := self._feeds.get(wanted):
            feed.clients.discard(client)
            if not feed.clients:
                del self._feeds[wanted]

    def _goes_on(self) -> bool:
        """Asked by a tail's task: who is cancelled while it connects leaves a connection open. Who comes before it
        has ended has it go on, as each new one would take another connection."""
        return bool(self._count) and self._running is asyncio.current_task()

    async def _run(self, tail: Tail) -> None:
        try:
            while self._goes_on():
                found = await tail.read()
                if not self._goes_on():
                    break
                self._sort(found)
                pace = PACE + self._count * PACE_EACH
                if not tail.behind or time.monotonic() > self._handed_out_at + pace:
                    self._hand_out()
                if found and not tail.behind:
                    await asyncio.sleep(pace)
        except Exception:  # clients come back, and find it begun anew
            log.exception("events are no longer read")
            for client in self._clients():
                client.end()
        finally:
            if self._running is asyncio.current_task():
                self._running = None

    def _clients(self) -> list[Client]:
        return [client for feed in self._feeds.values() for client in feed.clients]

    def _sort(self, found: list[Told]) -> None:
        now = time.monotonic()
        self._moved.set()
        per_second = min(MOST_PER_SECOND, MOST_IN_ALL / max(1, self._count))
        for feed in self._feeds.values():
            feed.allow(now, per_second)
        for told in found:
            self.position[told.partition] = told.id
            if told.said is None:
                for feed in self._feeds.values():
                    feed.add(gap(cursor_of(self.position), "lost"))
            else:
                self._sort_one(told, told.said)

    def _hand_out(self) -> None:
        self.handed_out, self._handed_out_at = list(self.position), time.monotonic()
        cursor = cursor_of(self.handed_out)
        for feed in self._feeds.values():
            feed.hand_out(cursor)
        clients = self._clients()
        for client in clients:
            client.end_if_gone()
        self._wake(clients)

    def _wake(self, clients: list[Client]) -> None:
        for client in clients[:WOKEN_AT_ONCE]:
            client.wake()
        if rest := clients[WOKEN_AT_ONCE:]:
            asyncio.get_running_loop().call_later(WAKE_EVERY, self._wake, rest)

    def _sort_one(self, told: Told, content: bytes) -> None:
        everybody = self._feeds.get(EVERYTHING)
        takers = [everybody] if everybody and everybody.takes() else []
        choosy = len(self._feeds) > (everybody is not None)
        if not takers and not choosy:  # as nearly always where there are more than anybody can take in
            return
        said = read(content)
        queue = self.queues.get(said.stage, "")
        if choosy:
            wanting = map(self._feeds.get, _wanting(told, said, queue) - {EVERYTHING})
            takers += [feed for feed in wanting if feed and feed.takes()]
        if takers:
            content = block(event_of(told, said, queue), cursor_of(self.position))
            for feed in takers:
                feed.add(content)
