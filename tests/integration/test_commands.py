"""Commands on single jobs and on whole stages, against a real server: what they do, say and answer to mistakes."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from redis import Redis

from pipeline.keys import GROUP, Keys
from tests.commands import Command, call

pytestmark = pytest.mark.integration

CLEANING = ("tts-cache", "conversations", "logs", "stats", "health")
SYNCING = ("products", "orders", "changed", "push-order", "proof")
SEND = ("enqueue", "notification", "send-client")
PAYLOAD = '{"to": "5511987654321", "text": "Olá!"}'


@pytest.fixture
def riacho(env: dict[str, str]) -> Command:
    """Runs commands in this test's part of the server."""
    return partial(call, env=env)


@pytest.fixture
def begin_all(server: str, namespace: str) -> Iterator[Callable[[], None]]:
    """Has a worker that never gets done take all jobs of send-client."""
    stream = Keys(namespace).stream("send-client", 0)
    with Redis.from_url(server) as redis:

        def begin() -> None:
            redis.xgroup_create(stream, GROUP, "0")
            redis.xreadgroup(GROUP.decode(), "somebody", {stream: ">"})

        yield begin


def stages(riacho: Command) -> dict[str, dict[str, Any]]:
    """What `status` says, by stage."""
    queues = json.loads(riacho("status", "--json").out)["queues"]
    return {stage["stage"]: stage for queue in queues for stage in queue["stages"]}


# ── single jobs ──────────────────────────────────────────────────────────────────────────────────


def test_what_is_said_of_a_job_is_kept_with_it(riacho: Command) -> None:
    options = ("--tenant", "shop", "--key", "shop:55", "--id", "order-7", "--delay", "600")
    job = riacho(*SEND, "-", *options, typed=PAYLOAD).out.strip()
    assert job.startswith("send-client.0.")
    assert json.loads(riacho(*SEND, PAYLOAD, *options, "--json").out) == {"jobId": job}, "known by its id"
    view = json.loads(riacho("job", job, "--json").out)
    assert (view["state"], view["tenant"]) == ("delayed", "shop")
    assert view["dueAt"] - view["enqueuedAt"] == pytest.approx(600_000, abs=5_000)
    assert " UTC\n" in riacho("job", job).out


def test_jobs_of_one_key_lie_in_one_partition(riacho: Command, env: dict[str, str]) -> None:
    env["RIACHO_REDIS_PARTITIONS"] = "1000"
    jobs = [riacho(*SEND, PAYLOAD, "--key", "shop:55").out for _ in range(2)]
    assert len({job.split(".")[1] for job in jobs}) == 1


def test_waiting_ends_with_1_and_says_how_far_the_job_is(riacho: Command) -> None:
    ended = riacho(*SEND, PAYLOAD, "--wait", "0.2")
    assert ended.code == 1
    assert "state       waiting\n" in ended.out
    assert "was not finished within 0.2 s" in ended.err


def test_a_job_that_has_not_begun_is_cancelled_and_never_completes(riacho: Command) -> None:
    job = riacho(*SEND, PAYLOAD, "--delay", "600").out.strip()
    assert riacho("cancel", job).out == f"{job}: cancelled\n"
    waited = riacho("job", job, "--wait", "20")
    assert (waited.code, "state       cancelled\n" in waited.out) == (1, True)
    assert riacho("job", job).code == 0, "nobody waited for it"
    assert f"no unfinished job {job}" in riacho("cancel", job).refusal


def test_a_job_that_runs_is_told_to_stop(riacho: Command, begin_all: Callable[[], None]) -> None:
    job = riacho(*SEND, PAYLOAD).out.strip()
    begin_all()
    assert riacho("cancel", job).out == f"{job}: cancelling, but it runs and may still finish\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*SEND, "{to: 55}"), "payload '{to: 55}' is no JSON"),
        ((*SEND, '{"to": "55"}'), "payload of notification.send-client: Object missing required field `text`"),
        ((*SEND, "[1]"), "payload of notification.send-client: Expected `object`, got `array`"),
        ((*SEND, PAYLOAD, "--tenant", "x" * 201), "tenant 'xxx"),
        ((*SEND, PAYLOAD, "--delay", "-1"), "delay of -1 s for notification.send-client; it goes from 0 to"),
        ((*SEND, PAYLOAD, "--delay", "nan"), "delay of nan s for notification.send-client; it goes from 0 to"),
        (("enqueue", "notificatoin", "send-client", "{}"), "did you mean 'notification'?"),
        (("enqueue", "notification", "sned-client", "{}"), "did you mean 'send-client'?"),
        (("job", "send-client.0.1-0"), "no job send-client.0.1-0: it never was"),
        (("job", "7"), "'7' is not a job id; one looks like"),
        (("cancel", "sned-client.0.1-0"), "did you mean 'send-client'?"),
        (("pause", "send-client", "audoi"), "no queue or stage 'audoi'; did you mean 'audio'?"),
        (("clear", "transcibe", "--yes"), "no queue or stage 'transcibe'; did you mean 'transcribe'?"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(riacho: Command, arguments: tuple[str, ...], said: str) -> None:
    ended = riacho(*arguments)
    assert said in ended.refusal
    assert ended.out == ""


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["worker", "--stages", "trancribe"], {}, "no stage 'trancribe'; did you mean 'transcribe'?"),
        (["up", "--port", "70000"], {}, "setting http.port = '70000'"),
        (["up"], {"REDIS_URL": "redis://:hush#x@127.0.0.1:1/0"}, "setting redis.url is no address"),
        (["up", "--data", "/etc/passwd"], {"REDIS_URL": ""}, "cannot keep data in /etc/passwd"),
    ],
)
def test_processes_that_cannot_start_say_so_in_one_line(
    riacho: Command, env: dict[str, str], arguments: list[str], variables: dict[str, str], said: str
) -> None:
    env |= variables
    refusal = riacho(*arguments).refusal
    assert said in refusal
    assert "hush" not in refusal
    assert "\n" not in refusal


# ── whole stages ─────────────────────────────────────────────────────────────────────────────────


def test_what_draining_has_not_finished_in_time_is_named(riacho: Command) -> None:
    riacho(*SEND, PAYLOAD)
    riacho("pause", "send-client")
    ended = riacho("drain", "send-client", "transcribe", "--wait", "0.1")
    assert ended.code == 1
    assert ended.out == (
        "draining: notification.send-client, audio.transcribe\n"
        "left in notification.send-client: 1 waiting, 0 delayed, 0 active, 0 retrying; it is paused\n"
    )


def test_clearing_says_what_would_go_and_asks(riacho: Command, begin_all: Callable[[], None]) -> None:
    riacho(*SEND, PAYLOAD)
    begin_all()
    riacho(*SEND, PAYLOAD)
    riacho(*SEND, PAYLOAD, "--delay", "600")

    refused = riacho("clear", "notification", typed="n\n")
    assert "Delete 1 waiting, 1 delayed, 0 retrying jobs of notification for good?" in refused.out
    assert (refused.code, riacho("clear", "notification").code) == (1, 1), "nobody said yes"
    assert riacho("clear", "notification", typed="y\n").out.endswith("2 deleted\n")

    asked = riacho("clear", "send-client", "--active")
    assert "Delete 0 waiting, 0 delayed, 1 active, 0 retrying jobs of send-client" in asked.out
    assert stages(riacho)["send-client"]["active"] == 1
    assert riacho("clear", "send-client", "--active", "--yes").out == "1 deleted\n"
    assert stages(riacho)["send-client"]["active"] == 0


def test_status_has_a_line_for_each_stage_with_how_it_is_steered(riacho: Command) -> None:
    riacho("pause", "transcribe", "send-client")
    riacho("drain", "audio")
    riacho(*SEND, PAYLOAD, "--delay", "600")
    lines = riacho("status").out.splitlines()
    assert [line.split() for line in lines] == [
        ["stage", "waiting", "delayed", "active", "retrying", "dead", "oldest"],
        ["audio.transcribe", "0", "0", "0", "0", "0", "-", "paused"],
        ["draining"],
        ["audio.process-conversation", "0", "0", "0", "0", "0", "-", "draining"],
        ["notification.send-vendor", "0", "0", "0", "0", "0", "-"],
        ["notification.send-client", "0", "1", "0", "0", "0", "-", "paused"],
        *([f"notification.{stage}", "0", "0", "0", "0", "0", "-"] for stage in ("fallback", "alert", "receipt")),
        *([f"cleanup.{stage}", "0", "0", "0", "0", "0", "-"] for stage in CLEANING),
        *([f"sync.{stage}", "0", "0", "0", "0", "0", "-"] for stage in SYNCING),
    ]
    assert max(map(len, lines)) <= 80


def test_status_says_how_long_jobs_wait_for_a_worker_that_is_not_there(riacho: Command) -> None:
    riacho(*SEND, PAYLOAD)
    (line,) = [line for line in riacho("status").out.splitlines() if "send-client" in line]
    assert line.split() == ["notification.send-client", *"10000", "0", "s", "no", "worker"]
    found = stages(riacho)["send-client"]
    assert (found["state"], found["workers"], found["demand"]) == ("ok", 0, 1)
    assert 0 <= found["oldestWaiting"] < 60
    assert "in1m" not in found, "which takes somebody who watches"


def test_resuming_undoes_both(riacho: Command) -> None:
    riacho("pause", "audio")
    riacho("drain", "audio")
    assert riacho("resume", "audio").out == "resumed: audio.transcribe, audio.process-conversation\n"
    assert not any(stage["paused"] or stage["draining"] for stage in stages(riacho).values())
