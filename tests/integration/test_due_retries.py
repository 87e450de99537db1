"""Retries are in time, however many others wait for theirs."""

import time

import pytest

from pipeline import Context, Job, Pipeline, Retry, fetcher
from tests.support import Connector, Number, add_all, add_one, jobs, stage, status, until, working

pytestmark = pytest.mark.integration

PARKED = 10_000


async def test_a_due_retry_starts_within_250_ms_though_ten_thousand_others_wait(
    connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher, "LONGEST_LOOK", 60.0)  # nobody looks by chance
    failed: list[float] = []
    again: list[float] = []

    async def flaky(ctx: Context, payload: Number) -> Retry | None:
        if ctx.attempt == 1:
            failed.append(time.monotonic())
            return Retry(0.4)
        again.append(time.monotonic())
        return None

    one = stage("one", flaky)
    pipeline = Pipeline([one])
    connect = connector(pipeline)
    async with connect() as broker:
        await broker.ensure_groups()
        await add_all(broker, jobs("one", PARKED))
        while found := await broker.fetch("one", 0, "a", 500, 1):
            await broker.retry(one, 0, "a", [(delivery, Retry(3600)) for delivery in found])
        async with working(connect, pipeline, lease=600):
            await until(broker, await add_one(broker, Job(stage="one", payload=Number(0))), "completed")
        assert (await status(broker, "one")).retrying == PARKED
    ((before,), (after,)) = failed, again
    assert 0.4 <= after - before <= 0.4 + 0.25
