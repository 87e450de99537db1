"""The whole chat as `riacho up` runs it (API, worker, transcriber, embedded Valkey, SQLite), and customers.

A message is a signed webhook; the reply to it is out when its line goes into the outbox, by the time in that line
(to the millisecond), so that nobody has to look for it meanwhile. Each message is the first of a chat of its own,
with one of several shops. A voice note is fetched from a stand-in for WhatsApp's media store, in this process;
each has other bytes, as a note that is known is not transcribed again.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import aiohttp
import msgspec

from api.demo import Said, wait_until_ready
from api.processes import UP, ProcessTree
from api.stand_in import StandIn
from benchmarks.notes import voice_notes
from benchmarks.parts.messages import TEXT, post
from benchmarks.parts.openloop import Due, Latencies, Offer, Pace, offer
from benchmarks.parts.server import Server
from benchmarks.parts.settings import of_a_run
from benchmarks.parts.usage import cpu_of, cpu_of_all, peak_of
from config import Secret, replaced
from pipeline.embedded import EmbeddedServer
from stages.audio.model import CLIP
from stages.notification.outbox import Sent

SHARED = "Load generator, WhatsApp's stand-in, API, worker, transcriber (nice 10) and Valkey share the cores."
SHOPS = 20
FIRST = {"text": "process-conversation", "audio": "transcribe"}  # stages
BURST_RATE = 200.0  # messages a second
READ_EVERY = 0.1  # seconds
LATEST = 180.0  # seconds after which a reply will not come
KEPT_UP = 0.05  # of what comes may be left over
FEW = 2  # messages that are always under way

Kind = Literal["text", "audio"]


class Asked(NamedTuple):
    """A message, and when it was due, in seconds since the epoch."""

    kind: Kind
    due: float
    counts: bool = True  # it is none of the warm-up


class Reply(NamedTuple):
    """When the reply to a message was out."""

    to: Asked
    out: float


@dataclass(frozen=True)
class Spent:
    """So far, or in the time between two looks: CPU seconds of each process, of the server and of this one, and of
    all that runs here; what the server was sent, bytes that its keys and values take, and seconds that went by."""

    cpu: dict[str, float]
    all_cpu: float
    commands: float
    dataset: float
    seconds: float

    def since(self, before: "Spent") -> "Spent":
        return Spent(
            {name: cpu - before.cpu[name] for name, cpu in self.cpu.items()},
            self.all_cpu - before.all_cpu,
            self.commands - before.commands,
            self.dataset - before.dataset,
            self.seconds - before.seconds,
        )

    @property
    def others_cores(self) -> float:
        """That somebody else on the machine kept busy."""
        return max(0.0, self.all_cpu - sum(self.cpu.values())) / self.seconds


@dataclass(frozen=True)
class Talk:
    """What came of messages sent at a pace."""

    webhooks: Offer
    replies: Sequence[Reply]
    spent: Spent

    def latencies(self, kind: Kind) -> Latencies:
        """From a message's being due to its reply's being out."""
        found = Latencies()
        for reply in self.replies:
            if reply.to.kind == kind and reply.to.counts:
                found.record(reply.out - reply.to.due)
        return found

    @property
    def ended(self) -> float:
        """When the last message was due."""
        return max(reply.to.due for reply in self.replies)

    @property
    def per_second(self) -> float:
        """Replies that went out while messages came, warm-up included."""
        began = min(reply.to.due for reply in self.replies)
        return sum(reply.out <= self.ended for reply in self.replies) / (self.ended - began)

    @property
    def backlog(self) -> int:
        """Messages without a reply when the last was due."""
        return waiting(self.replies, self.ended)

    @property
    def kept_up(self) -> bool:
        """Of either kind about as many were waiting at the end as halfway."""
        kinds: tuple[Kind, ...] = ("text", "audio")
        return all(kept_up([reply for reply in self.replies if reply.to.kind == kind]) for kind in kinds)


@dataclass(frozen=True)
class Burst:
    """What came of messages that waited until all of them were there."""

    messages: int
    adding: Spent  # while they came
    working: Spent  # from when they were let go to the last reply


def waiting(replies: Iterable[Reply], at: float) -> int:
    """Of these messages, how many were due and had no reply at a time."""
    return sum(reply.to.due <= at < reply.out for reply in replies)


def kept_up(replies: Sequence[Reply]) -> bool:
    """Whether what waited grew by less than a twentieth of what became due in the second half."""
    if not replies:
        return True
    due = sorted(reply.to.due for reply in replies)
    halfway, end = due[len(due) // 2], due[-1]
    grown = waiting(replies, end) - waiting(replies, halfway)
    return grown <= KEPT_UP * (len(due) - len(due) // 2) + FEW


class Chat:
    """The processes, and customers who send messages to them."""

    def __init__(
        self, http: aiohttp.ClientSession, server: Server, processes: dict[str, int], folder: Path
    ) -> None:
        self.server = server
        self.processes = processes
        self.audio_seconds = 0.0  # of the notes sent so far
        self._http = http
        self._folder = folder
        self._notes = itertools.cycle(note for note in voice_notes("pt") if note.seconds <= CLIP)
        self._customers = itertools.count()
        self._asked: dict[str, Asked] = {}
        self._read = 0  # bytes of the outbox

    async def talk(self, pace: Pace, audio: float = 0.0) -> Talk:
        """Messages sent when they are due, `audio` of them (0 to 1) voice notes, until all have replies. Raises
        TimeoutError where one gets none."""
        before, epoch = self.spent(), time.time() - time.perf_counter()

        async def send(due: Due) -> None:
            kind: Kind = "audio" if is_audio(due.number, audio) else "text"
            await self._send(Asked(kind, due.at + epoch, due.number >= pace.warming))

        webhooks = await offer(pace, send)
        replies = await self._replies()
        return Talk(webhooks, replies, self.spent().since(before))

    async def burst(self, messages: int, kind: Kind) -> Burst:
        """So many messages of a kind, held up until all of them are there, then worked as fast as can be."""
        await self._steer("pause", FIRST[kind])
        before = self.spent()
        await offer(Pace(BURST_RATE, messages / BURST_RATE), lambda _: self._send(Asked(kind, time.time())))
        full = self.spent()
        await self._steer("resume", FIRST[kind])
        await self._replies()
        return Burst(messages, full.since(before), self.spent().since(full))

    async def rest(self, seconds: float) -> Spent:
        """What it takes when nothing happens."""
        before = self.spent()
        await asyncio.sleep(seconds)
        return self.spent().since(before)

    def spent(self) -> Spent:
        """So far."""
        usage = self.server.usage([])
        cpu = {name: cpu_of(process) for name, process in self.processes.items()}
        cpu |= {"generator": time.process_time(), "server": usage.server_cpu}
        return Spent(cpu, cpu_of_all(), usage.commands, self.server.dataset(), time.perf_counter())

    def peaks(self) -> dict[str, int]:
        """The most memory that each process had, in bytes."""
        return {name: peak_of(process) for name, process in self.processes.items()}

    async def _send(self, asked: Asked) -> None:
        number = next(self._customers)
        customer, shop = f"55119{number:08}", f"1065403522{number % SHOPS:04}"
        self._asked[customer] = asked
        said = Said(customer, TEXT, number=shop)
        await post(self._http, said._replace(voice=self._note(number)) if asked.kind == "audio" else said)

    def _note(self, number: int) -> str:
        """A file for the stand-in; the bytes behind its end are no decoder's business."""
        note, name = next(self._notes), f"note-{number}.ogg"
        (self._folder / "notes" / name).write_bytes(note.audio + number.to_bytes(8, "big"))
        self.audio_seconds += note.seconds
        return name

    async def _replies(self) -> list[Reply]:
        """To all that were sent."""
        found: list[Reply] = []
        end = time.monotonic() + LATEST
        while self._asked:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"{len(self._asked)} messages have no reply, {LATEST:g} s after the last was sent"
                )
            await asyncio.sleep(READ_EVERY)
            found += [Reply(self._asked.pop(sent.to), sent.sent_ms / 1000) for sent in self._new()]
        return found

    def _new(self) -> list[Sent]:
        """Whole lines that came into the outbox since the last look."""
        outbox = self._folder / "outbox.jsonl"
        if not outbox.exists():
            return []
        with outbox.open("rb") as file:
            file.seek(self._read)
            lines, _, _ = file.read().rpartition(b"\n")
        self._read += len(lines) + 1 if lines else 0
        return [msgspec.json.decode(line, type=Sent) for line in lines.splitlines()]

    async def _steer(self, verb: str, stage: str) -> None:
        async with self._http.post(f"/queue/{verb}/{stage}") as answer:
            answer.raise_for_status()


def is_audio(number: int, share: float) -> bool:
    """Evenly among the others."""
    return int((number + 1) * share) > int(number * share)


@asynccontextmanager
async def running() -> AsyncIterator[Chat]:
    """A chat that has answered a message of either kind."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "notes").mkdir()
        server = Server(stack.enter_context(EmbeddedServer(folder / "server")).url)
        media = await stack.enter_async_context(StandIn(folder / "notes").running())
        settings = replaced(
            of_a_run(folder, server.url), whatsapp={"access_token": Secret("none"), "graph_url": media}
        )
        tree = await stack.enter_async_context(ProcessTree(settings))
        address = f"http://{settings.http.host}:{settings.http.port}"
        http = await stack.enter_async_context(aiohttp.ClientSession(address))
        await wait_until_ready(http)
        chat = Chat(http, server, dict(zip(UP, tree.pids, strict=True)), folder)
        await chat.talk(Pace(2, 1), audio=0.5)
        yield chat
