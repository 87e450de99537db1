"""What is known of the tenant's shop, as the sync stages pulled it: a customer's orders, and prices."""

import re
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import NamedTuple

from pipeline.message import now_ms
from stages.conversation.rules import MARKS, RULES, occurs, plain
from stages.money import money
from stages.notification.phone import normalised
from stages.ports import Message
from stages.sync.records import Order, Product
from stages.sync.store import ShopStore
from stages.words import words_of

FAILED = "failed"  # its customer may have ordered anew, and paid that
UNPAID = {"pending", "on-hold", FAILED}
PAYABLE = 14 * 86_400_000  # ms after an order that a payment proof may be for it
MOST_ORDERS = 20  # of a customer; older ones are not asked for any more
MOST_TOLD = 3  # orders or products in one answer
MOST_FOUND = 20
MOST_WORDS = 12  # of a question that products are looked for by


class Wording(NamedTuple):
    """How a language asks (words as in `Rule.words`) and what is answered."""

    orders: str
    ordering: str  # is no question for orders that there are
    asks: str
    prices: str
    stock: str
    locale: str
    order: str
    no_order: str
    no_price: str
    sold_out: str
    statuses: dict[str, str]


WORDINGS = {
    "pt": Wording(
        orders="pedidos?|encomendas?|compras?|minha entrega",
        ordering="(?:quero|queria|gostaria de|posso|podia|como|para|vou) (?:fazer|pedir|encomendar)|fazer um",
        asks="status|situacao|andamento|rastreio|rastrear|rastreamento|cade|onde|quando|previsao|saiu|chegou|chega|"
        "enviado|enviaram|pronto|a caminho|como (?:esta|vai|anda)",
        prices="quanto custa|quanto custam|quanto e|quanto sai|quanto fica|quanto esta|precos?|valor|valores",
        stock="tem|tens|vendem?|disponivel|estoque",
        locale="pt_BR",
        order="Pedido {number} ({total}): {status}.",
        no_order="Não encontrei pedidos com este número de telefone. Um atendente vai conferir e já responde.",
        no_price="preço sob consulta",
        sold_out="esgotado",
        statuses={
            "pending": "aguardando o pagamento",
            "on-hold": "aguardando a confirmação do pagamento",
            "processing": "pago, em preparação",
            "completed": "concluído",
            "cancelled": "cancelado",
            "refunded": "reembolsado",
            "failed": "o pagamento não foi aceito",
        },
    ),
    "es": Wording(
        orders="pedidos?|encargos?|compras?|mi envio|mi entrega",
        ordering="(?:quiero|quisiera|puedo|como|para|voy a) (?:hacer|pedir|encargar)|hacer un",
        asks="estado|seguimiento|donde|cuando|salio|llego|llega|enviado|enviaron|listo|en camino|como (?:esta|va)",
        prices="cuanto cuesta|cuanto cuestan|cuanto vale|cuanto valen|cuanto es|precios?",
        stock="tienen?|hay|venden?|disponible|existencias",
        locale="es",
        order="Pedido {number} ({total}): {status}.",
        no_order="No encontré pedidos con este número de teléfono. Alguien lo revisa y le responde enseguida.",
        no_price="precio a consultar",
        sold_out="agotado",
        statuses={
            "pending": "pendiente de pago",
            "on-hold": "a la espera de que se confirme el pago",
            "processing": "pagado, en preparación",
            "completed": "completado",
            "cancelled": "cancelado",
            "refunded": "reembolsado",
            "failed": "el pago no fue aceptado",
        },
    ),
    "en": Wording(
        orders="orders?|purchases?|my delivery|my package",
        ordering="can i order|to order|place an order",
        asks="status|track|tracking|where|when|shipped|sent|arrived?|arriving|ready|on its way|how is",
        prices="how much|prices?|costs?",
        stock="have|sell|available|in stock",
        locale="en",
        order="Order {number} ({total}): {status}.",
        no_order="I found no orders under this phone number. Someone will look into it and answer shortly.",
        no_price="price on request",
        sold_out="sold out",
        statuses={
            "pending": "waiting for payment",
            "on-hold": "waiting for the payment to be confirmed",
            "processing": "paid, being prepared",
            "completed": "completed",
            "cancelled": "cancelled",
            "refunded": "refunded",
            "failed": "the payment was not accepted",
        },
    ),
}

ASKED = (
    "quanto quantos custa custam preco precos valor valores qual quais do da dos das sem "
    "cuanto cuesta cuestan vale valen precio precios cual cuales sin "
    "how much price prices cost costs what which in"
)


class ShopAnswers:
    """Answers from the store for tenants that have a shop; of a customer's orders only to them, by the number
    that WhatsApp has of them."""

    def __init__(self, store: ShopStore, tenants: Collection[str]) -> None:
        self._store, self._tenants = store, tenants

    async def answer(self, asked: Message, language: str) -> str:
        """To a question for orders, prices or stock; empty where it is none, or nothing is known. Raises
        StoreUnavailable."""
        if asked.tenant not in self._tenants:
            return ""
        wording, text = WORDINGS[language], plain(asked.text)
        if occurs(RULES[language][0].words, text):  # who has paid wants something else to be said
            return ""
        of_orders = occurs(wording.orders, text) and occurs(wording.asks, text)
        if of_orders and not occurs(wording.ordering, text):
            return await self._of_orders(asked, wording)
        if occurs(f"{wording.prices}|{wording.stock}", text):
            return "\n".join(_offer(product, wording) for product in await self.products(asked, least=0.5))
        return ""

    async def facts(self, asked: Message) -> str:
        """What a language model is to know before it answers; empty for a tenant without a shop."""
        if asked.tenant not in self._tenants:
            return ""
        orders = await self.orders(asked.tenant, asked.chat)
        known = [_fact_of_order(order) for order in orders[:MOST_TOLD]] or ["none"]
        priced = [_fact_of_product(product) for product in await self.products(asked)] or ["none"]
        return "\n".join(
            [
                "What the shop's own records say. Make up no orders, prices or stock beyond them.",
                "This customer's orders, newest first (number, status, total, content):",
                *known,
                "Products whose names have words of the question (name, price, stock):",
                *priced,
            ]
        )

    async def orders(self, tenant: str, chat: str) -> list[Order]:
        """A customer's, newest first; none where the tenant has no shop."""
        if tenant not in self._tenants:
            return []
        try:
            phone = normalised(chat, "")
        except ValueError:
            return []
        return await self._store.orders_of(tenant, phone, MOST_ORDERS)

    async def unpaid(self, tenant: str, chat: str) -> list[Order]:
        """Those of a customer's orders that a payment proof may be for, newest first."""
        since = now_ms() - PAYABLE
        found = [order for order in await self.orders(tenant, chat) if order.created_ms > since]
        paid = max((order.created_ms for order in found if order.paid_ms), default=0)
        open_ = [order for order in found if order.paid_ms is None and order.status in UNPAID]
        return [order for order in open_ if order.status != FAILED or order.created_ms > paid]

    async def products(self, asked: Message, least: float = 0.0) -> list[Product]:
        """Those that have most of the question's words in their names, and more than this part of them."""
        wanted = [word for word in dict.fromkeys(words_of(asked.text)) if word not in COMMON][:MOST_WORDS]
        forms = {word: _forms(word) for word in wanted}
        every = [form for word in wanted for form in forms[word]]
        found = await self._store.products_named(asked.tenant, every, MOST_FOUND)
        scores = {product.id: _score(product, list(forms.values())) for product in found}
        best = max(scores.values(), default=0)
        if best <= least * len(wanted):
            return []
        return [product for product in found if scores[product.id] == best][:MOST_TOLD]

    async def _of_orders(self, asked: Message, wording: Wording) -> str:
        orders = await self.orders(asked.tenant, asked.chat)
        told = named(orders, asked.text) or orders[:MOST_TOLD]
        return "\n".join(_line(order, wording) for order in told) or wording.no_order


def named(orders: Sequence[Order], text: str) -> list[Order]:
    """Those whose number is in a text."""
    return [order for order in orders if re.search(rf"(?<!\w){re.escape(order.number)}(?!\w)", text)]


def _line(order: Order, wording: Wording) -> str:
    status = wording.statuses.get(order.status, order.status.replace("-", " "))
    total = money(Decimal(order.total), order.currency, wording.locale)
    return wording.order.format(number=order.number, total=total, status=status)


def _offer(product: Product, wording: Wording) -> str:
    price = money(Decimal(product.price), product.currency, wording.locale) if product.price else wording.no_price
    ended = "" if product.available else f" ({wording.sold_out})"
    return f"{product.name}: {price}{ended}\n{product.url}".rstrip()


def _fact_of_order(order: Order) -> str:
    content = ", ".join(f"{item.quantity:g} x {item.name}" for item in order.items[:MOST_FOUND])
    return f"- {order.number}, {order.status}, {order.total} {order.currency}, {content}"


def _fact_of_product(product: Product) -> str:
    left = "in stock" if product.stock is None else f"{product.stock} left"
    stock = left if product.available else "sold out"
    return f"- {product.name}, {product.price or '?'} {product.currency}, {stock}, {product.url}"


def _forms(word: str) -> set[str]:
    """Of one and of several, as most words have them."""
    one = word.removesuffix("s")
    return {one, f"{one}s"} if len(one) > 1 else {word}


def _score(product: Product, wanted: Sequence[set[str]]) -> int:
    name = set(words_of(product.name))
    return sum(not name.isdisjoint(forms) for forms in wanted)


def _common() -> frozenset[str]:
    """Words that no product is looked for by."""
    said = [*MARKS.values(), *(wording.stock for wording in WORDINGS.values())]
    said += [rule.words for rules in RULES.values() for rule in rules[2:]]
    return frozenset(re.findall(r"\w+", " ".join([*said, ASKED])))


COMMON = _common()
