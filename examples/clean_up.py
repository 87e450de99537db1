"""Count what a cleanup of old conversations would delete, and delete nothing. Beside a running `riacho up`:

.venv/bin/python examples/clean_up.py DAYS
"""

import asyncio
import sys

from api.service import queue_service
from pipeline.views import FINISHED


async def main(days: float) -> None:
    async with queue_service() as queue:
        job_id = await queue.queue_cleanup("conversations", days=days, dry_run=True)
        while (job := await queue.get_job(job_id)).state not in FINISHED:
            await asyncio.sleep(0.2)
        print(f"{job_id} {job.state}: {job.result or job.reason}")


asyncio.run(main(float(sys.argv[1])))
