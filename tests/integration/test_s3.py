"""Voice notes in an S3-compatible store: a real server (moto), and stand-ins that fail."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pipeline import Permanent
from stages.audio.sources import TIMEOUTS, AudioSources, GraphApi, ObjectStore, Timeouts
from tests.support import RawServer, Write

pytestmark = pytest.mark.integration

LIMIT = 100_000
NOTE = bytes(range(256)) * 10
SECRETS = {"AWS_ACCESS_KEY_ID": "AKIAMADEUP", "AWS_SECRET_ACCESS_KEY": "hush-hush", "AWS_REGION": "sa-east-1"}
KEYS = ["note.ogg", "2026/11/pedido da Ana #1 100%+50%25?.ogg", "olá/ção.ogg"]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A store with the bucket `notes`."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="sa-east-1",
        aws_access_key_id=SECRETS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=SECRETS["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket="notes", CreateBucketConfiguration={"LocationConstraint": "sa-east-1"})
    for key in KEYS:
        client.put_object(Bucket="notes", Key=key, Body=NOTE)
    client.put_object(Bucket="notes", Key="full.ogg", Body=bytes(LIMIT))
    client.put_object(Bucket="notes", Key="large.ogg", Body=bytes(LIMIT + 1))
    client.put_object(Bucket="notes", Key="empty.ogg", Body=b"")
    client.close()
    yield url
    server.stop()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@asynccontextmanager
async def sources(endpoint: str, *buckets: str, timeouts: Timeouts = TIMEOUTS) -> AsyncIterator[AudioSources]:
    async with AudioSources(
        graph=GraphApi("", "", ""),
        roots=[],
        byte_limit=LIMIT,
        store=ObjectStore(endpoint, frozenset(buckets)),
        timeouts=timeouts,
    ) as made:
        yield made


@pytest.mark.parametrize("key", KEYS)
async def test_a_note_comes_from_a_bucket_its_key_taken_as_it_is(endpoint: str, key: str) -> None:
    async with sources(endpoint) as fetcher:
        assert await fetcher.fetch(f"s3://notes/{key}") == NOTE


async def test_the_setting_goes_over_the_environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with sources(endpoint) as fetcher:
        assert await fetcher.fetch("s3://notes/note.ogg") == NOTE


async def test_without_the_setting_the_environment_names_the_store(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    async with sources("") as fetcher:
        assert await fetcher.fetch("s3://notes/note.ogg") == NOTE


@pytest.mark.parametrize("place", ["notes/missing.ogg", "no-such-bucket/note.ogg", "notes/note.ogg/deeper"])
async def test_a_missing_object_is_permanent(endpoint: str, place: str) -> None:
    async with sources(endpoint) as fetcher:
        with pytest.raises(Permanent, match=f"there is no s3://{place}: no such bucket, or no such key in it"):
            await fetcher.fetch(f"s3://{place}")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("notes", "is no key"),
        ("notes/", "is no key"),  # the store would answer with the list of the bucket
        ("notes//", "is no key"),
        ("notes//note.ogg", "is no key"),
        ("notes/a/../note.ogg", "is no key"),
        ("notes/a//b", "is no key"),
        ("", "no name of a bucket"),
        ("/note.ogg", "no name of a bucket"),
        ("../note.ogg", "no name of a bucket"),
        ("notes?list-type=2/note.ogg", "no name of a bucket"),
        ("login@notes/note.ogg", "no name of a bucket"),
    ],
)
async def test_what_names_no_object_is_permanent(endpoint: str, place: str, reason: str) -> None:
    async with sources(endpoint) as fetcher:
        with pytest.raises(Permanent, match=reason):
            await fetcher.fetch(f"s3://{place}")


async def test_only_buckets_that_are_named_are_read(endpoint: str) -> None:
    async with sources(endpoint, "notes", "more-notes") as fetcher:
        assert await fetcher.fetch("s3://notes/note.ogg") == NOTE
        with pytest.raises(Permanent, match=r"not come from the bucket backups; see the setting s3\.buckets"):
            await fetcher.fetch("s3://backups/note.ogg")


async def test_an_object_over_the_limit_is_permanent(endpoint: str) -> None:
    async with sources(endpoint) as fetcher:
        assert len(await fetcher.fetch("s3://notes/full.ogg")) == LIMIT
        with pytest.raises(Permanent, match="over the limit of 100,000 bytes"):
            await fetcher.fetch("s3://notes/large.ogg")


async def test_an_empty_object_is_permanent(endpoint: str) -> None:
    async with sources(endpoint) as fetcher:
        with pytest.raises(Permanent, match=r"the audio at s3://notes/empty\.ogg is empty"):
            await fetcher.fetch("s3://notes/empty.ogg")


def answering(content: bytes, *, stay: bool = False) -> RawServer:
    """A store that answers every request with `content`, and hangs up unless it is to stay."""

    async def answer(write: Write) -> None:
        await write(content)
        if not stay:
            raise ConnectionError

    return RawServer(answer)


def status(code: int) -> bytes:
    """As AWS answers: what it was asked, and by whom, in the body."""
    body = b"<Error><AWSAccessKeyId>AKIAMADEUP</AWSAccessKeyId><StringToSign>hush-hush</StringToSign></Error>"
    head = f"HTTP/1.1 {code} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


async def failure(store: RawServer, timeouts: Timeouts = TIMEOUTS) -> Exception:
    async with store.running() as url, sources(url, timeouts=timeouts) as fetcher:
        with pytest.raises((Permanent, ConnectionError), match="s3://notes/note") as raised:
            await fetcher.fetch("s3://notes/note.ogg")
    assert not any(secret in str(raised.value) for secret in SECRETS.values())
    assert store.asked == 1  # tries are the queue's, not the client's
    return raised.value


@pytest.mark.parametrize("code", [401, 403])
async def test_a_store_that_refuses_is_permanent(code: int) -> None:
    error = await failure(answering(status(code)))
    assert isinstance(error, Permanent)
    assert "may not be read with the credentials" in str(error)


@pytest.mark.parametrize("code", [429, 500, 502, 503])
async def test_a_store_that_fails_is_worth_another_try(code: int) -> None:
    error = await failure(answering(status(code)))
    assert isinstance(error, ConnectionError)
    assert f"it answered {code}" in str(error)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n"])
async def test_a_store_that_stalls_is_worth_another_try(answer: bytes) -> None:
    error = await failure(answering(answer, stay=True), Timeouts(read=0.2))
    assert isinstance(error, ConnectionError)


HEAD = b"HTTP/1.1 200 OK\r\nLast-Modified: Sun, 01 Nov 2026 10:00:00 GMT\r\nETag: x\r\n"


async def test_a_store_that_stalls_in_the_body_is_worth_another_try() -> None:
    store = answering(HEAD + b"Content-Length: 10\r\n\r\nx", stay=True)
    assert isinstance(await failure(store, Timeouts(read=0.2)), ConnectionError)


async def test_a_store_that_takes_too_long_as_a_whole_is_worth_another_try() -> None:
    store = answering(HEAD + b"Content-Length: 10\r\n\r\nx", stay=True)
    assert isinstance(await failure(store, Timeouts(total=0.2)), ConnectionError)


async def test_a_body_that_is_cut_off_is_worth_another_try() -> None:
    assert isinstance(await failure(answering(HEAD + b"Content-Length: 10\r\n\r\nx")), ConnectionError)


async def test_a_store_that_is_away_is_worth_another_try() -> None:
    async with sources("http://127.0.0.1:1") as fetcher:
        with pytest.raises(ConnectionError, match=r"cannot read s3://notes/note\.ogg"):
            await fetcher.fetch("s3://notes/note.ogg")
