"""The outbox: whole lines whoever writes, each job once, and no harm from a line a crash cut short."""

import asyncio
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from stages.notification.outbox import Outbox, Sent
from stages.ports import Outgoing

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]

# Sends 40 messages of its own, and 40 that every sender is given again.
SENDER = """
import asyncio, sys
from pathlib import Path
from stages.notification.outbox import Outbox
from stages.ports import Outgoing

async def send(path, sender):
    outbox = Outbox(Path(path))
    message = Outgoing(tenant="shop", to="chat", text="é" * 4096)
    for n in range(40):
        for name, again in ((sender, False), ("shared", True)):
            await outbox.send(f"{name}-{n}", message, again=again)

asyncio.run(send(*sys.argv[1:]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "outbox.jsonl"


async def send(outbox: Outbox, job_id: str, *, text: str = "olá\n👋", again: bool = False) -> str:
    return await outbox.send(job_id, Outgoing(tenant="shop", to="chat", text=text), again=again)


def raw(path: Path) -> bytes:
    return path.read_bytes()


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def lines(path: Path) -> list[Sent]:
    return [msgspec.json.decode(line, type=Sent) for line in raw(path).splitlines()]


async def test_a_message_is_one_line_that_says_everything(path: Path) -> None:
    assert await send(Outbox(path), "send-client.0.1-0") == "outbox:send-client.0.1-0"
    (line,) = raw(path).splitlines()
    assert msgspec.json.decode(line).keys() == {"jobId", "tenant", "to", "text", "sentMs"}
    (sent,) = lines(path)
    assert (sent.job_id, sent.tenant, sent.to, sent.text) == ("send-client.0.1-0", "shop", "chat", "olá\n👋")
    assert sent.sent_ms > 1_700_000_000_000


async def test_a_spoken_message_says_where_its_voice_note_is(path: Path) -> None:
    message = Outgoing(tenant="shop", to="chat", text="olá", audio="/tts/a.ogg")
    await Outbox(path).send("1", message, again=False)
    (sent,) = lines(path)
    assert sent.audio == "/tts/a.ogg"


async def test_a_redelivered_job_is_written_once(path: Path) -> None:
    outbox = Outbox(path)
    await send(outbox, "1")
    assert await send(outbox, "1", again=True) == "outbox:1"
    await send(outbox, "2", again=True)  # it had not come to writing it
    assert [sent.job_id for sent in lines(path)] == ["1", "2"]


async def test_one_job_id_that_begins_another_is_not_it(path: Path) -> None:
    outbox = Outbox(path)
    await send(outbox, "1-10", text='"jobId":"1-1"')
    await send(outbox, "1-1", again=True)
    assert [sent.job_id for sent in lines(path)] == ["1-10", "1-1"]


async def test_threads_of_one_process_keep_whole_lines(path: Path) -> None:
    outbox = Outbox(path)
    await asyncio.gather(*(send(outbox, str(n), text="é" * 4096) for n in range(100)))
    assert {sent.job_id for sent in lines(path)} == {str(n) for n in range(100)}


async def test_processes_keep_whole_lines_and_write_each_job_once(path: Path) -> None:
    senders = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", SENDER, path, name, cwd=ROOT)
        for name in ("one", "two", "three")
    ]
    assert [await sender.wait() for sender in senders] == [0, 0, 0]
    expected = {f"{name}-{n}" for name in ("one", "two", "three", "shared") for n in range(40)}
    assert Counter(sent.job_id for sent in lines(path)) == Counter(expected)


@pytest.mark.parametrize("kept", [1, 0.5, 0.98])
async def test_a_line_after_a_torn_one_stays_readable(path: Path, kept: float) -> None:
    """Cut anywhere, also within a character of several bytes."""
    outbox = Outbox(path)
    await send(outbox, "whole")
    await send(outbox, "torn", text="é" * 100)
    first, second = raw(path).splitlines(keepends=True)
    cut = kept if isinstance(kept, int) else int(len(second) * kept)
    put(path, first + second[:cut])
    await send(outbox, "next")
    await send(outbox, "torn", text="again", again=True)
    readable = raw(path).splitlines()
    assert readable[1] == second[:cut]
    again = [msgspec.json.decode(line, type=Sent).job_id for line in (readable[0], *readable[2:])]
    assert again == ["whole", "next", "torn"]


async def test_a_line_that_lacks_only_its_end_counts(path: Path) -> None:
    outbox = Outbox(path)
    await send(outbox, "1")
    put(path, raw(path).rstrip(b"\n"))
    await send(outbox, "1", again=True)
    await send(outbox, "2")
    assert [sent.job_id for sent in lines(path)] == ["1", "2"]


@pytest.mark.parametrize("junk", [b"\xff\xfe\n", b'{"jobId": "\xc3"}\n', b"[]\n", b"\n", b"\0" * 50])
async def test_lines_that_are_none_of_ours_are_passed_over(path: Path, junk: bytes) -> None:
    put(path, junk)
    await send(Outbox(path), "1", again=True)
    assert msgspec.json.decode(raw(path).splitlines()[-1], type=Sent).job_id == "1"
