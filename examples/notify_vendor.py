"""Tell a vendor of a paid order, and see the message go out. Beside a running `riacho up`; without an access token
the message goes to the outbox in the data folder.

.venv/bin/python examples/notify_vendor.py PHONE
"""

import asyncio
import sys
from decimal import Decimal

from api.service import queue_service
from pipeline.views import FINISHED
from stages.jobs import OrderItem


async def main(phone: str) -> None:
    async with queue_service() as queue:
        job_id = await queue.queue_vendor_notification(
            order_id="1042",
            to=phone,
            client_phone="(11) 91234-5678",
            items=[OrderItem("Pizza grande", quantity=2, price=Decimal("81.00"))],
            total=Decimal("162.00"),
            dedup="order-1042-paid",  # run again, it is the same job, and the vendor is told once
        )
        while (job := await queue.get_job(job_id)).state not in FINISHED:
            await asyncio.sleep(0.2)
        print(f"{job_id} {job.state}: {job.result or job.reason}")


asyncio.run(main(sys.argv[1]))
