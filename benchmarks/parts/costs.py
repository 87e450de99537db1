"""What messages cost the chat, for the model of `benchmarks.capacity`."""

import os

from benchmarks.capacity import Costs
from benchmarks.parts.chat import Chat, Spent
from benchmarks.parts.openloop import Pace

RESTING = 2.0  # seconds
WARM_UP = 1.0  # seconds
TEXTS = 500  # in a burst: of them are the bytes


async def costs_of(chat: Chat, rate: float, seconds: float, notes: int) -> Costs:
    """By texts at a rate, texts that had to wait, and as many notes at once; what is taken when nothing happens is
    no message's."""
    empty = float(chat.server.used())
    idle = await chat.rest(RESTING)
    talk = await chat.talk(Pace(rate, seconds, WARM_UP))
    text, texts = _less(talk.spent, idle), len(talk.replies)
    waited = await chat.burst(TEXTS, "text")
    remembered = (waited.adding.dataset + waited.spent.dataset) / waited.messages
    known = chat.server.mean_size("*:dedup:*")
    heard = chat.audio_seconds
    noted = await chat.burst(notes, "audio")
    heard = chat.audio_seconds - heard
    note = _less(noted.spent, idle)
    return Costs(
        api_cpu_ms=text["api"] / texts * 1000,
        worker_cpu_ms=text["worker"] / texts * 1000,
        server_cpu_ms=text["server"] / texts * 1000,
        audio_server_cpu_ms=(note["server"] + noted.adding.cpu["server"]) / notes * 1000,
        transcriber_cpu_ms=note["transcriber"] / heard * 1000,
        generator_cpu_ms=text["generator"] / texts * 1000,
        transcribed_audio_seconds_per_second=heard / noted.spent.seconds,
        cores=os.cpu_count() or 1,
        note_seconds=heard / notes,
        waiting_bytes=waited.adding.dataset / waited.messages,
        known_bytes=known,
        text_bytes=remembered,
        audio_bytes=remembered + chat.server.mean_size("*:job:transcribe:*"),
        empty_bytes=empty,
    )


def _less(spent: Spent, idle: Spent) -> dict[str, float]:
    """CPU seconds without what rest would have taken."""
    share = spent.seconds / idle.seconds
    return {name: max(0.0, cpu - idle.cpu[name] * share) for name, cpu in spent.cpu.items()}
