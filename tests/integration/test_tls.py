"""TLS: certificates from files, renewed while the service runs; handshakes within bounds; the short way, too."""

import asyncio
import errno
import json
import logging
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from yarl import URL

from api import demo, listening, tls
from api.access import Exposed, check_exposure
from api.adapters import Adapters
from api.app import build_app
from api.headers import SAFE
from api.listening import CannotListen
from api.root import PATIENCE, connector
from api.serving import Runner
from api.signatures import sign
from api.tls import NoTls, certificates_of
from config import child_environment, load
from tests.certificates import Authority
from tests.commands import call
from tests.desk import APP_SECRET, settings_of
from tests.integration.test_accepting import KEY, REQUESTS, Taken, answers, ordinary, request, taken
from tests.integration.test_http_bounds import Raw
from tests.processes import environment, riacho, stop
from tests.support import eventually

pytestmark = [pytest.mark.integration, pytest.mark.on_uvloop]

__all__ = ["taken"]  # a fixture

HSTS = {"Strict-Transport-Security": "max-age=31536000"}
Secure = Callable[..., AbstractAsyncContextManager[URL]]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def trusting(authority: Authority) -> ssl.SSLContext:
    """A client's context that trusts this test's CA alone."""
    return ssl.create_default_context(cafile=authority.path)


@pytest.fixture
def secure(server: str, namespace: str, tmp_path: Path, authority: Authority) -> Secure:
    """The service over TLS, as api.processes has it; its address."""

    @asynccontextmanager
    async def started(**http: Any) -> AsyncIterator[URL]:
        http = {"port": 0, **authority.issue("server").http, **http}
        settings = settings_of(server, namespace, tmp_path, http=http)
        adapters = Adapters(settings)
        async with (
            aclosing(adapters.database),
            connector(settings, adapters.pipeline(), patience=PATIENCE)() as broker,
        ):
            runner = Runner(build_app(broker, settings, adapters.notifications.log), settings.http)
            async with listening.listening(runner, settings.http, certificates_of(settings.http)) as address:
                yield URL(address)

    return started


@asynccontextmanager
async def raw(url: URL, context: ssl.SSLContext) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection(url.host, url.port, ssl=context)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


async def status(url: URL, context: ssl.SSLContext) -> int:
    """Of a GET over a connection of its own; 0 where there is none."""
    try:
        async with aiohttp.ClientSession() as http, http.get(url / "healthz", ssl=context) as answer:
            return answer.status
    except aiohttp.ClientConnectionError:
        return 0


async def shown(url: URL, context: ssl.SSLContext) -> str:
    """The name on the certificate that a new connection gets."""
    async with raw(url, context) as connection:
        found = connection.writer.get_extra_info("peercert")
        return str(dict(pair[0] for pair in found["subject"])["commonName"])


async def test_the_service_speaks_tls_and_nothing_else(
    secure: Secure, trusting: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with secure() as url, aiohttp.ClientSession() as http:
        assert url.scheme == "https"
        assert f"listening on {str(url).rstrip('/')}" in caplog.text
        async with http.get(url / "queue/status", ssl=trusting) as answer:
            assert answer.status == 200
            assert {name: answer.headers[name] for name in SAFE | HSTS} == SAFE | HSTS
        with pytest.raises(aiohttp.ClientError):
            await http.get(url.with_scheme("http") / "healthz")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_new_versions_of_tls_are_spoken(
    secure: Secure, trusting: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    trusting.minimum_version = trusting.maximum_version = version
    async with secure() as url:
        assert await status(url, trusting) == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_an_old_version_of_tls_is_not(secure: Secure, trusting: ssl.SSLContext) -> None:
    trusting.minimum_version, trusting.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    trusting.set_ciphers("ALL:@SECLEVEL=0")
    async with secure() as url:
        assert await status(url, trusting) == 0


async def test_a_signed_webhook_is_taken_over_tls(secure: Secure, trusting: ssl.SSLContext) -> None:
    body = msgspec.json.encode({"object": "whatsapp_business_account", "entry": []})
    async with secure() as url, aiohttp.ClientSession() as http:
        for secret, expected in ((APP_SECRET, 200), ("another", 401)):
            signed = {"X-Hub-Signature-256": sign(body, secret)}
            async with http.post(url / "webhooks/whatsapp", data=body, headers=signed, ssl=trusting) as answer:
                assert answer.status == expected


@pytest.mark.parametrize("which", ["a job", "no job", "a key", "a wrong key", "a foreign origin"])
async def test_both_ways_answer_alike_over_tls(
    secure: Secure, trusting: ssl.SSLContext, taken: Taken, which: str
) -> None:
    http, content, short = REQUESTS[which]
    async with secure(**http) as url, raw(url, trusting) as connection:
        first = request(Authorization=f"Bearer {KEY}", X_Twice="1")
        assert (await answers(connection, first))[0][0] == 202, "it has looked at the server's memory now"
        taken.clear()
        found = (await answers(connection, content))[0]
        assert any(taken) is short
        wanted = (await answers(connection, ordinary(content)))[0]
    assert found[0] == wanted[0]
    assert found[1].items() >= HSTS.items()
    assert wanted[1].items() >= HSTS.items()


async def test_an_origin_is_ours_by_its_scheme_too(secure: Secure, trusting: ssl.SSLContext) -> None:
    async with secure() as url, raw(url, trusting) as connection:
        for scheme, expected in (("https", 202), ("http", 403)):
            (answer,) = await answers(connection, request(Origin=f"{scheme}://localhost"))
            assert answer[0] == expected


async def test_requests_are_cut_up_by_tls_and_answered_in_order(
    secure: Secure, trusting: ssl.SSLContext, taken: Taken
) -> None:
    many = request() * 20 + request(b"{}") + request()
    async with secure() as url, raw(url, trusting) as connection:
        for cut in range(0, len(many), 700):
            connection.writer.write(many[cut : cut + 700])
        statuses = [status for status, _, _ in await answers(connection, b"", 22)]
    assert statuses == [202] * 20 + [400, 202]


# ── certificates ─────────────────────────────────────────────────────────────────────────────────


async def test_a_renewed_certificate_is_shown_without_a_restart(
    secure: Secure, authority: Authority, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "LOOKED_AT_EVERY", 0.05)
    async with secure() as url, raw(url, trusting) as before:
        assert await shown(url, trusting) == "server"
        fresh = authority.issue("renewed")
        for new, place in zip(fresh, authority.issue("server"), strict=True):
            shutil.copy(new, place)

        async def renewed() -> bool:
            return await shown(url, trusting) == "renewed"

        await eventually(renewed, what="the new certificate")
        assert (await answers(before, request()))[0][0] == 202, "who was there before is served on"


async def test_while_only_half_of_a_renewal_is_there_the_old_certificate_holds(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.issue("server")
    found = certificates_of(load({"http": files.http}, environ={}).http)
    assert found
    key = files.key.read_bytes()
    authority.issue("server")
    new, _ = files.key.read_bytes(), files.key.write_bytes(key)
    assert await found.renew() == 0
    assert "does not fit" in caplog.text
    assert "going on with the certificate from before" in caplog.text
    caplog.clear()
    assert await found.renew() == 0
    assert not caplog.records, "once is enough"
    files.key.write_bytes(new)
    assert await found.renew() == 1
    assert await found.renew() == 0
    files.certificate.unlink()
    assert await found.renew() == 0
    assert "cannot be read: No such file" in caplog.text


@pytest.mark.parametrize(
    ("begins", "ends", "said"),
    [
        (-10, -1, "expired on"),
        (1, 30, "does not hold before"),
        (-80, 6, "expires on"),
        (-5, 1, "expires on"),
        (-80, 8, ""),
        (-3, 3, ""),
        (-3, 36_500, ""),
    ],
)
async def test_a_certificate_that_does_not_hold_or_not_for_long_is_warned_of_once_a_day(
    authority: Authority, caplog: pytest.LogCaptureFixture, begins: int, ends: int, said: str
) -> None:
    caplog.set_level("WARNING", logger="api.tls")  # other tests' commands set a level of their own
    files = authority.issue("server", begins=timedelta(days=begins), ends=timedelta(days=ends))
    found = certificates_of(load({"http": files.http}, environ={}).http)
    assert found
    for _ in range(2):
        assert await found.renew() == 0
    assert len(caplog.records) == bool(said)
    if said:
        assert re.search(rf"{re.escape(str(files.certificate))}' {said} \d{{4}}-\d\d-\d\d", caplog.text)
        caplog.clear()
        authority.issue("server", begins=timedelta(days=begins), ends=timedelta(days=ends))
        assert await found.renew() == 1
        assert said in caplog.text, "a renewal that helps nothing is warned of at once"
        caplog.clear()
        authority.issue("server")
        assert await found.renew() == 1
        assert not caplog.records
        later = datetime.now(UTC) + timedelta(hours=2)
        found.warn(later)
        found.warn(later + timedelta(hours=23))
        assert caplog.text.count("expired on") == 1
        found.warn(later + timedelta(hours=25))
        assert caplog.text.count("expired on") == 2


async def test_a_renewal_that_could_not_be_read_is_taken_when_it_can_be(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = certificates_of(load({"http": authority.issue("server").http}, environ={}).http)
    assert found
    authority.issue("server")

    def unreadable(_name: str, _path: str) -> None:
        raise NoTls("Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(tls, "_check_readable", unreadable)
        assert await found.renew() == 0
    assert await found.renew() == 1, "chmod does not show in time, size or inode"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tls_certificate": "/none.pem"}, "http.tls_certificate = '/none.pem' cannot be read: No such file"),
        ({"tls_key": "/none.key"}, "http.tls_key = '/none.key' cannot be read: No such file"),
        ({"tls_key": "/"}, "http.tls_key = '/' cannot be read: Is a directory"),
        ({"tls_client_ca": "/none.pem"}, "http.tls_client_ca = '/none.pem' cannot be read: No such file"),
        ({"tls_key": ""}, "TLS takes both http.tls_certificate and http.tls_key"),
        ({"tls_certificate": ""}, "TLS takes both"),
        ({"tls_certificate": "", "tls_key": "", "tls_client_ca": "x"}, "http.tls_client_ca = 'x': TLS takes both"),
        ({"tls_key": "{other}"}, r"other.key' does not fit http.tls_certificate = .*server.pem'"),
        ({"tls_key": "{locked}"}, r"locked.key' is encrypted, .*'openssl pkey"),
        ({"tls_key": "{odd}"}, r"odd.txt' has no private key in PEM"),
        ({"tls_certificate": "{odd}"}, r"http.tls_certificate = .*odd.txt' has no certificate in PEM"),
        ({"tls_client_ca": "{odd}"}, r"http.tls_client_ca = .*odd.txt' has no certificate in PEM"),
    ],
)
def test_files_that_cannot_be_used_are_named_with_the_remedy(
    authority: Authority, tmp_path: Path, changed: dict[str, str], said: str
) -> None:
    odd = tmp_path / "odd.txt"
    odd.write_text("what is this?")
    places = {
        "{other}": authority.issue("other").key,
        "{locked}": authority.issue("locked", password=b"secret").key,
        "{odd}": odd,
    }
    values = {name: str(places.get(value, value)) for name, value in changed.items()}
    http = load({"http": authority.issue("server").http | values}, environ={}).http
    with pytest.raises(NoTls, match=said):
        certificates_of(http)


@pytest.mark.parametrize("command", ["up", "api"])
def test_commands_do_not_start_with_a_certificate_that_cannot_be_used(command: str, tmp_path: Path) -> None:
    env = environment(
        REDIS_URL="redis://127.0.0.1:1", RIACHO_HTTP_TLS_CERTIFICATE="/none.pem", RIACHO_HTTP_TLS_KEY="/none.key"
    )
    ended = call(command, env=env)
    assert (ended.code, "http.tls_certificate = '/none.pem' cannot be read" in ended.refusal) == (3, True)


# ── clients' certificates ────────────────────────────────────────────────────────────────────────


async def test_only_clients_with_a_certificate_of_the_ca_are_answered_where_one_is_set(
    secure: Secure, authority: Authority, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    clients = Authority(tmp_path, "clients")
    async with secure(tls_client_ca=str(clients.path)) as url:
        assert await status(url, trusting) == 0
        trusting.load_cert_chain(*authority.issue("stranger"))
        assert await status(url, trusting) == 0
        trusting.load_cert_chain(*clients.issue("friend"))
        assert await status(url, trusting) == 200
        async with raw(url, trusting) as connection:
            (answer,) = await answers(connection, request(host="api.example"))
            assert answer[0] == 202, "whose certificate is known needs no key, and may use any name"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_ca_taken_out_is_trusted_no_more_in_a_session_from_before(
    secure: Secure,
    trusting: ssl.SSLContext,
    tmp_path: Path,
    version: ssl.TLSVersion,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listening, "LOOKED_AT_EVERY", 0.05)
    clients, others = Authority(tmp_path, "clients"), Authority(tmp_path, "others")
    trusted = Path(shutil.copy(clients.path, tmp_path / "trusted.pem"))
    trusting.minimum_version = trusting.maximum_version = version
    trusting.load_cert_chain(*clients.issue("friend"))
    async with secure(tls_client_ca=str(trusted)) as url:

        def greet(session: ssl.SSLSession | None = None) -> ssl.SSLSession | None:
            """The session, where it is answered."""
            arrived = socket.create_connection((str(url.host), url.port))
            with trusting.wrap_socket(arrived, server_hostname=url.host, session=session) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                return connection.session if connection.recv(4_096) else None

        session = await asyncio.to_thread(greet)
        assert session
        shutil.copy(others.path, trusted)

        async def refused() -> bool:
            try:
                return await asyncio.to_thread(greet, session) is None
            except OSError:
                return True

        await eventually(refused, what="the client being refused")


def test_a_ca_for_clients_is_as_good_as_keys(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("server").http
    settings = load({"http": {"host": "0.0.0.0", **files}}, environ={})  # noqa: S104
    with pytest.raises(Exposed, match="tls_client_ca"):
        check_exposure(settings.http)
    check_exposure(msgspec.structs.replace(settings.http, tls_client_ca="clients.pem"))


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_who_does_not_finish_the_handshake_is_cut_off(secure: Secure, said: bytes) -> None:
    async with secure(read_timeout=0.3) as url:
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(said)
        async with asyncio.timeout(5):
            await reader.read()
        writer.transport.abort()


async def test_who_sends_nothing_after_the_handshake_is_cut_off(secure: Secure, trusting: ssl.SSLContext) -> None:
    async with secure(read_timeout=0.3) as url, raw(url, trusting) as silent:
        assert 0.2 < await silent.closed_after() < 5


async def test_who_does_not_hear_that_it_is_cut_off_makes_room_all_the_same(
    secure: Secure, trusting: ssl.SSLContext
) -> None:
    def greeted(url: URL) -> ssl.SSLSocket:
        arrived = socket.create_connection((str(url.host), url.port))
        return trusting.wrap_socket(arrived, server_hostname=url.host)

    async with secure(connections=1, read_timeout=0.3) as url:
        with await asyncio.to_thread(greeted, url):  # and never reads, or says goodbye

            async def room() -> bool:
                return await status(url, trusting) == 200

            await eventually(room, what="room for another", deadline=10)


async def test_handshakes_under_way_count_as_connections(secure: Secure, trusting: ssl.SSLContext) -> None:
    async with secure(connections=3, read_timeout=30.0) as url, raw(url, trusting) as served:
        assert (await answers(served, request()))[0][0] == 202
        half_open = [await asyncio.open_connection(url.host, url.port) for _ in range(2)]

        async def full() -> bool:
            return await status(url, trusting) == 0

        await eventually(full, what="no room for another")
        reader, writer = await asyncio.open_connection(url.host, url.port)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        assert (await answers(served, request()))[0][0] == 202
        for _, each in half_open:
            each.transport.abort()

        async def room() -> bool:
            return await status(url, trusting) == 200

        await eventually(room, what="room for another")


async def test_slow_handshakes_keep_nobody_waiting_and_end_with_the_service(
    secure: Secure, trusting: ssl.SSLContext
) -> None:
    async with secure(read_timeout=30.0) as url:
        slow = [await asyncio.open_connection(url.host, url.port) for _ in range(100)]
        for _, writer in slow:
            writer.write(b"\x16\x03\x01")
        async with asyncio.timeout(5):
            assert await status(url, trusting) == 200
    async with asyncio.timeout(5):
        for reader, writer in slow:
            assert await reader.read() == b""
            writer.close()


async def test_an_address_in_use_is_said_so_under_tls(secure: Secure) -> None:
    async with secure() as url:
        with pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1:{url.port}: Address already in use"):
            async with secure(port=url.port):
                pass


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("nobody.invalid", "[^:]*(not known|resolution)"),
        ("a..b", "that is no name"),
        ("\udcff", "that is no name"),
    ],
)
@pytest.mark.parametrize("by_tls", [True, False])
async def test_a_host_that_there_is_not_is_said_so(secure: Secure, host: str, why: str, by_tls: bool) -> None:
    plain = {} if by_tls else {"tls_certificate": "", "tls_key": ""}
    with pytest.raises(CannotListen, match=rf"cannot listen on {re.escape(host)}:0: {why}.*; choose .*--host"):
        async with secure(host=host, **plain):
            pass


async def test_where_there_is_no_ipv6_the_other_addresses_are_listened_on(
    secure: Secure, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = socket.create_server

    def without_ipv6(address: Any, *, family: int, **more: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return create(address, family=family, **more)

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    async with secure(host="") as url:
        assert await status(url.with_host("127.0.0.1"), trusting) == 200
    with pytest.raises(CannotListen, match="Address family not supported"):
        async with secure(host="::1"):
            pass


def test_the_demo_speaks_http_whatever_is_configured(authority: Authority) -> None:
    files = authority.issue("server").http
    own = demo._own(
        load({"http": files | {"tls_client_ca": "x"}}, environ={}), "http://127.0.0.1:1", "http://127.0.0.1:2"
    )
    assert certificates_of(own.http) is None


def test_without_settings_there_is_no_tls() -> None:
    assert certificates_of(load(environ={}).http) is None
    assert tls.LOOKED_AT_EVERY < 60


async def test_a_process_of_its_own_speaks_tls_when_its_environment_says_so(
    server: str, namespace: str, tmp_path: Path, authority: Authority, trusting: ssl.SSLContext
) -> None:
    http = {"port": 0, **authority.issue("server").http}
    settings = settings_of(server, namespace, tmp_path, http=http)
    with riacho("api", env=child_environment(settings), stderr=subprocess.PIPE) as process:
        assert process.stderr
        line = (await asyncio.to_thread(process.stderr.readline)).decode()
        found = re.fullmatch(r"listening on (https://127\.0\.0\.1:\d+)", json.loads(line)["message"])
        assert found, line
        assert await status(URL(found[1]), trusting) == 200
        assert await asyncio.to_thread(stop, process) == 0
        process.stderr.close()
