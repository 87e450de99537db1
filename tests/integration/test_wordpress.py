"""Payment proofs in a real WordPress, by its core REST API and an application password; where it is installed."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from stages.health.shops import ShopsCheck
from stages.jobs import Attachment, Proof, PushOrder
from stages.store import Database, sqlite_file
from stages.sync.errors import RecordRefused, ShopClosed
from stages.sync.proof import MEDIA, ProofHandler
from stages.sync.rest import File, Shop, WordPress
from stages.sync.store import ShopStore
from tests.support import context_of
from tests.wordpress import NotInstalled, Site, running

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
PROOF = Proof(7, "5511987654321", Attachment("whatsapp:1", "document"))


class Files:
    async def fetch(self, *_: str) -> bytes:
        return PDF


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    try:
        with running(tmp_path_factory.mktemp("wordpress")) as site:
            yield site
    except NotInstalled as error:
        pytest.skip(str(error))


@pytest.fixture
def shop(site: Site) -> Shop:
    return Shop("padaria", site.url, user=site.user, password=site.password)


@pytest_asyncio.fixture
async def wordpress() -> AsyncIterator[WordPress]:
    async with WordPress(timeout=20) as client:
        yield client


async def test_a_proof_is_there_for_who_has_its_address_and_listed_to_nobody(
    shop: Shop, wordpress: WordPress, tmp_path: Any
) -> None:
    async with Database(sqlite_file(tmp_path / "riacho.db")) as database:
        handler = ProofHandler({"padaria": shop}, wordpress, ShopStore(database), Files(), "on-hold")
        links = []
        for _ in range(2):  # the second time the job comes again
            (job,) = (await handler(context_of("proof", PROOF, tenant="padaria"), PROOF)).forward
            assert isinstance(job.payload, PushOrder)
            links.append(job.payload.note.splitlines()[1].removeprefix("Arquivo: "))
    assert links[0] == links[1]
    assert links[0].startswith(f"{shop.url}/wp-content/uploads/")
    async with aiohttp.ClientSession() as nobody:
        async with nobody.get(links[0]) as answer:
            assert await answer.read() == PDF
        async with nobody.get(f"{shop.url}/wp-json/wp/v2/media") as answer:
            assert await answer.json() == []
    ours = await wordpress.page(shop, MEDIA, {"status": "private", "_fields": "id,title,status"})
    (kept,) = (msgspec.json.decode(record) for record in ours.records)
    assert (kept["status"], kept["title"]["rendered"]) == ("private", "Private: Order 7: payment proof")
    assert (ours.pages, ours.total) == (1, 1)


async def test_what_wordpress_refuses_is_named(shop: Shop, wordpress: WordPress) -> None:
    program = File("harmless.php", "application/x-php", b"<?php echo 1;")
    with pytest.raises(RecordRefused, match=r"not allowed to upload this file type"):
        await wordpress.upload(shop, MEDIA, {}, program, dict)


async def test_another_password_is_refused_and_shows_nowhere(shop: Shop, wordpress: WordPress) -> None:
    wrong = msgspec.structs.replace(shop, password="guessed-it")
    with pytest.raises(ShopClosed) as raised:
        await wordpress.get(wrong, "wp/v2/users/me", {}, dict)
    assert "guessed-it" not in str(raised.value)
    assert "sync.shops.padaria" in str(raised.value)


async def test_the_health_check_knows_a_user_that_is_good(shop: Shop) -> None:
    found = await ShopsCheck({"padaria": msgspec.structs.replace(shop, key="ck_1", secret="cs_1")})()
    assert [finding.state for finding in found] == ["ok", "failed"], "WooCommerce is not installed there"
    assert "rest_no_route" in found[1].detail
