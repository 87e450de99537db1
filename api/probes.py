"""POST /queue/test: whether every stage works, by trying."""

from collections.abc import Sequence

import msgspec
from aiohttp import web

from api.operations import Answer, Operation
from api.problems import Problem, json
from pipeline import Broker
from pipeline.views import StageProbe

TIMEOUT = 4.5  # seconds; whoever asks has an answer within five


class TestedStage(msgspec.Struct, omit_defaults=True):
    """How long a job without work took through a stage, or why it did not come through."""

    stage: str
    ok: bool
    milliseconds: float | None
    error: str = ""


class TestedQueue(msgspec.Struct):
    queue: str
    stages: list[TestedStage]


class Tested(msgspec.Struct):
    """`ok` if every stage is."""

    ok: bool
    queues: list[TestedQueue]


class ProbeEndpoint:
    """`lease` is how many seconds a worker may be silent."""

    def __init__(self, broker: Broker, lease: float) -> None:
        self._broker = broker
        self._lease = lease
        self._testing = False

    def operations(self) -> list[Operation]:
        """Everything that is here, as it is reached over HTTP."""
        return [
            Operation(
                method="POST",
                path="/queue/test",
                handler=self.test,
                scope="admin",
                group="operate",
                name="test",
                summary="Send a job without work through every stage",
                description=f"One test at a time. Takes up to {TIMEOUT:g} s, where a stage has no worker.",
                answers={200: Answer(description="How long each took; not `ok` unless all came.", form=Tested)},
            )
        ]

    async def test(self, _: web.Request) -> web.Response:
        """POST /queue/test. One at a time: each has a job wait in every stage, for seconds where nobody is."""
        if self._testing:
            detail = "A test is under way; wait for it to end."
            raise Problem(429, "Too many requests", detail, {"Retry-After": "5"})
        self._testing = True
        try:
            return json(tested(await self._broker.probe(timeout=TIMEOUT, silent=self._lease)))
        finally:
            self._testing = False


def tested(stages: Sequence[StageProbe]) -> Tested:
    """What came of a test, by queue."""
    queues = {each.queue: TestedQueue(each.queue, []) for each in stages}
    for each in stages:
        of_stage = TestedStage(each.stage, not each.error, each.milliseconds, each.error)
        queues[each.queue].stages.append(of_stage)
    return Tested(not any(each.error for each in stages), list(queues.values()))
