"""Payment proofs that customers send: images and documents, while they have an order that is not paid."""

from collections.abc import Sequence

from pipeline import Context, Job
from stages.conversation.rules import language_of, occurs, plain, topic_of
from stages.conversation.shop import ShopAnswers, named
from stages.jobs import ProcessConversation, Proof
from stages.ports import Message

PAYING = (
    "pix|pagamento|paguei|pago|pague|comprovante|recibo|boleto|transferencia|deposito|comprobante|"
    "paid|payment|receipt|transfer|deposit"
)
RECEIVED = {
    "pt": "Recebemos o comprovante do pedido {number}. Vamos conferir o pagamento e já confirmamos!",
    "es": "Recibimos el comprobante del pedido {number}. ¡Revisamos el pago y le confirmamos enseguida!",
    "en": "We received the payment proof of order {number}. We will check it and confirm shortly!",
}


class Proofs:
    """Hands on what is likely a payment proof: an attachment without words, or with words of paying."""

    def __init__(self, shop: ShopAnswers) -> None:
        self._shop = shop

    async def take(self, ctx: Context, job: ProcessConversation, history: Sequence[Message]) -> str:
        """The answer to the customer, once the proof is durable on its way; empty where it is none."""
        attachment, said = job.attachment, job.message
        language, text = language_of(history), plain(job.text)
        if attachment is None or topic_of(language, text) == "complaint":
            return ""
        unpaid = await self._shop.unpaid(ctx.tenant, said.chat)
        meant = named(unpaid.all, job.text)
        if attachment.caption and not meant and not occurs(PAYING, text):
            return ""
        if not (meant or unpaid.likely):
            return ""
        order, *others = meant or unpaid.likely
        unsure = [] if meant else [other.number for other in others]
        proof = Proof(order=order.id, chat=said.chat, attachment=attachment, others=unsure)
        # By the chat, not by the order: which that is may have changed where this job comes again.
        place, once = f"{ctx.tenant}:{said.chat}", f"proof:{ctx.tenant}:{said.chat}:{said.id}"
        await ctx.add(Job(stage="proof", payload=proof, tenant=ctx.tenant, key=place, dedup=once))
        return RECEIVED[language].format(number=order.number)
