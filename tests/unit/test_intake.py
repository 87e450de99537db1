"""What is added while calls are under way goes together in the next; everybody gets their own answers."""

import asyncio
from collections.abc import Awaitable

import pytest

from pipeline.errors import ServerUnavailable
from pipeline.intake import MOST_ON_THE_WAY, WORTH_A_CALL, Intake, Offer
from pipeline.message import Added, JobId

pytestmark = pytest.mark.unit


class Server:
    """Answers a call when it is let, with each job's number as its id."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.answering = asyncio.Event()
        self.fails = False

    async def take(self, offers: list[Offer]) -> list[Added]:
        self.calls.append([body.decode() for _, body, *_ in offers])
        await self.answering.wait()
        if self.fails:
            raise ConnectionError("gone")
        return [Added(JobId("one", 0, body.decode())) for _, body, *_ in offers]


def offers(*numbers: int) -> list[Offer]:
    return [("one", str(number).encode(), "", "", 0) for number in numbers]


def ids(answers: list[Added]) -> list[str]:
    return [answer.id.entry for answer in answers if answer.id]


@pytest.fixture
async def server() -> Server:
    return Server()


Answers = asyncio.Future[list[Added]]


def add(intake: Intake, *numbers: int) -> Answers:
    caller: Answers = asyncio.get_running_loop().create_future()
    intake.add(offers(*numbers), caller)
    return caller


async def adding(intake: Intake, *groups: tuple[int, ...]) -> list[Answers]:
    """A caller for each group of jobs, one after the other, all of them waiting."""
    callers = []
    for group in groups:
        callers.append(add(intake, *group))
        for _ in range(2):  # the call is planned, and made
            await asyncio.sleep(0)
    return callers


async def test_what_comes_while_calls_are_under_way_goes_in_one(server: Server) -> None:
    callers = await adding(Intake(server.take, 500), (1,), (2, 3), (4,), (5, 6), (7,))
    assert server.calls == [["1"], ["2", "3"]][:MOST_ON_THE_WAY], "on an idle way nobody waits"
    server.answering.set()
    assert [ids(await caller) for caller in callers] == [["1"], ["2", "3"], ["4"], ["5", "6"], ["7"]]
    assert server.calls[2:] == [["4", "5", "6", "7"]]


async def test_a_bulk_goes_at_once_whatever_is_under_way(server: Server) -> None:
    callers = await adding(Intake(server.take, 500), (1,), (2,), tuple(range(WORTH_A_CALL)))
    assert [len(call) for call in server.calls] == [1, 1, WORTH_A_CALL]
    server.answering.set()
    await asyncio.gather(*callers)


async def test_a_call_has_a_bound(server: Server) -> None:
    callers = await adding(Intake(server.take, 3), (1,), (2,), (3, 4), (5, 6), (7,))
    server.answering.set()
    assert [ids(await caller) for caller in callers] == [["1"], ["2"], ["3", "4"], ["5", "6"], ["7"]]
    assert server.calls[2:] == [["3", "4"], ["5", "6", "7"]]


async def test_a_failing_call_fails_for_all_who_were_in_it_and_the_next_goes_on(server: Server) -> None:
    intake = Intake(server.take, 500)
    callers = await adding(intake, (1,), (2,), (3,), (4,))
    server.fails = True
    server.answering.set()
    assert [type(end) for end in await asyncio.gather(*callers, return_exceptions=True)] == [ConnectionError] * 4
    server.fails = False
    assert ids(await add(intake, 5)) == ["5"]


async def test_who_is_gone_before_the_call_gets_nothing_added(server: Server) -> None:
    first, second, gone, last = await adding(Intake(server.take, 500), (1,), (2,), (3,), (4,))
    gone.cancel()
    await asyncio.sleep(0)
    server.answering.set()
    assert [ids(await caller) for caller in (first, second, last)] == [["1"], ["2"], ["4"]]
    assert server.calls[2:] == [["4"]]


async def test_when_a_call_is_not_answered_in_time_nobody_behind_it_waits_as_long_again() -> None:
    calls = 0

    async def stand_still(offers: list[Offer]) -> list[Added]:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        raise ServerUnavailable("no answer in time") from TimeoutError()

    intake = Intake(stand_still, 3)
    callers = await adding(intake, *((n,) for n in range(100)))
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert {str(answer) for answer in answers} == {"no answer in time"}
    assert calls <= 2 * MOST_ON_THE_WAY, "those after the first may have been under way with it"


async def test_a_caller_that_fails_at_its_answer_takes_no_other_with_it(server: Server) -> None:
    told: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, about: told.append(about))

    class Failing(Answers):
        def set_result(self, answers: list[Added], /) -> None:
            raise RuntimeError("no room")

    intake = Intake(server.take, 500)
    intake.add(offers(1), Failing(loop=loop))
    other = add(intake, 2)
    server.answering.set()
    assert ids(await other) == ["2"]
    assert [type(about["exception"]) for about in told] == [RuntimeError]


async def test_a_call_that_cannot_be_made_fails_for_those_in_it_and_for_nobody_else(server: Server) -> None:
    def send(offered: list[Offer]) -> Awaitable[list[Added]]:
        if len(offered) == 2:
            raise ValueError("cannot be packed")
        return server.take(offered)

    intake = Intake(send, 500)
    server.answering.set()
    for _ in range(MOST_ON_THE_WAY + 1):
        callers = [add(intake, 1), add(intake, 2)]
        found = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(answer) for answer in found] == [ValueError, ValueError]
    assert ids(await add(intake, 3)) == ["3"]
