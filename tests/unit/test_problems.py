"""What a client is told where a job is refused."""

import pytest

from api.problems import problem_of_refusal
from pipeline.message import Refusal
from tests.support import stage, unused

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("wait", "header"), [(0.0, "1"), (0.05, "1"), (1.0, "1"), (1.2, "2"), (60.0, "60")])
def test_the_suggested_wait_is_rounded_up_to_whole_seconds_and_never_none(wait: float, header: str) -> None:
    problem = problem_of_refusal(stage("send", unused), Refusal("full", 7, wait))
    assert problem.headers == {"Retry-After": header}


@pytest.mark.parametrize(
    ("refusal", "status", "said"),
    [
        (Refusal("full", 100_000, 1.0), 429, "test.send holds 100,000 unfinished jobs, as many as it may."),
        (
            Refusal("draining", 3, 0.0),
            503,
            "test.send is being drained: it takes no new jobs and holds 3 unfinished jobs.",
        ),
        (Refusal("memory", 0, 1.0), 503, "The memory of the queue's server is nearly full."),
    ],
)
def test_each_refusal_has_its_status_and_says_how_deep_the_stage_is(
    refusal: Refusal, status: int, said: str
) -> None:
    problem = problem_of_refusal(stage("send", unused), refusal)
    assert (problem.status, problem.detail) == (status, said)
