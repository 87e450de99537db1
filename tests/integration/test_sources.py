"""Fetching voice notes: a real HTTP server, WhatsApp's two steps, local folders; what can pass is no Permanent."""

import base64
import hashlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from pipeline import Permanent
from stages.audio.sources import AudioSources, GraphApi

pytestmark = pytest.mark.integration

LIMIT = 100_000
NOTE = bytes(range(256)) * 10
SECRET = "sig=hush"
TOKEN = "made-up-token"
LOOPBACK = ["127.0.0.0/8"]
DIGEST = hashlib.sha256(NOTE)


async def status(request: web.Request) -> web.Response:
    return web.Response(status=int(request.match_info["status"]), body=NOTE)


async def streamed(request: web.Request) -> web.StreamResponse:
    """As many bytes as the path says, in chunks, without a Content-Length."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(int(request.match_info["bytes"]) // 1_000):
        await response.write(b"x" * 1_000)
    return response


async def cut_short(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"x")
    assert request.transport
    request.transport.close()
    return response


async def empty(request: web.Request) -> web.Response:
    return web.Response()


async def redirect(request: web.Request) -> web.Response:
    raise web.HTTPFound(request.query["to"])


async def circle(request: web.Request) -> web.Response:
    raise web.HTTPFound(str(request.url))


async def media(request: web.Request) -> web.Response:
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        raise web.HTTPUnauthorized
    note = f"{request.url.origin()}/lookaside/good?{SECRET}"
    answers = {
        "good": f'{{"url": "{note}", "mime_type": "audio/ogg"}}'.encode(),
        "hex": f'{{"url": "{note}", "sha256": "{DIGEST.hexdigest()}", "file_size": {len(NOTE)}}}'.encode(),
        "base64": f'{{"url": "{note}", "sha256": "{base64.b64encode(DIGEST.digest()).decode()}"}}'.encode(),
        "size-as-text": f'{{"url": "{note}", "file_size": "{len(NOTE)}"}}'.encode(),
        "other-content": f'{{"url": "{note}", "sha256": "{"0" * 64}"}}'.encode(),
        "too-large": f'{{"url": "{note}", "file_size": {LIMIT + 1}}}'.encode(),
        "long-answer": b" " * LIMIT,
        "gone": f'{{"url": "{request.url.origin()}/404?{SECRET}"}}'.encode(),
        "ftp": f'{{"url": "ftp://example.com/?{SECRET}"}}'.encode(),
        "no-url": b'{"id": "1"}',
        "no-json": b"<html>",
        "no-utf-8": b'{"url": "\xc3"}',
    }
    return web.Response(body=answers[request.match_info["id"]])


async def lookaside(request: web.Request) -> web.Response:
    if request.headers.get("Authorization") != f"Bearer {TOKEN}" or request.query_string != SECRET:
        raise web.HTTPUnauthorized
    return web.Response(body=NOTE)


@pytest.fixture
async def server() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/streamed/{bytes}", streamed)
    app.router.add_get("/cut-short", cut_short)
    app.router.add_get("/empty", empty)
    app.router.add_get("/redirect", redirect)
    app.router.add_get("/circle", circle)
    app.router.add_get("/v26.0/{id}", media)
    app.router.add_get("/lookaside/good", lookaside)
    app.router.add_get("/{status:[0-9]+}", status)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def root(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "note.ogg").write_bytes(NOTE)
    (tmp_path / "outside.ogg").write_bytes(NOTE)
    return folder


@pytest.fixture
async def fetcher(server: str, root: Path) -> AsyncIterator[AudioSources]:
    graph = GraphApi(server, "v26.0", TOKEN)
    async with AudioSources(graph=graph, roots=[root], byte_limit=LIMIT, networks=LOOPBACK) as made:
        yield made


async def test_a_note_comes_over_http(fetcher: AudioSources, server: str) -> None:
    assert await fetcher.fetch(f"{server}/200?{SECRET}") == NOTE


async def test_a_redirect_is_followed(fetcher: AudioSources, server: str) -> None:
    assert await fetcher.fetch(f"{server}/redirect?to=/200") == NOTE


@pytest.mark.parametrize("answer", [204, 400, 401, 403, 404, 410])
async def test_an_answer_that_stays_is_permanent(fetcher: AudioSources, server: str, answer: int) -> None:
    with pytest.raises(Permanent, match=f"{server}/{answer}: it answered {answer}") as raised:
        await fetcher.fetch(f"{server}/{answer}?{SECRET}")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("answer", [408, 425, 429, 500, 502, 503])
async def test_an_answer_that_may_pass_is_worth_another_try(
    fetcher: AudioSources, server: str, answer: int
) -> None:
    with pytest.raises(ConnectionError, match=f"{server}/{answer} answered {answer}") as raised:
        await fetcher.fetch(f"{server}/{answer}?{SECRET}")
    assert SECRET not in str(raised.value)


async def test_a_lost_connection_is_worth_another_try(fetcher: AudioSources, server: str) -> None:
    with pytest.raises(ConnectionError) as cut:
        await fetcher.fetch(f"{server}/cut-short?{SECRET}")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionError) as refused:
        await fetcher.fetch(f"http://127.0.0.1:{port}/?{SECRET}")
    assert SECRET not in f"{cut.value} {refused.value}"


async def test_an_empty_body_is_permanent(fetcher: AudioSources, server: str) -> None:
    with pytest.raises(Permanent, match=f"the audio at {server}/empty is empty") as raised:
        await fetcher.fetch(f"{server}/empty?{SECRET}")
    assert SECRET not in str(raised.value)


async def test_a_body_over_the_limit_is_permanent(fetcher: AudioSources, server: str) -> None:
    with pytest.raises(Permanent, match="over the limit of 100,000 bytes") as raised:
        await fetcher.fetch(f"{server}/streamed/{LIMIT + 1_000}?{SECRET}")
    assert SECRET not in str(raised.value)


async def test_a_body_at_the_limit_is_taken(fetcher: AudioSources, server: str) -> None:
    assert len(await fetcher.fetch(f"{server}/streamed/{LIMIT}")) == LIMIT


@pytest.mark.parametrize(
    "url", ["http://", "http://[::1?{s}", "https://login:{s}@:99999/?{s}", "http://.x/?{s}", "http://x:y/#{s}"]
)
async def test_an_address_that_is_none_is_permanent(fetcher: AudioSources, url: str) -> None:
    with pytest.raises(Permanent, match="is no address") as raised:
        await fetcher.fetch(url.format(s=SECRET))
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (f"circle?{SECRET}", "redirects more than 5 times"),
        (f"redirect?to=ftp://example.com/{SECRET}", "is no address that audio can be had from, or leads to none"),
    ],
)
async def test_a_redirect_that_leads_nowhere_is_permanent(
    fetcher: AudioSources, server: str, path: str, reason: str
) -> None:
    with pytest.raises(Permanent, match=reason) as raised:
        await fetcher.fetch(f"{server}/{path}")
    assert SECRET not in str(raised.value)


async def test_a_tenant_with_a_token_of_its_own_fetches_with_that(server: str) -> None:
    of_tenant = {"shop": GraphApi(server, "v26.0", TOKEN)}
    common = GraphApi(server, "v26.0", "wrong")
    async with AudioSources(graph=common, graphs=of_tenant, roots=[], byte_limit=LIMIT) as fetcher:
        assert await fetcher.fetch("whatsapp:good", "shop") == NOTE
        with pytest.raises(Permanent):
            await fetcher.fetch("whatsapp:good", "another")


@pytest.mark.parametrize("media_id", ["good", "hex", "base64", "size-as-text"])
async def test_whatsapp_is_asked_for_the_address_and_then_for_the_note(
    fetcher: AudioSources, media_id: str
) -> None:
    assert await fetcher.fetch(f"whatsapp:{media_id}") == NOTE


async def test_content_that_whatsapp_did_not_announce_is_worth_another_try(fetcher: AudioSources) -> None:
    with pytest.raises(ConnectionError, match="other content than WhatsApp's sha256"):
        await fetcher.fetch("whatsapp:other-content")


async def test_a_note_announced_as_too_large_is_not_downloaded(fetcher: AudioSources) -> None:
    with pytest.raises(Permanent, match="media too-large has 100,001 bytes, over the limit of 100,000"):
        await fetcher.fetch("whatsapp:too-large")


async def test_an_answer_in_the_place_of_an_address_is_not_read_without_end(fetcher: AudioSources) -> None:
    with pytest.raises(Permanent, match="over the limit of 65,536 bytes"):
        await fetcher.fetch("whatsapp:long-answer")


async def test_without_the_right_token_whatsapp_gives_nothing(server: str) -> None:
    async with AudioSources(graph=GraphApi(server, "v26.0", "wrong"), roots=[], byte_limit=LIMIT) as fetcher:
        with pytest.raises(Permanent, match="401") as raised:
            await fetcher.fetch("whatsapp:good")
    assert "wrong" not in str(raised.value)


@pytest.mark.parametrize("answer", ["no-url", "no-json", "no-utf-8"])
async def test_whatsapps_answer_that_cannot_be_read_is_permanent(fetcher: AudioSources, answer: str) -> None:
    with pytest.raises(Permanent, match=f"WhatsApp's answer for media {answer} cannot be read"):
        await fetcher.fetch(f"whatsapp:{answer}")


@pytest.mark.parametrize("answer", ["gone", "ftp"])
async def test_a_note_that_whatsapp_no_longer_has_is_permanent(fetcher: AudioSources, answer: str) -> None:
    with pytest.raises(Permanent) as raised:
        await fetcher.fetch(f"whatsapp:{answer}")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "media_id", ["../200", "../lookaside/good?sig=hush", "x/../good", "..", "", "x%2Fy", "good?"]
)
async def test_a_media_id_leads_nowhere_else(fetcher: AudioSources, media_id: str) -> None:
    """The request carries our token; an id picks a medium, not an address."""
    with pytest.raises(Permanent, match="is no media id"):
        await fetcher.fetch(f"whatsapp:{media_id}")


@pytest.mark.parametrize("form", ["{root}/note.ogg", "file://{root}/note.ogg", "{root}/../notes/note.ogg"])
async def test_a_file_below_a_root_is_read(fetcher: AudioSources, root: Path, form: str) -> None:
    assert await fetcher.fetch(form.format(root=root)) == NOTE


async def test_a_link_that_stays_below_the_root_is_followed(fetcher: AudioSources, root: Path) -> None:
    (root / "link.ogg").symlink_to("note.ogg")
    assert await fetcher.fetch(f"{root}/link.ogg") == NOTE


@pytest.mark.parametrize(
    "path", ["{root}/../outside.ogg", "{root}-not/x.ogg", "/etc/passwd", "note.ogg", "~/x.ogg"]
)
async def test_a_file_outside_is_permanent(fetcher: AudioSources, root: Path, path: str) -> None:
    with pytest.raises(Permanent, match=r"below no folder that audio may come from; see the setting audio\.roots"):
        await fetcher.fetch(path.format(root=root))


async def test_links_do_not_lead_outside(fetcher: AudioSources, root: Path) -> None:
    (root / "file.ogg").symlink_to("../outside.ogg")
    (root / "folder").symlink_to("..")
    for path in ("file.ogg", "folder/outside.ogg"):
        with pytest.raises(Permanent, match="below no folder"):
            await fetcher.fetch(f"{root}/{path}")


async def test_without_roots_no_file_is_read(root: Path) -> None:
    async with AudioSources(graph=GraphApi("", "", ""), roots=[], byte_limit=LIMIT) as fetcher:
        with pytest.raises(Permanent, match="below no folder"):
            await fetcher.fetch(f"{root}/note.ogg")


@pytest.mark.parametrize(
    "path", [".", "missing.ogg", "note.ogg/deeper", "circle", "pipe", "a" * 300, "null\0byte"]
)
async def test_what_is_no_file_is_permanent(fetcher: AudioSources, root: Path, path: str) -> None:
    """A named pipe among them: it would be waited for without end."""
    (root / "circle").symlink_to("circle")
    os.mkfifo(root / "pipe")
    with pytest.raises(Permanent, match=r"no audio file|cannot be an audio file"):
        await fetcher.fetch(f"{root}/{path}")


async def test_an_empty_file_is_permanent(fetcher: AudioSources, root: Path) -> None:
    (root / "empty.ogg").touch()
    with pytest.raises(Permanent, match="is empty"):
        await fetcher.fetch(f"{root}/empty.ogg")


async def test_a_file_over_the_limit_is_permanent(fetcher: AudioSources, root: Path) -> None:
    (root / "full.ogg").write_bytes(b"x" * LIMIT)
    (root / "large.ogg").write_bytes(b"x" * (LIMIT + 1))
    assert len(await fetcher.fetch(f"{root}/full.ogg")) == LIMIT
    with pytest.raises(Permanent, match="over the limit"):
        await fetcher.fetch(f"{root}/large.ogg")


async def test_a_scheme_that_is_no_source_is_permanent(fetcher: AudioSources) -> None:
    with pytest.raises(Permanent, match="cannot be had by ftp; expected https, http, s3, whatsapp or a file"):
        await fetcher.fetch(f"ftp://example.com/?{SECRET}")
