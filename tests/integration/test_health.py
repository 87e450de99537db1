"""The health check: what each part of it finds, what is kept of it, and who is told when."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from moto.server import ThreadedMotoServer
from sqlalchemy.schema import DropTable

from api.root import connector
from pipeline import Broker, Job, Pipeline
from stages.audio import weights
from stages.health.check import Checking, HealthHandler
from stages.health.finding import MOST_HANGING, Check, Finding, State, examine
from stages.health.places import BucketCheck, FolderCheck, ModelCheck, SpaceCheck, StoreCheck
from stages.health.senders import EmailCheck, WhatsAppCheck
from stages.health.server import ServerCheck
from stages.health.shops import ShopsCheck
from stages.health.states import HealthLog, health
from stages.health.work import DeadLettersCheck, PausedCheck, WorkCheck
from stages.jobs import CheckHealth
from stages.notification.cloud_api import Sender
from stages.notification.log import NotificationLog
from stages.store import Database
from stages.sync.rest import Shop as Address
from tests import cloud_api as meta
from tests.desk import ADMIN, WithSettings, working_desk
from tests.faults.servers import OwnServer
from tests.mail import Mailbox, certificate, email, mail_server
from tests.support import Connector, Number, add_one, context_of, eventually, stage, until, unused, working
from tests.woocommerce import KEY, PASSWORD, SECRET, USER, Shop

pytestmark = pytest.mark.integration

PIPELINE = Pipeline([stage("one", unused)])


async def one(check: Callable[[], Awaitable[Sequence[Finding]]]) -> Finding:
    (finding,) = await check()
    return finding


def states(findings: Sequence[Finding]) -> dict[str, str]:
    return {finding.name: finding.state for finding in findings}


# ── redis ────────────────────────────────────────────────────────────────────────────────────────


async def test_redis_is_well_warns_and_fails(tmp_path: Path) -> None:
    own = OwnServer(tmp_path)
    await own.start()
    async with Broker(own.url, PIPELINE) as broker:
        check = ServerCheck(lambda: broker, 5.0, 0.8, "start it")
        assert set(states(await check()).values()) == {"ok"}
        await own.ask("CONFIG", "SET", "maxmemory", "1mb", "appendonly", "no")
        slow = ServerCheck(lambda: broker, 1e-9, 0.1, "start it")
        assert states(await slow()) == {
            "redis": "warning",
            "redis.memory": "warning",
            "redis.persistence": "warning",
            "redis.replication": "ok",
        }
        await own.ask("CONFIG", "SET", "maxmemory", 0)
        await own.ask("REPLICAOF", "127.0.0.1", 1)
        work = WorkCheck(lambda: broker, 300, 300, 60)
        found = await examine([Check("work", work), Check("redis", check)])
        assert states(found)["redis.replication"] == "failed"
        assert states(found)["work.one"] == "ok"
    await own.stop()
    async with Broker(own.url, PIPELINE) as broker:
        (finding,) = await ServerCheck(lambda: broker, 5.0, 0.8, "start it")()
        assert (finding.name, finding.state, finding.remedy) == ("redis", "failed", "start it")


async def test_a_server_that_wants_a_password_is_told_from_one_that_is_away(tmp_path: Path) -> None:
    own = OwnServer(tmp_path)
    await own.start()
    await own.ask("CONFIG", "SET", "requirepass", "hush")
    async with Broker(own.url, PIPELINE) as broker:
        (finding,) = await ServerCheck(lambda: broker, 5.0, 0.8, "set it")()
        assert (finding.state, finding.remedy) == ("failed", "set it")
        assert "Authentication required" in finding.detail
    await own.stop()


# ── work ─────────────────────────────────────────────────────────────────────────────────────────


async def test_work_is_stuck_when_it_waits_runs_long_or_nobody_works_it(connector: Connector) -> None:
    async with connector(PIPELINE)() as broker:

        async def found(waiting: float = 300, active: float = 300, silent: float = 60) -> tuple[str, str]:
            finding = await one(WorkCheck(lambda: broker, waiting, active, silent))
            return finding.state, finding.detail.partition(";")[0].partition(",")[0]

        assert await found() == ("ok", "nothing to do")
        await add_one(broker, Job(stage="one", payload=Number(1)))
        assert await found() == ("warning", "no worker")
        assert await found(waiting=-1) == ("failed", "no worker")
        await broker.ensure_groups()
        (delivery,) = await broker.fetch("one", 0, "a", 1, 100)
        delivery.taken = time.monotonic() - 100
        await broker.renew("one", 0, "a", [delivery])
        assert await found() == ("ok", "0 waiting")
        assert await found(active=50) == ("warning", "0 waiting")
        await add_one(broker, Job(stage="one", payload=Number(2)))
        assert await found(waiting=-1) == ("warning", "1 waiting")
        await broker.pause(PIPELINE)
        assert await found(waiting=-1) == ("ok", "paused")


async def test_more_dead_letters_than_at_the_last_check_are_a_warning(
    connector: Connector, redis: Any, namespace: str
) -> None:
    async with connector(PIPELINE)() as broker:
        figures: list[int | None] = [None]

        async def last(_: str) -> int | None:
            return figures[0]

        check = DeadLettersCheck(lambda: broker, last)
        await redis.xadd(f"{{{namespace}:0}}:dead:one", {"e": b"x"})
        assert (await one(check)).state == "ok", "nobody knows how many there were"
        figures[0] = 0
        finding = await one(check)
        assert (finding.state, finding.figure, finding.detail) == (
            "warning",
            1,
            "1 more than at the last check; 1 in all: one 1",
        )
        figures[0] = 1
        assert (await one(check)).state == "ok"


# ── places ───────────────────────────────────────────────────────────────────────────────────────


async def test_the_store_has_its_tables_or_not(url: str) -> None:
    database = Database(url)
    async with database:
        assert (await one(StoreCheck(database, lambda: True))).state == "ok"
        assert (await one(PausedCheck(NotificationLog(database), lambda: True))).state == "ok"
        await NotificationLog(database).pause("shop", 1, "payment", 1, 2)
        assert (await one(PausedCheck(NotificationLog(database), lambda: True))).state == "warning"
        await database.write(DropTable(health))
        missing = await one(StoreCheck(database, lambda: True))
        assert (missing.state, "health" in missing.detail) == ("failed", True)


async def test_a_store_that_is_away_has_failed_and_its_password_stays_secret() -> None:
    database = Database("postgresql+asyncpg://riacho:hush-hush@127.0.0.1:1/riacho")
    finding = await one(StoreCheck(database, lambda: True))
    await database.aclose()
    assert finding.state == "failed"
    assert "hush" not in repr(finding)


async def test_the_model_is_there_damaged_or_fetched_later(tmp_path: Path) -> None:
    async def found(model: str, device: str = "cpu", kind: str = "auto") -> str:
        return (await one(ModelCheck(model, tmp_path, device, kind))).state

    assert await found("base") == "ok", "its packages are installed"
    folder = tmp_path / f"whisper-base-{weights.BASE_SHA256[:12]}"
    folder.mkdir()
    for name in (*weights.BASE_FILES, "model.bin"):
        (folder / name).write_text("half of it")
    assert await found("base") == "failed"
    assert await found(str(tmp_path)) == "failed", "a folder without weights"
    assert await found(str(folder)) == "ok", "not ours: nobody knows its sum"
    assert await found("no/such-model") == "warning"
    assert await found("bsae") == "failed"
    assert await found(str(folder), kind="int3") == "failed"


async def test_folders_and_buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert (await one(FolderCheck("speech", tmp_path / "new" / "tts"))).state == "ok"
    assert (await one(FolderCheck("speech", tmp_path / "file" / "tts"))).state == "failed"
    login = {"AWS_ACCESS_KEY_ID": "AKIAMADEUP", "AWS_SECRET_ACCESS_KEY": "hush-hush", "AWS_REGION": "us-east-1"}
    for name, value in login.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="spoken")
    client.put_object(Bucket="spoken", Key="tts/a.ogg", Body=b"x")
    client.close()
    found = [await one(BucketCheck("b", endpoint, place)) for place in ("spoken/tts", "spoken", "nowhere")]
    server.stop()
    found.append(await one(BucketCheck("b", "http://127.0.0.1:1", "spoken")))
    assert [finding.state for finding in found] == ["ok", "ok", "failed", "failed"]
    assert "there is no s3://nowhere" in found[2].detail
    assert "hush" not in repr(found)


# ── senders ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_senders_token_is_good_wrong_or_cannot_be_asked() -> None:
    async with meta.CloudApi() as api:
        wrong = "EAAJ0wrong0token0ZDZD"
        known = {
            "good": Sender(meta.NUMBER, meta.TOKEN, api.url, "v26.0"),
            "wrong": Sender(meta.NUMBER, wrong, api.url, "v26.0"),
            "unknown": Sender("1", meta.TOKEN, api.url, "v26.0"),
            "none": Sender(meta.NUMBER, "", api.url, "v26.0"),
            "away": Sender(meta.NUMBER, meta.TOKEN, "http://127.0.0.1:1", "v26.0"),
        }
        found = await WhatsAppCheck(known, outbox=False)()
    assert states(found) == {
        "whatsapp": "ok",
        "whatsapp.good": "ok",
        "whatsapp.wrong": "failed",
        "whatsapp.unknown": "failed",
        "whatsapp.none": "failed",
        "whatsapp.away": "warning",
    }
    assert wrong not in repr(found)
    assert meta.TOKEN not in repr(found)


async def test_the_mail_server_takes_our_login_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context_, public = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    mailbox = Mailbox()
    async with mail_server(mailbox, starttls=context_) as port:
        login = {"security": "starttls", "user": "riacho"}
        assert (await one(EmailCheck(email(port, **login, password="correct horse")))).state == "ok"
        refused = await one(EmailCheck(email(port, **login, password="hush-hush")))
    away = await one(EmailCheck(email(1)))
    assert (refused.state, away.state, mailbox.messages) == ("failed", "failed", [])
    assert "hush" not in repr(refused)


# ── running, keeping, telling ────────────────────────────────────────────────────────────────────


async def test_a_check_that_raises_or_hangs_has_failed_without_saying_a_secret() -> None:
    async def raises() -> list[Finding]:
        raise ValueError("token=hush-hush")

    async def hangs() -> list[Finding]:
        await asyncio.sleep(60)
        return []

    found = await examine([Check("a", raises), Check("b", hangs, 0.05)])
    assert states(found) == {"a": "failed", "b": "failed"}
    assert "hush" not in repr(found)


def test_a_file_system_that_hangs_holds_up_neither_the_other_checks_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mended = threading.Event()
    monkeypatch.setattr("os.access", lambda *_: mended.wait(20))
    checks = [Check(name, FolderCheck(name, tmp_path), 0.3) for name in ("one", "two")]
    checks.append(Check("space", SpaceCheck(tmp_path)))
    began = time.monotonic()
    assert states(asyncio.run(examine(checks))) == {"one": "failed", "two": "failed", "space": "ok"}
    for _ in range(MOST_HANGING):
        (finding,) = asyncio.run(examine(checks[:1]))
    assert "have not come back" in finding.detail
    assert time.monotonic() - began < 10
    mended.set()


class Doctor:
    """A handler whose findings a test sets."""

    def __init__(self, database: Database, channels: Sequence[Any] = ()) -> None:
        self.found: dict[str, State] = {}
        self.asked = 0
        self.log = HealthLog(database)
        self.handler = HealthHandler(Checking([Check("x", self._ask)], self.log, channels))

    async def _ask(self) -> list[Finding]:
        self.asked += 1
        return [Finding(name, state, f"{name} is {state}", "mend it") for name, state in self.found.items()]

    async def run(self, at: int, **found: State) -> list[str]:
        """The causes that are told of."""
        self.found = {name.replace("_", "."): state for name, state in found.items()}
        ctx = context_of("health", CheckHealth(), number=at)
        ctx._envelope = type(ctx._envelope)(1, None, "", "", at)
        done = await self.handler(ctx, CheckHealth())
        return [job.payload.cause.removeprefix("saúde: ") for job in done.forward]


@pytest.fixture
async def doctor(url: str) -> AsyncIterator[Doctor]:
    async with Database(url) as database:
        yield Doctor(database)


async def test_only_what_changes_is_told(doctor: Doctor) -> None:
    assert await doctor.run(1, a="ok", b="warning", c="failed") == ["b: atenção", "c: falhou"]
    assert await doctor.run(2, a="ok", b="warning", c="failed") == []
    assert await doctor.run(3, a="failed", b="failed", c="ok") == ["a: falhou", "b: falhou", "c: voltou ao normal"]
    assert await doctor.run(4, a="failed", b="ok", c="ok", d="ok") == ["b: voltou ao normal"]


async def test_a_job_that_comes_back_tells_the_same_again_without_checking(doctor: Doctor) -> None:
    await doctor.run(1, a="ok")
    assert await doctor.run(2, a="failed") == ["a: falhou"]
    assert await doctor.run(2, a="ok") == ["a: falhou"]
    assert doctor.asked == 2
    assert await doctor.run(3, a="ok") == ["a: voltou ao normal"]


async def test_two_findings_of_one_name_are_kept_as_one(doctor: Doctor) -> None:
    at = 1_790_000_000_000
    await doctor.log.keep([Finding("a", "ok", "")], at - 1)
    kept = await doctor.log.keep([Finding("a", "ok", ""), Finding("a", "failed", "")], at)
    assert [(each.name, each.state) for each in kept.findings] == [("a", "failed")]
    assert kept.changed == {"a"}


async def test_what_is_gone_is_forgotten_but_not_what_is_unknown(doctor: Doctor) -> None:
    told = await doctor.run(1, redis="ok", redis_memory="warning", b="failed")
    assert told == ["redis.memory: atenção", "b: falhou"]
    assert await doctor.run(2, redis="failed") == ["redis: falhou"]
    again = await doctor.run(3, redis="ok", redis_memory="warning", b="failed")
    assert sorted(again) == ["b: falhou", "redis: voltou ao normal"]


async def test_a_figure_that_could_not_be_counted_is_the_last_one(doctor: Doctor) -> None:
    await doctor.log.keep([Finding("dead", "ok", "", figure=12)], 1)
    await doctor.log.keep([Finding("dead", "failed", "")], 2)
    assert await doctor.log.figure("dead") == 12


async def test_without_a_database_all_that_is_not_well_is_told_by_every_check_and_at_once() -> None:
    class Administrator:
        told: list[str] = []  # noqa: RUF012

        async def send(self, subject: str, text: str, *, id: str) -> None:  # noqa: A002
            self.told.append(text)

    database = Database("postgresql+asyncpg://riacho@127.0.0.1:1/riacho")
    admin = Administrator()
    doctor = Doctor(database, [admin])
    for at in (1, 2):
        assert await doctor.run(at, a="ok", store="failed") == ["store: falhou"]
    await database.aclose()
    assert admin.told == ["saúde: store: falhou: store is failed; mend it\n"] * 2


async def test_the_stage_as_it_is_configured_tells_the_administrators(settings: WithSettings) -> None:
    async with working_desk(settings()) as desk:
        await desk.adapters.notifications.log.pause("padaria", 131042, "payment", 1, 2)
        pipeline = desk.adapters.pipeline()
        connect = connector(desk.adapters._settings, pipeline)
        async with connect() as broker, working(connect, Pipeline([pipeline.stage("health")])):
            job = await add_one(broker, Job(stage="health", payload=CheckHealth()))
            view = await until(broker, job, "completed")
        found = {finding["name"]: finding["state"] for finding in view.result["findings"]}
        assert found["redis"] == found["store"] == found["email"] == found["whatsapp.padaria"] == "ok"
        assert found["senders"] == "warning"

        async def told() -> bool:
            return any("saúde: senders: atenção" in mail["Subject"] for mail in desk.mails(ADMIN))

        await eventually(told, what="an alert")
        assert view.next


async def test_each_shop_is_asked_by_the_logins_it_has(shop: Shop) -> None:
    good = Address("padaria", shop.url, KEY, SECRET, USER, PASSWORD)
    shops = {
        "padaria": good,
        "keyless": msgspec.structs.replace(good, tenant="keyless", key=""),
        "wrong": msgspec.structs.replace(good, tenant="wrong", password="guessed"),
        "away": msgspec.structs.replace(good, tenant="away", url="http://127.0.0.1:1"),
    }
    found = {finding.name: finding for finding in await ShopsCheck(shops)()}
    states = {name: finding.state for name, finding in found.items()}
    assert states == {
        "shops": "ok",
        "shops.padaria": "ok",
        "shops.keyless": "failed",
        "shops.wrong": "failed",
        "shops.away": "warning",
    }
    assert found["shops.padaria"].detail == f"{shop.url} answers to our key and user"
    assert "sync.shops.wrong" in found["shops.wrong"].remedy
    told = "".join(f"{finding.detail} {finding.remedy}" for finding in found.values())
    assert not any(secret in told for secret in (KEY, SECRET, PASSWORD, "guessed"))
