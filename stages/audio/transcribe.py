"""The stage `audio.transcribe`."""

from collections.abc import Mapping

from pipeline import Context, Done
from stages.jobs import ProcessConversation, Transcribe
from stages.ports import AudioSource, Transcriber


class TranscribeHandler:
    """Source → bytes → words; where the note belongs to a chat, on to its conversation.

    `vocabulary` has, by tenant, the names and products of a shop, as a hint for the model.
    """

    def __init__(self, source: AudioSource, transcriber: Transcriber, vocabulary: Mapping[str, str]) -> None:
        self._source = source
        self._transcriber = transcriber
        self._vocabulary = vocabulary

    async def __call__(self, ctx: Context, job: Transcribe) -> Done:
        await ctx.progress(0, "downloading")
        audio = await self._source.fetch(job.source, ctx.tenant)
        vocabulary = self._vocabulary.get(ctx.tenant, "")
        transcript = await self._transcriber.transcribe(
            audio, job.language, vocabulary=vocabulary, report=ctx.progress
        )
        if job.message is None or not transcript.text:
            return Done(transcript)
        spoken = ProcessConversation(message=job.message, text=transcript.text, voice=True)
        return Done(transcript, forward=(ctx.forward("process-conversation", spoken),))
