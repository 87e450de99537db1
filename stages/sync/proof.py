"""The stage `sync.proof`: a payment proof from the chat into the shop's media, and a note of it to its order."""

import hashlib
import hmac
import logging
from collections.abc import Mapping
from html import escape

import msgspec

from pipeline import Context, Done, Permanent, RetryLater
from pipeline.message import now_ms
from stages.jobs import Proof, PushOrder
from stages.ports import AudioSource
from stages.sync.errors import ShopAway, ShopError, pause_since
from stages.sync.pull import shop_of
from stages.sync.rest import File, Shop, WordPress
from stages.sync.store import ShopStore

log = logging.getLogger(__name__)

MEDIA = "wp/v2/media"
PATIENCE = 86_400_000  # ms to have the file in, before it is noted without
LONGEST_NOTE = 2_000  # characters, see PushOrder
# By how a file begins: what else a customer sends does not get into the shop.
KINDS = {
    b"\xff\xd8\xff": ("image/jpeg", "jpg"),
    b"\x89PNG\r\n\x1a\n": ("image/png", "png"),
    b"%PDF-": ("application/pdf", "pdf"),
}
UNPAID = ["pending", "on-hold", "failed"]  # who knows what a plugin's own statuses mean


class _Media(msgspec.Struct):
    source_url: str


class ProofHandler:
    """Keeps the file among the shop's media, where there is a login for that: `private`, so that nobody is shown
    it, under a name that nobody guesses. A file that cannot be kept leaves the order with a note all the same.
    The order gets `status`, if it is known whose proof it is."""

    def __init__(
        self, shops: Mapping[str, Shop], wordpress: WordPress, store: ShopStore, source: AudioSource, status: str
    ) -> None:
        self._shops, self._wordpress, self._store = shops, wordpress, store
        self._source, self._status = source, status

    async def __call__(self, ctx: Context, job: Proof) -> Done:
        shop, link, problem = shop_of(self._shops, ctx.tenant), "", ""
        if shop.user and shop.password:
            try:
                link = await self._kept(ctx, shop, job)
                if not job.others:
                    await self._store.proved(ctx.tenant, job.order, link)
            except ShopAway as error:
                raise RetryLater(error.pause(ctx.enqueued_ms), str(error)) from None
            except (ShopError, Permanent, OSError) as error:
                if isinstance(error, OSError) and now_ms() - ctx.enqueued_ms < PATIENCE:  # WhatsApp is away
                    raise RetryLater(pause_since(ctx.enqueued_ms), str(error)) from None
                problem = str(error)
                log.warning("the payment proof of order %s is noted without its file: %s", job.order, problem)
        status = "" if job.others else self._status
        push = PushOrder(id=job.order, note=_note(job, link, problem), status=status, only=UNPAID)
        return Done({"link": link, "problem": problem}, forward=(ctx.forward("push-order", push),))

    async def _kept(self, ctx: Context, shop: Shop, job: Proof) -> str:
        """Where the file is in the shop. A job that comes again finds it by its name."""
        mark = hmac.new(shop.password.encode(), str(ctx.job_id).encode(), hashlib.sha256).hexdigest()
        name = f"proof-{mark[:32]}"
        query = {"slug": name, "status": "private", "_fields": "source_url"}
        if there := await self._wordpress.get(shop, MEDIA, query, list[_Media]):
            return there[0].source_url
        file = _file(name, await self._source.fetch(job.attachment.source, ctx.tenant))
        query = {"status": "private", "slug": name, "title": f"Order {job.order}: payment proof"}
        return (await self._wordpress.upload(shop, MEDIA, query, file, _Media)).source_url


def _file(name: str, content: bytes) -> File:
    for beginning, (kind, ending) in KINDS.items():
        if content.startswith(beginning):
            return File(f"{name}.{ending}", kind, content)
    raise Permanent("the file is no JPEG, PNG or PDF")


def _note(job: Proof, link: str, problem: str) -> str:
    """In Portuguese, as all that is said to the shop's people. WordPress shows it as HTML."""
    said = [f"Comprovante de pagamento recebido por WhatsApp de {job.chat}."]
    said += [f"Legenda: {escape(job.attachment.caption[:500])}"] if job.attachment.caption else []
    said += [f"Arquivo: {link}"] if link else []
    said += [f"O arquivo não pôde ser guardado: {escape(problem[:300])}"] if problem else []
    said += [f"Pode ser também de: {', '.join(job.others)}."] if job.others else []
    return "\n".join(said)[:LONGEST_NOTE]
