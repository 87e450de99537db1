"""Queue the transcription of a voice note, and look at the job until it has ended. Beside a running `riacho up`:

.venv/bin/python examples/transcribe.py NOTE     (a web address, or a file below RIACHO_AUDIO_ROOTS)
"""

import asyncio
import sys

from api.service import queue_service
from pipeline.views import FINISHED


async def main(source: str) -> None:
    async with queue_service() as queue:
        job_id = await queue.queue_audio_transcription(source=source, language="pt")
        while (job := await queue.get_job(job_id)).state not in FINISHED:
            await asyncio.sleep(0.2)
        print(job.result["text"] if job.state == "completed" else job.reason)


asyncio.run(main(sys.argv[1]))
