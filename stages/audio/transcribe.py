"""The stage `audio.transcribe`."""

from pipeline import Context, Done
from stages.jobs import ProcessConversation, Transcribe
from stages.ports import AudioSource, Transcriber


class TranscribeHandler:
    """Source → bytes → words; where the note belongs to a chat, on to its conversation."""

    def __init__(self, source: AudioSource, transcriber: Transcriber) -> None:
        self._source = source
        self._transcriber = transcriber

    async def __call__(self, ctx: Context, job: Transcribe) -> Done:
        audio = await self._source.fetch(job.source)
        transcript = await self._transcriber.transcribe(audio, job.language)
        if job.message is None or not transcript.text:
            return Done(transcript)
        spoken = ProcessConversation(message=job.message, text=transcript.text, voice=True)
        return Done(transcript, forward=(ctx.forward("process-conversation", spoken),))
