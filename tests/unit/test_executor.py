"""What each way a handler can end becomes."""

import asyncio
import time
from typing import Any, cast

import msgspec
import pytest

from pipeline import Broker, Bury, Context, Done, Job, Permanent, Pipeline, Retry, RetryLater, RetryPolicy
from pipeline.executor import PROBED, Executor, Slot
from pipeline.message import Delivery, seal, seal_probe, unseal
from pipeline.outcome import Ending, Settled
from pipeline.services.ticker import every
from pipeline.stage import Handler
from tests.support import Number, stage, unused

pytestmark = pytest.mark.unit


async def outcome(
    handler: Handler, *, attempt: int = 1, body: bytes | None = None, timeout: float = 5, **overrides: Any
) -> Ending:
    one = stage("one", handler, retry=RetryPolicy(), timeout=timeout)
    next_one = stage("next", unused)
    body = seal(Job(stage="one", payload=Number(7), tenant="shop", key="k", **overrides)) if body is None else body
    executor, stop = Executor(Broker("redis://unused", Pipeline([one, next_one])), "a"), asyncio.Event()
    slot = Slot(cast("asyncio.Task[Any]", asyncio.current_task()))

    async def look() -> int:
        return slot.check(time.monotonic())

    timing = asyncio.create_task(every(0.001, look, stop))
    try:
        return await executor.run(one, Delivery("one", 0, b"5-0", body, attempt), slot)
    finally:
        stop.set()
        await timing


def done(result: object) -> Settled:
    return Settled(msgspec.Raw(msgspec.msgpack.encode(result)))


async def test_a_plain_result_is_done() -> None:
    async def handle(ctx: Context, payload: Number) -> int:
        return payload.n + 1

    assert await outcome(handle) == done(8)


async def test_the_handler_is_told_about_its_job() -> None:
    async def handle(ctx: Context, payload: Number) -> list[object]:
        return [str(ctx.job_id), ctx.attempt, ctx.tenant, ctx.key, ctx.forward("next", 1).tenant]

    assert await outcome(handle, attempt=2) == done(["one.0.5-0", 2, "shop", "k", "shop"])


@pytest.mark.parametrize(("attempt", "after"), [(1, 2), (2, 4), (3, 8)])
async def test_an_error_is_tried_again_later_and_later(attempt: int, after: int) -> None:
    async def handle(ctx: Context, payload: Number) -> None:
        raise OSError("line is down")

    assert await outcome(handle, attempt=attempt) == Retry(after, "OSError: line is down")


async def test_the_last_try_is_buried_with_its_error() -> None:
    async def handle(ctx: Context, payload: Number) -> None:
        raise OSError("line is down")

    assert await outcome(handle, attempt=4) == Bury("gave up after 4 tries", "OSError: line is down")


async def test_a_permanent_error_is_buried_at_once() -> None:
    async def handle(ctx: Context, payload: Number) -> None:
        raise Permanent("no such number")

    assert await outcome(handle) == Bury("no such number")


async def test_a_handler_that_takes_too_long_is_stopped_and_tried_again() -> None:
    stopped = asyncio.Event()

    async def handle(ctx: Context, payload: Number) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    assert await outcome(handle, timeout=0.01) == Retry(2, "took longer than 0.01 s")
    assert stopped.is_set()


async def test_what_is_handed_on_is_sealed_with_tenant_and_key() -> None:
    async def handle(ctx: Context, payload: Number) -> Done:
        return Done(forward=(ctx.forward("next", Number(8)),))

    ending = await outcome(handle)
    assert isinstance(ending, Settled)
    ((name, envelope, _, _),) = ending.forwards
    assert (name, unseal(envelope).tenant, unseal(envelope).key) == ("next", "shop", "k")


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (object(), "TypeError: Encoding objects of type object is unsupported"),
        (2**70, "OverflowError"),
        (
            Done(forward=(Job(stage="nxet", payload=Number(1)),)),
            "UnknownStage: no stage 'nxet'",
        ),
        (
            Done(forward=(Job(stage="next", payload={"n": 1}),)),
            "BadPayload: payload of test.next",
        ),
    ],
)
async def test_what_cannot_be_written_is_buried_with_the_reason(returned: object, said: str) -> None:
    async def handle(ctx: Context, payload: Number) -> object:
        return returned

    found = await outcome(handle)
    assert isinstance(found, Bury)
    assert (found.reason, found.error[: len(said)]) == ("what its handler returned cannot be written", said)


async def test_a_result_over_the_limit_is_buried() -> None:
    async def handle(ctx: Context, payload: Number) -> str:
        return "x" * 1_048_577

    found = await outcome(handle)
    assert isinstance(found, Bury)
    assert "over the limit of 1,048,576" in found.reason


class Odd(BaseException):
    """Not even an Exception."""


class Unsayable(Permanent):
    def __str__(self) -> str:
        raise OSError("no words")


async def test_what_a_handler_says_is_written_whatever_it_is() -> None:
    async def half(ctx: Context, payload: Number) -> None:
        raise Permanent("half a \udcff pair")

    async def unsayable(ctx: Context, payload: Number) -> None:
        raise Unsayable

    async def long(ctx: Context, payload: Number) -> Bury:
        return Bury("x" * 10_000, "y" * 10_000)

    assert await outcome(half) == Bury("half a ? pair")
    assert await outcome(unsayable) == Bury("")
    assert await outcome(long) == Bury("x" * 500, "y" * 500)


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, TimeoutError, Odd])
async def test_a_handler_that_raises_what_is_not_meant_for_it_is_tried_again(error: type[BaseException]) -> None:
    async def handle(ctx: Context, payload: Number) -> None:
        raise error("mine")

    assert await outcome(handle) == Retry(2, f"{error.__name__}: mine")


async def test_a_cancelled_run_is_cancelled() -> None:
    started = asyncio.Event()

    async def handle(ctx: Context, payload: Number) -> None:
        started.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(outcome(handle))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize(("asked", "given"), [(60, 60), (-1, 0), (float("nan"), 2), (float("inf"), 2)])
async def test_a_handler_may_say_when_to_try_again(asked: float, given: float) -> None:
    async def handle(ctx: Context, payload: Number) -> Retry:
        return Retry(asked)

    assert await outcome(handle) == Retry(given)
    assert await outcome(handle, attempt=4) == Bury("gave up after 4 tries")


async def test_a_job_may_bring_its_own_retry_policy_and_time_out() -> None:
    async def fail(ctx: Context, payload: Number) -> None:
        raise OSError("down")

    async def wait(ctx: Context, payload: Number) -> None:
        await asyncio.Event().wait()

    twice = RetryPolicy(attempts=2, base=0.5)
    assert await outcome(fail, retry=twice) == Retry(0.5, "OSError: down")
    assert await outcome(fail, retry=twice, attempt=2) == Bury("gave up after 2 tries", "OSError: down")
    assert await outcome(fail, retry=twice, attempt=3) == Bury("poison: its worker was lost 2 times")
    assert await outcome(wait, timeout=0.01) == Retry(2, "took longer than 0.01 s")


async def test_a_rate_limit_uses_up_no_try_even_the_last() -> None:
    async def limited(ctx: Context, payload: Number) -> None:
        raise RetryLater(6, "one a minute")

    assert await outcome(limited, attempt=4) == Retry(6, "one a minute", counts=False)


async def test_a_time_out_leaves_no_trace_on_the_slot_for_its_next_entry() -> None:
    async def wait(ctx: Context, payload: Number) -> None:
        await asyncio.Event().wait()

    async def cancel_itself(ctx: Context, payload: Number) -> None:
        raise asyncio.CancelledError("mine")

    assert await outcome(wait, timeout=0.01) == Retry(2, "took longer than 0.01 s")
    assert await outcome(cancel_itself) == Retry(2, "CancelledError: mine")


async def test_an_entry_that_keeps_losing_its_worker_is_buried_unrun() -> None:
    async def handle(ctx: Context, payload: Number) -> None:
        raise AssertionError("must not run")

    assert await outcome(handle, attempt=5) == Bury("poison: its worker was lost 4 times")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"hello",
        msgspec.msgpack.encode({"n": 1}),
        seal(Job(stage="one", payload={"n": "many"})),
        b"\x91" * 100_000,
    ],
    ids=["empty", "no MessagePack", "text", "no envelope", "another payload", "too deep"],
)
async def test_what_cannot_be_read_is_buried_with_the_reason(body: bytes) -> None:
    async def handle(ctx: Context, payload: Number) -> None:
        raise AssertionError("must not run")

    found = await outcome(handle, body=body)
    assert isinstance(found, Bury)
    assert found.reason.startswith("cannot be read: ")


async def test_a_probe_ends_without_its_handler_however_often_it_was_delivered() -> None:
    assert await outcome(unused, body=seal_probe()) is PROBED
    assert await outcome(unused, body=seal_probe(), attempt=99) is PROBED
