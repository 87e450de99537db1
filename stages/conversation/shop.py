"""What is known of the tenant's shop, as the sync stages pulled it: a customer's orders, and prices."""

import re
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import NamedTuple

from pipeline.message import now_ms
from stages.conversation.rules import MARKS, RULES, Topic, occurs, plain, topic_of
from stages.money import money
from stages.notification.phone import normalised
from stages.ports import Message
from stages.sync.records import Order, Product
from stages.sync.store import ShopStore
from stages.words import words_of

FAILED = "failed"
UNPAID = {"pending", "on-hold", FAILED}
ENDED = {"completed", "cancelled", "refunded", FAILED}
PAYABLE = 14 * 86_400_000  # ms after an order that a payment proof may be for it
MOST_ORDERS = 20  # of a customer; older ones are not asked for any more
MOST_TOLD = 3  # orders or products in one answer
MOST_FOUND = 20
MOST_WORDS = 12  # of a question that products are looked for by
UNDER_WAY = 30 * 86_400_000  # ms after an order that a question without its name may be for it
SMALL_TALK: tuple[Topic, ...] = ("order", "delivery", "hours", "thanks", "greeting")
LEFT: set[Topic | None] = {"complaint", "human", "content"}  # topics that want more than records
# What is asked for without something is no other product, whoever may be allergic.
EXCLUDING = r"sem|sin|zero|vegan[oa]s?|integral|diet|light|without|vegan|free"


class Unpaid(NamedTuple):
    """Orders that are not paid, newest first. Who paid a later one has likely given up the earlier."""

    all: list[Order]
    likely: list[Order]


class Wording(NamedTuple):
    """How a language asks (words as in `Rule.words`) and what is answered."""

    orders: str
    ordering: str  # is no question for orders that there are
    asks: str
    awaits: str  # is a question for the order under way, though it has no word for it
    stock: str
    locale: str
    order: str
    no_order: str
    other_order: str
    nearest: str
    no_price: str
    lowest: str
    sold_out: str
    statuses: dict[str, str]


WORDINGS = {
    "pt": Wording(
        orders="pedidos?|encomendas?|compras?|minha entrega",
        ordering="(?:quero|queria|gostaria de|posso|podia|como|para|vou) (?:fazer|pedir|encomendar)|fazer um",
        asks="status|situacao|andamento|rastreio|rastrear|rastreamento|cade|kd|onde|quando|previsao|saiu|chegou|chega|"
        "enviad[oa]|enviaram|pront[oa]|a caminho|confirmad[oa]|atrasad[oa]|demora|recebi|total|quanto deu|"
        "como (?:esta|vai|anda)|valor do meu",
        awaits="rastreio|rastrear|rastreamento|ja saiu|saiu para entrega|quando (?:vai )?chegar?|ja enviaram|"
        "nao (?:chegou|recebi)|a caminho",
        stock="tem|tens|vendem?|disponivel|estoque",
        locale="pt_BR",
        order="Pedido {number} ({total}): {status}.",
        no_order="Não encontrei pedidos com este número de telefone. Um atendente vai conferir e já responde.",
        other_order="Não encontrei o pedido {number} com este número de telefone.",
        nearest="O mais parecido que encontrei:",
        no_price="preço sob consulta",
        lowest="a partir de {price}",
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
        asks="estado|seguimiento|donde|cuando|salio|llego|llega|llegado|enviad[oa]|enviaron|list[oa]|en camino|"
        "confirmad[oa]|demora|recibi|recibido|total|como (?:esta|va)",
        awaits="seguimiento|rastreo|ya salio|cuando (?:va a )?llegar?|ya enviaron|no (?:ha )?llego|no ha llegado|"
        "no (?:lo )?recibi|en camino",
        stock="tienen?|hay|venden?|disponible|existencias",
        locale="es",
        order="Pedido {number} ({total}): {status}.",
        no_order="No encontré pedidos con este número de teléfono. Alguien lo revisa y le responde enseguida.",
        other_order="No encontré el pedido {number} con este número de teléfono.",
        nearest="Lo más parecido que encontré:",
        no_price="precio a consultar",
        lowest="desde {price}",
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
        asks="status|track|tracking|where|where's|when|shipped|sent|arrived?|arriving|ready|on its way|how is|"
        "confirmed|late|received?|total",
        awaits="track|tracking|has it (?:shipped|been sent)|when will it arrive|(?:not|hasn't|didn't|hasnt|didnt) "
        "arrived?|on its way",
        stock="have|sell|available|in stock",
        locale="en",
        order="Order {number} ({total}): {status}.",
        no_order="I found no orders under this phone number. Someone will look into it and answer shortly.",
        other_order="I found no order {number} under this phone number.",
        nearest="The nearest I found:",
        no_price="price on request",
        lowest="from {price}",
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
    "quanto qnto qto quantos custa custam sai fica ta preco precos valor valores qual quais do da dos das "
    "tudo bem ainda hj por favor pfv aqui saber amanha tamanho cor "
    "cuanto cuesta cuestan vale valen sale salen precio precios cual cuales "
    "how much price prices cost costs what which in there please is are it size color colour"
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
        topic = topic_of(language, text)
        if topic in LEFT or (topic == "paid" and "?" not in asked.text):
            return ""
        if occurs(wording.orders, text) and occurs(wording.asks, text) and not occurs(wording.ordering, text):
            return await self._of_orders(asked, wording, text)
        if occurs(wording.awaits, text) and (told := await self._under_way(asked, wording)):
            return told
        if topic != "paying" and occurs(f"{RULES[language]['price'].words}|{wording.stock}", text):
            return await self._of_products(asked, wording, text)
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

    async def unpaid(self, tenant: str, chat: str) -> Unpaid:
        """Those of a customer's orders that a payment proof may be for."""
        since = now_ms() - PAYABLE
        found = [order for order in await self.orders(tenant, chat) if order.created_ms > since]
        paid = max((order.created_ms for order in found if order.paid_ms), default=0)
        open_ = [order for order in found if order.paid_ms is None and order.status in UNPAID]
        since_paid = [order for order in open_ if order.created_ms > paid]
        return Unpaid([order for order in open_ if order.status != FAILED or order in since_paid], since_paid)

    async def products(self, asked: Message) -> list[Product]:
        """Those that have most of the question's words in their names, and at least one."""
        return (await self._found(asked.tenant, _wanted(asked.text)))[0]

    async def _found(self, tenant: str, wanted: Sequence[str]) -> tuple[list[Product], int]:
        """Those that have most of these words in their names, and how many that is."""
        forms = [_forms(word) for word in wanted]
        found = await self._store.products_named(tenant, [form for each in forms for form in each], MOST_FOUND)
        scores = {product.id: _score(product, forms) for product in found}
        best = max(scores.values(), default=0)
        return [product for product in found if best and scores[product.id] == best][:MOST_TOLD], best

    async def _of_products(self, asked: Message, wording: Wording, text: str) -> str:
        wanted = _wanted(asked.text)
        found, words = await self._found(asked.tenant, wanted)
        if words == len(wanted) and found:
            return "\n".join(_offer(product, wording) for product in found)
        if words <= len(wanted) / 2 or occurs(EXCLUDING, text):
            return ""
        return "\n".join([wording.nearest, *(_offer(product, wording) for product in found)])

    async def _of_orders(self, asked: Message, wording: Wording, text: str) -> str:
        orders = await self.orders(asked.tenant, asked.chat)
        if not orders:
            return wording.no_order
        if meant := named(orders, asked.text):
            return "\n".join(_line(order, wording) for order in meant)
        other = re.search(rf"\b(?:{wording.orders})(?: n| no| numero| number)? (\d{{2,20}})\b", text)
        told = [wording.other_order.format(number=other[1])] if other else []
        return "\n".join([*told, *(_line(order, wording) for order in orders[:MOST_TOLD])])

    async def _under_way(self, asked: Message, wording: Wording) -> str:
        since = now_ms() - UNDER_WAY
        orders = await self.orders(asked.tenant, asked.chat)
        open_ = [order for order in orders if order.status not in ENDED and order.created_ms > since]
        return "\n".join(_line(order, wording) for order in open_[:MOST_TOLD])


def named(orders: Sequence[Order], text: str) -> list[Order]:
    """Those whose number is in a text."""
    return [order for order in orders if re.search(rf"(?<!\w){re.escape(order.number)}(?!\w)", text)]


def _line(order: Order, wording: Wording) -> str:
    status = wording.statuses.get(order.status, order.status.replace("-", " "))
    total = money(Decimal(order.total), order.currency, wording.locale)
    return wording.order.format(number=order.number, total=total, status=status)


def _offer(product: Product, wording: Wording) -> str:
    price = money(Decimal(product.price), product.currency, wording.locale) if product.price else wording.no_price
    price = wording.lowest.format(price=price) if product.varies and product.price else price
    ended = "" if product.available else f" ({wording.sold_out})"
    return f"{product.name}: {price}{ended}\n{product.url}".rstrip()


def _fact_of_order(order: Order) -> str:
    content = ", ".join(f"{item.quantity:g} x {item.name}" for item in order.items[:MOST_FOUND])
    return f"- {order.number}, {order.status}, {order.total} {order.currency}, {content}"


def _fact_of_product(product: Product) -> str:
    left = "in stock" if product.stock is None else f"{product.stock} left"
    stock = left if product.available else "sold out"
    lowest = "from " if product.varies else ""
    return f"- {product.name}, {lowest}{product.price or '?'} {product.currency}, {stock}, {product.url}"


def _wanted(text: str) -> list[str]:
    """Words of a question that products may be named by."""
    return [word for word in dict.fromkeys(words_of(text)) if word not in COMMON][:MOST_WORDS]


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
    said += [rules[topic].words for rules in RULES.values() for topic in SMALL_TALK]
    return frozenset(re.findall(r"\w+", " ".join([*said, ASKED])))


COMMON = _common()
