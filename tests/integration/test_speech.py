"""Spoken replies: what is kept and where, what a program may do wrong, and how that ends."""

import asyncio
import os
import shutil
import sys
import wave
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import msgspec
import numpy as np
import pytest
import uvloop
from moto.server import ThreadedMotoServer

from api.adapters import Adapters
from config.settings import load
from pipeline import Permanent, Stage
from stages.audio.decode import RATE, decode
from stages.jobs import Incoming, ProcessConversation
from stages.notification.outbox import Sent
from stages.speech import program as speech_program
from stages.speech.cache import SIZE_LIMIT, TEXT_LIMIT, CachedSynthesizer
from stages.speech.program import SpeechProgram, SpeechUnavailable
from tests.support import context_of, reached

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SECONDS = 1.51  # no whole number of Opus's frames of 20 ms

Loop = Callable[[], asyncio.AbstractEventLoop]
# The one that we run on, and the one that most tests do: they start and end programs each in their own way.
LOOPS = [uvloop.new_event_loop, asyncio.new_event_loop]

# Speaks three texts; each process is given the same.
SPEAKER = """
import asyncio, sys
from stages.speech.cache import CachedSynthesizer
from stages.speech.program import SpeechProgram

async def speak(cache, endpoint):
    async with CachedSynthesizer(SpeechProgram("espeak-ng", "pt-br"), cache, endpoint=endpoint) as synthesizer:
        for text in ("um", "dois", "três"):
            print(await synthesizer.speak(text))

asyncio.run(speak(*sys.argv[1:]))
"""


class Program:
    """A program in espeak-ng's place, first on the PATH: a shell script that notes its runs and what it hears."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "espeak-ng"
        with wave.open(str(folder / "speech.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(22_050)
            tone = np.sin(np.arange(int(SECONDS * 22_050)) * 0.06) * 8_000
            file.writeframes(tone.astype(np.int16).tobytes())

    def does(self, commands: str) -> None:
        """From the next run on."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(f'#!/bin/sh\ncd {self.folder}\necho "$@" >> runs\n{commands}\n')
        fresh.chmod(0o700)
        fresh.replace(self.path)  # one that is being written cannot be run

    def speaks(self) -> None:
        self.does("cat >> heard; echo >> heard; cat speech.wav")

    def lines(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []

    def runs(self) -> int:
        """Not counting that at the start."""
        return len(self.lines("runs")) - 1


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    program = Program(folder)
    program.speaks()
    return program


class Cache(NamedTuple):
    """Where speech is kept, and how a test looks at it."""

    place: str
    endpoint: str
    read: Callable[[str], bytes]
    write: Callable[[str, bytes], object]
    keys: Callable[[], list[str]]
    modified: Callable[[str], object]


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def in_folder(folder: Path) -> Cache:
    def keys() -> list[str]:
        return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]

    return Cache(
        place=str(folder),
        endpoint="",
        read=lambda address: Path(address).read_bytes(),
        write=lambda address, content: Path(address).write_bytes(content),
        keys=keys,
        modified=lambda address: Path(address).stat().st_mtime_ns,
    )


def in_bucket(endpoint: str, bucket: str) -> Cache:
    s3: Any = boto3.client("s3", endpoint_url=endpoint)
    s3.create_bucket(Bucket=bucket)
    place = f"s3://{bucket}/spoken replies/tts"

    def at(address: str) -> dict[str, str]:
        return {"Bucket": bucket, "Key": address.removeprefix(f"s3://{bucket}/")}

    def keys() -> list[str]:
        listed = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        return [one["Key"].removeprefix("spoken replies/tts/") for one in listed]

    return Cache(
        place=place,
        endpoint=endpoint,
        read=lambda address: bytes(s3.get_object(**at(address))["Body"].read()),
        write=lambda address, content: s3.put_object(Body=content, **at(address)),
        keys=keys,
        modified=lambda address: s3.head_object(**at(address))["LastModified"],
    )


@pytest.fixture(params=["folder", "s3"])
def cache(
    request: pytest.FixtureRequest, tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> Cache:
    if request.param == "folder":
        return in_folder(tmp_path / "spoken replies" / "tts")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return in_bucket(request.getfixturevalue("s3_endpoint"), namespace)


@pytest.fixture
def folder(tmp_path: Path) -> Cache:
    return in_folder(tmp_path / "tts")


@asynccontextmanager
async def speaking(cache: Cache, voice: str = "pt-br", **options: Any) -> AsyncIterator[CachedSynthesizer]:
    program = SpeechProgram("espeak-ng", voice)
    async with CachedSynthesizer(program, cache.place, endpoint=cache.endpoint, **options) as synthesizer:
        yield synthesizer


async def test_a_text_becomes_a_voice_note_below_the_cache(program: Program, cache: Cache) -> None:
    async with speaking(cache) as synthesizer:
        address = await synthesizer.speak("Olá, *João*! 👋\nhttps://loja.com")
    (key,) = cache.keys()
    assert address == f"{cache.place}/{key}"
    assert [len(part) for part in key.split("/")] == [2, 2, 68]
    note = cache.read(address)
    assert (note[:4], note[28:36], note[37]) == (b"OggS", b"OpusHead", 1)
    assert int.from_bytes(note[40:44], "little") == RATE
    samples = decode(note, 60)
    assert len(samples) / RATE == pytest.approx(SECONDS, abs=0.002)
    assert np.abs(samples).max() == pytest.approx(8_000 / 32_768, rel=0.2)
    assert program.lines("heard")[1] == "Olá, João !"
    assert "João" not in program.lines("runs")[1]


async def test_what_was_spoken_once_is_not_spoken_again(program: Program, cache: Cache) -> None:
    async with speaking(cache) as synthesizer:
        address = await synthesizer.speak("Olá!")
        made = cache.modified(address)
        assert await synthesizer.speak("*Olá!*") == address
        assert program.runs() == 1
    async with speaking(cache) as another:
        assert await another.speak("Olá!") == address
    assert len(program.lines("heard")) == 3  # twice at the start
    assert cache.modified(address) == made


async def test_another_text_and_another_voice_are_other_notes(program: Program, cache: Cache) -> None:
    async with speaking(cache) as one, speaking(cache, "pt") as other:
        addresses = [await one.speak("Oi"), await one.speak("Olá"), await other.speak("Oi")]
    assert len(set(addresses)) == len(cache.keys()) == 3


async def test_a_text_asked_for_by_many_at_once_is_spoken_once(program: Program, cache: Cache) -> None:
    async with speaking(cache) as synthesizer:
        addresses = await asyncio.gather(*(synthesizer.speak("Olá!") for _ in range(20)))
    assert len(set(addresses)) == program.runs() == 1


async def test_who_stops_waiting_takes_nothing_from_the_others(program: Program, folder: Cache) -> None:
    async with speaking(folder) as synthesizer:
        program.does("until [ -e go ]; do sleep 0.01; done; cat speech.wav")
        first, second = (asyncio.create_task(synthesizer.speak("Olá!")) for _ in range(2))
        await reached(program.runs)
        first.cancel()
        await asyncio.wait([first])
        (program.folder / "go").touch()
        folder.read(await second)
    assert first.cancelled()
    assert program.runs() == 1


async def test_processes_that_make_the_same_note_both_have_it_whole(program: Program, cache: Cache) -> None:
    arguments = (sys.executable, "-c", SPEAKER, cache.place, cache.endpoint)
    speakers = [
        await asyncio.create_subprocess_exec(*arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        for _ in range(2)
    ]
    said = {(await speaker.communicate())[0] for speaker in speakers}
    addresses = said.pop().decode().splitlines()
    assert not said
    assert len(addresses) == len(cache.keys()) == 3
    assert all(len(decode(cache.read(address), 60)) > RATE for address in addresses)


async def test_an_empty_note_is_made_again(program: Program, cache: Cache) -> None:
    async with speaking(cache) as synthesizer:
        address = await synthesizer.speak("Olá!")
        cache.write(address, b"")
        await synthesizer.speak("Olá!")
    assert cache.read(address)


async def test_a_note_is_read_by_its_address(program: Program, cache: Cache) -> None:
    async with speaking(cache) as synthesizer:
        address = await synthesizer.speak("Olá!")
        assert await synthesizer.read(address) == cache.read(address)
        cache.write(address, b"x" * (SIZE_LIMIT + 1))
        with pytest.raises(SpeechUnavailable, match="has 16,777,217 bytes"):
            await synthesizer.read(address)
        with pytest.raises(SpeechUnavailable, match=r"there is no voice note .*/ab/cd/a+\.ogg any more"):
            await synthesizer.read(f"{cache.place}/ab/cd/{'a' * 64}.ogg")


ELSEWHERE = [
    "{place}",
    "{place}/",
    "{place}/secret.ogg",
    "{place}/../secret.ogg",
    "{place}/ab/../../secret.ogg",
    "{place}/ab/cd/../../../secret.ogg",
    "{place}/%2e%2e/secret.ogg",
    "{place}//{key}",
    "{place}/./{key}",
    "{place}/{key}/../{key}",
    "{place}/{key}\n",
    "{place}/{key}\0",
    "{place}er/{key}",
    "{key}",
    "/{key}",
    "file://{place}/{key}",
    "s3://another-bucket/spoken replies/tts/{key}",
    "/etc/passwd",
    "https://example.com/{key}",
    "",
]


async def test_nothing_but_notes_below_the_cache_is_read(program: Program, cache: Cache) -> None:
    async with speaking(cache) as synthesizer:
        key = (await synthesizer.speak("Olá!")).removeprefix(f"{cache.place}/")
        if not cache.endpoint:
            around = Path(cache.place).parent
            for secret in ("tts/secret.ogg", "secret.ogg", f"ttser/{key}"):
                (around / secret).parent.mkdir(parents=True, exist_ok=True)
                (around / secret).write_bytes(b"secret")
        for address in ELSEWHERE:
            with pytest.raises(SpeechUnavailable, match="is no voice note in"):
                await synthesizer.read(address.format(place=cache.place, key=key))


async def test_reading_takes_a_bounded_time(
    program: Program, folder: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    async with speaking(folder, timeout=0.3) as synthesizer:
        address = await synthesizer.speak("Olá!")
        monkeypatch.setattr("obstore.get_async", hang)
        with pytest.raises(SpeechUnavailable, match=r"took longer than 0.3 s"):
            await synthesizer.read(address)


@pytest.mark.parametrize("text", ["", "👍 https://loja.com", "a" * (TEXT_LIMIT + 1)])
async def test_what_cannot_be_spoken_starts_no_program(program: Program, folder: Cache, text: str) -> None:
    async with speaking(folder) as synthesizer:
        with pytest.raises(SpeechUnavailable, match="characters of this text could be spoken, not 1 to 1,000"):
            await synthesizer.speak(text)
    assert program.runs() == 0


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("commands", "error"),
    [
        ("echo no such voice >&2; exit 3", "espeak-ng ended with 3: no such voice"),
        ("kill -SEGV $$", "espeak-ng ended with -11: it does not say why"),
        ("echo this is no sound", "no audio we can read"),
        ("head -c 5000 speech.wav | tail -c 4000", "no audio we can read"),
        ("exit 0", "no audio we can read"),
        ("exec <&-; exit 0", "no audio we can read"),
        ("cat /dev/zero", "espeak-ng wrote over 80,000 bytes"),
        ("cat /dev/zero >&2", "espeak-ng wrote over 80,000 bytes"),
    ],
)
def test_a_program_that_fails_leaves_nothing_and_is_tried_again(
    program: Program, folder: Cache, monkeypatch: pytest.MonkeyPatch, loop: Loop, commands: str, error: str
) -> None:
    async def test() -> None:
        async with speaking(folder) as synthesizer:
            with monkeypatch.context() as patch:
                patch.setattr(speech_program, "AUDIO_LIMIT", 80_000)
                patch.setattr(speech_program, "LOG_LIMIT", 80_000)
                program.does(commands)
                with pytest.raises((SpeechUnavailable, Permanent), match=error):
                    await synthesizer.speak("Olá!")
            assert folder.keys() == []
            program.speaks()
            assert folder.read(await synthesizer.speak("Olá!"))

    on(loop, test())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_program_that_hangs_is_killed_with_all_it_started(program: Program, folder: Cache, loop: Loop) -> None:
    async def test() -> None:
        async with speaking(folder, timeout=0.3) as synthesizer:
            program.does("echo $$ > pids; sleep 60 & echo $! >> pids; wait")
            with pytest.raises(SpeechUnavailable, match=r"speaking took longer than 0.3 s"):
                await asyncio.wait_for(synthesizer.speak("Olá!"), 10)
        pids = program.lines("pids")
        assert len(pids) == 2
        await reached(lambda: not any(map(lives, pids)), what="the end of the program and its child")

    on(loop, test())


def on(loop: Loop, test: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(test)


def lives(pid: str) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_whoever_closes_kills_what_still_speaks(program: Program, folder: Cache) -> None:
    async with speaking(folder) as synthesizer:
        program.does("echo $$ > pids; exec sleep 60")
        speech = asyncio.create_task(synthesizer.speak("Olá!"))
        await reached(lambda: program.lines("pids"))
    await asyncio.wait([speech])
    assert speech.cancelled()
    assert not lives(*program.lines("pids"))


@pytest.mark.parametrize("name", ["espeak-ng", "piper"])
async def test_a_program_that_is_not_installed_is_named_at_the_start(
    folder: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpeechUnavailable, match=rf"RIACHO_SPEECH_ENGINE={name} .*No such file.*install {name}"):
        await CachedSynthesizer(SpeechProgram(name, "voice"), folder.place).__aenter__()


async def test_a_program_that_does_not_speak_is_named_at_the_start(program: Program, folder: Cache) -> None:
    program.does("echo The specified voice does not exist >&2; exit 1")
    with pytest.raises(SpeechUnavailable, match=r"voice does not exist.*have RIACHO_SPEECH_VOICE name one"):
        await CachedSynthesizer(SpeechProgram("espeak-ng", "nope"), folder.place).__aenter__()


async def test_a_folder_that_cannot_be_made_is_named_at_the_start(program: Program, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpeechUnavailable, match=r"cannot keep speech in .*/file/tts .*speech\.cache"):
        await CachedSynthesizer(SpeechProgram("espeak-ng", "pt-br"), str(tmp_path / "file" / "tts")).__aenter__()


async def test_an_object_store_that_is_away_is_named(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    cache = CachedSynthesizer(SpeechProgram("espeak-ng", "pt-br"), "s3://bucket", endpoint="http://127.0.0.1:1")
    async with cache as synthesizer:
        with pytest.raises(SpeechUnavailable, match=r"cannot keep speech in s3://bucket .*s3\.endpoint"):
            await synthesizer.speak("Olá!")
    assert program.runs() == 0


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed (apt-get install espeak-ng)")
async def test_espeak_ng_speaks_portuguese(folder: Cache) -> None:
    async with speaking(folder) as synthesizer:
        short = await synthesizer.speak("Olá!")
        long = await synthesizer.speak("Anotado! Posso confirmar o seu pedido? Diga também o endereço de entrega.")
    seconds = [len(decode(folder.read(address), 60)) / RATE for address in (short, long)]
    assert 0.4 < seconds[0] < 2
    assert 4 < seconds[1] < 8  # 0.87 and 5.6 measured
    assert 10_000 < len(folder.read(long)) < 30_000


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed (apt-get install espeak-ng)")
async def test_espeak_ng_has_no_such_voice(folder: Cache) -> None:
    with pytest.raises(SpeechUnavailable, match="voice does not exist"):
        async with speaking(folder, voice="nope"):
            pass


async def test_the_settings_have_voice_notes_answered_with_voice_notes(program: Program, tmp_path: Path) -> None:
    """All the way from the settings to what the sender is told."""
    settings = load({"speech": {"engine": "espeak-ng"}, "data": {"folder": str(tmp_path / "data")}}, environ={})
    adapters = Adapters(settings)
    stages = {stage.name: stage for stage in adapters.pipeline()}
    message = Incoming(chat="5511987654321", id="wamid.1", sent_ms=1)
    async with adapters.opened():
        done = await run(stages["process-conversation"], ProcessConversation(message, "Olá!", voice=True))
        (reply,) = done.forward
        await run(stages["send-client"], reply.payload)
    sent = msgspec.json.decode((tmp_path / "data" / "outbox.jsonl").read_bytes(), type=Sent)
    assert sent.audio
    assert Path(sent.audio).is_relative_to(tmp_path / "data" / "tts")
    assert decode(Path(sent.audio).read_bytes(), 60).size


async def run(stage: Stage, payload: object) -> Any:
    """What a stage's handler makes of a job."""
    return await stage.handler(context_of(stage.name, payload), payload)
