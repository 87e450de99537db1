"""The stage `sync.push-order`: what the shop is to know of what happened in the chat."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pipeline import Bury, Context, Permanent, Retry
from stages.jobs import PushOrder
from stages.sync.errors import RecordUnknown, ShopAway, ShopError
from stages.sync.pull import shop_of
from stages.sync.rest import PER_PAGE, WOOCOMMERCE, Shop, WordPress, read

ORDERS = f"{WOOCOMMERCE}/orders"

AT_ONCE = 4  # notes to one shop
PATIENCE = 2  # times as long as a call may take; what was written by then is found the next time
UNKNOWN = "pending"  # what WooCommerce makes of a status that it does not know

Asked = tuple[Context, PushOrder]


class _Note(msgspec.Struct):
    note: str = ""


class _Problem(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Order(msgspec.Struct):
    id: int
    status: str = ""
    error: _Problem | None = None


class _Updated(msgspec.Struct):
    update: list[_Order] = []


class PushHandler:
    """Writes notes, then the statuses of all orders of a shop in one call.

    WordPress knows no ids of ours: a note ends in its job's, which is looked for first, as the job may have been
    here before."""

    def __init__(self, shops: Mapping[str, Shop], wordpress: WordPress) -> None:
        self._shops, self._wordpress = shops, wordpress

    async def __call__(self, contexts: Sequence[Context], jobs: Sequence[PushOrder]) -> list[Any]:
        tenants: dict[str, list[Asked]] = {}
        for asked in zip(contexts, jobs, strict=True):
            tenants.setdefault(asked[0].tenant, []).append(asked)
        found = await asyncio.gather(*(self._push(tenant, asked) for tenant, asked in tenants.items()))
        outcomes = {id(ctx): outcome for of_tenant in found for ctx, outcome in of_tenant}
        return [outcomes[id(ctx)] for ctx in contexts]

    async def _push(self, tenant: str, asked: Sequence[Asked]) -> list[tuple[Context, Any]]:
        """What becomes of each job of one tenant."""
        try:
            # The jobs of all other shops of the batch wait for this one's.
            async with asyncio.timeout(PATIENCE * self._wordpress.timeout):
                return await self._pushed(shop_of(self._shops, tenant), asked)
        except (ShopAway, TimeoutError) as error:
            away = error if isinstance(error, ShopAway) else ShopAway(f"the shop of {tenant!r} is too slow")
            return [(ctx, Retry(away.pause(ctx.enqueued_ms), str(away), counts=False)) for ctx, _ in asked]
        except (ShopError, Permanent) as error:
            return [(ctx, Bury(str(error))) for ctx, _ in asked]

    async def _pushed(self, shop: Shop, asked: Sequence[Asked]) -> list[tuple[Context, Any]]:
        noted = await self._notes(shop, asked)
        statuses = await self._statuses(shop, asked)  # as late as can be: somebody may pay meanwhile
        wanted = [job for (_, job), why in zip(asked, noted, strict=True) if not why]
        changed = await self._change(shop, statuses, wanted)
        return [
            (ctx, why or _outcome(job, statuses, changed)) for (ctx, job), why in zip(asked, noted, strict=True)
        ]

    async def _notes(self, shop: Shop, asked: Sequence[Asked]) -> list[Bury | None]:
        """Of each, why its note cannot be written, if it cannot."""
        few = asyncio.Semaphore(AT_ONCE)

        async def note(ctx: Context, job: PushOrder) -> Bury | None:
            async with few:
                return await self._note(shop, ctx, job)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(note(ctx, job)) for ctx, job in asked]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _statuses(self, shop: Shop, asked: Sequence[Asked]) -> dict[int, str]:
        """Of the orders that there are."""
        ids = ",".join(str(number) for number in {job.id for _, job in asked})
        query = {"include": ids, "per_page": str(PER_PAGE), "_fields": "id,status", "status": "any"}
        page = await self._wordpress.page(shop, ORDERS, query)
        orders = (read(shop, raw, _Order) for raw in page.records)
        return {order.id: order.status for order in orders}

    async def _note(self, shop: Shop, ctx: Context, job: PushOrder) -> Bury | None:
        """Why it cannot be written, if it cannot."""
        path, mark = f"{ORDERS}/{job.id}/notes", f"[{ctx.job_id}]"
        try:
            if job.note and mark not in "".join(each.note for each in await self._written(shop, path)):
                await self._wordpress.post(
                    shop, path, {"note": f"{job.note} {mark}", "customer_note": False}, _Note
                )
        except ShopAway:
            raise
        except RecordUnknown:
            return Bury(f"the shop has no order {job.id}")
        except ShopError as error:
            return Bury(str(error))
        return None

    async def _written(self, shop: Shop, path: str) -> list[_Note]:
        return await self._wordpress.get(shop, path, {"_fields": "note"}, list[_Note])

    async def _change(self, shop: Shop, now: Mapping[int, str], jobs: Sequence[PushOrder]) -> dict[int, _Order]:
        wanted = {job.id: job.status for job in jobs if _is_to_change(job, now)}
        if not wanted:
            return {}
        updates = [{"id": number, "status": status} for number, status in wanted.items()]
        done = await self._wordpress.post(shop, f"{ORDERS}/batch", {"update": updates}, _Updated)
        return {order.id: order for order in done.update}


def _is_to_change(job: PushOrder, now: Mapping[int, str]) -> bool:
    status = now.get(job.id, job.status)
    return bool(job.status) and status != job.status and (not job.only or status in job.only)


def _outcome(job: PushOrder, now: Mapping[int, str], changed: Mapping[int, _Order]) -> Any:
    if job.id not in now:
        return Bury(f"the shop has no order {job.id}")
    order = changed.get(job.id)
    if order and order.error:
        return Bury(f"the shop left order {job.id} as it is: {order.error.code}: {order.error.message}"[:500])
    if order and order.status == UNKNOWN != job.status:
        return Bury(f"the shop made order {job.id} {UNKNOWN!r}: it seems to have no status {job.status!r}")
    return {"status": order.status if order else now[job.id]}
