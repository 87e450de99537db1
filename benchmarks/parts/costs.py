"""What messages cost the chat, for the model of `benchmarks.capacity`.

Messages of a kind come while its first stage is paused: that is what the API takes. Then they are worked as fast
as can be: that is what workers take when they are busy, as what waits shares calls.
"""

import os

from benchmarks.capacity import Costs
from benchmarks.parts.chat import Burst, Chat, Spent

RESTING = 2.0  # seconds
TEXTS = 1_000


async def costs_of(chat: Chat, notes: int) -> Costs:
    """By texts, and so many voice notes; what is taken when nothing happens is left out."""
    empty, idle = float(chat.server.used()), await chat.rest(RESTING)
    texts = await chat.burst(TEXTS, "text")
    remembered = (texts.adding.dataset + texts.working.dataset) / TEXTS
    known = chat.server.mean_size("*:dedup:*")
    heard = chat.audio_seconds
    noted = await chat.burst(notes, "audio")
    heard = chat.audio_seconds - heard
    text, note = _cpu(texts, idle), _cpu(noted, idle)
    return Costs(
        api_cpu_ms=text["api"] * 1000,
        worker_cpu_ms=text["worker"] * 1000,
        server_cpu_ms=text["server"] * 1000,
        audio_server_cpu_ms=note["server"] * 1000,
        transcriber_cpu_ms=note["transcriber"] * notes / heard * 1000,
        generator_cpu_ms=text["generator"] * 1000,
        transcribed_audio_seconds_per_second=heard / noted.working.seconds,
        cores=os.cpu_count() or 1,
        note_seconds=heard / notes,
        waiting_bytes=texts.adding.dataset / TEXTS,
        known_bytes=known,
        text_bytes=remembered,
        audio_bytes=remembered + chat.server.mean_size("*:job:transcribe:*"),
        empty_bytes=empty,
    )


def _cpu(burst: Burst, idle: Spent) -> dict[str, float]:
    """Seconds for a message, without what rest would have taken."""
    share = (burst.adding.seconds + burst.working.seconds) / idle.seconds
    return {
        name: max(0.0, burst.adding.cpu[name] + burst.working.cpu[name] - idle.cpu[name] * share) / burst.messages
        for name in idle.cpu
    }
