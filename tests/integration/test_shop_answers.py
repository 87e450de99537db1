"""What a customer is answered of orders, prices and stock, and what becomes of the payment proofs they send."""

import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from pipeline import Done, Job, JobId, Permanent, RetryLater
from stages.conversation.language_model import LanguageModel
from stages.conversation.process import ConversationHandler
from stages.conversation.proof import Proofs
from stages.conversation.rules import RULES, UNSURE, RuleResponder
from stages.conversation.shop import WORDINGS, ShopAnswers
from stages.conversation.store import ConversationStore
from stages.jobs import Attachment, Incoming, ProcessConversation, Proof, PushOrder
from stages.ports import Message
from stages.store import Database
from stages.sync import proof
from stages.sync.proof import ProofHandler
from stages.sync.records import Item, Order, Product
from stages.sync.rest import Shop as Address
from stages.sync.rest import WordPress
from stages.sync.store import ShopStore
from tests.support import context_of
from tests.woocommerce import KEY, PASSWORD, SECRET, USER, Shop, problem

pytestmark = pytest.mark.integration

ANA, BIA = "5511987654321", "5511900000001"
NOW = int(time.time() * 1000)
JPEG = b"\xff\xd8\xff\xe0 a photograph"


def order(number: int, status: str = "processing", phone: str = ANA, **fields: Any) -> Order:
    plain: dict[str, Any] = {
        "id": number,
        "number": str(number),
        "status": status,
        "phone": f"+{phone}",
        "customer": "Ana Souza",
        "email": "",
        "total": "1234.5",
        "currency": "BRL",
        "items": (Item("Bolo de cenoura", 2, "1234.5"),),
        "created_ms": NOW + number,
        "modified_ms": NOW + number,
        "paid_ms": NOW if status in ("processing", "completed") else None,
    }
    return Order(**plain | fields)


def product(number: int, name: str, price: str | None = "45", **fields: Any) -> Product:
    plain: dict[str, Any] = {
        "id": number,
        "name": name,
        "sku": "",
        "price": price,
        "regular_price": price,
        "currency": "BRL",
        "stock": None,
        "available": True,
        "published": True,
        "varies": False,
        "url": f"https://shop.example/p/{number}",
        "about": "",
        "modified_ms": NOW,
    }
    return Product(**plain | fields)


def asked(text: str, chat: str = ANA, tenant: str = "padaria") -> Message:
    return Message(tenant, chat, "wamid.1", "in", text, NOW)


@pytest.fixture
def store(database: Database) -> ShopStore:
    return ShopStore(database)


@pytest.fixture
def answers(store: ShopStore) -> ShopAnswers:
    return ShopAnswers(store, {"padaria"})


async def has(store: ShopStore, *records: Order | Product) -> None:
    for record in records:
        await store.keep_one("padaria", "orders" if isinstance(record, Order) else "products", record)


async def reply(answers: ShopAnswers, text: str, **other: str) -> str:
    return await RuleResponder(answers).reply([asked(text, **other)])


# ── orders ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Oi, cadê o meu pedido?", "Pedido 7 (R$ 1.234,50): pago, em preparação."),
        ("¿Dónde está mi pedido, por favor?", "Pedido 7 (1.234,50 BRL): pagado, en preparación."),
        ("Where is my order?", "Order 7 (R$1,234.50): paid, being prepared."),
    ],
)
async def test_the_state_of_an_order_is_said_in_the_customers_language(
    store: ShopStore, answers: ShopAnswers, text: str, said: str
) -> None:
    await has(store, order(7))
    assert await reply(answers, text) == said


async def test_the_latest_orders_are_told_or_the_one_that_is_named(store: ShopStore, answers: ShopAnswers) -> None:
    await has(store, *(order(number, "completed") for number in range(1, 6)), order(6, "on-hold"))
    lines = (await reply(answers, "Qual o status dos meus pedidos?")).splitlines()
    assert [line.split()[1] for line in lines] == ["6", "5", "4"]
    assert lines[0].endswith("aguardando a confirmação do pagamento.")
    assert (await reply(answers, "Qual o status do pedido 2?")).startswith("Pedido 2 ")


async def test_nobody_is_told_of_anothers_order(store: ShopStore, answers: ShopAnswers) -> None:
    await has(store, order(7, phone=ANA))
    for chat in (BIA, "BR.1234", "x"):
        assert await reply(answers, "Qual o status do pedido 7?", chat=chat) == WORDINGS["pt"].no_order
    assert await reply(answers, "Qual o status do pedido 7?", tenant="farmacia") == RULES["pt"]["order"].answer


async def test_a_number_in_its_older_form_is_the_same_customer(store: ShopStore, answers: ShopAnswers) -> None:
    await has(store, order(7))
    assert "Pedido 7" in await reply(answers, "Cadê meu pedido?", chat="551187654321")


@pytest.mark.parametrize("written", ["+541123456789", "+5491123456789"])
async def test_argentinas_mobile_numbers_are_known_without_their_nine(
    store: ShopStore, answers: ShopAnswers, written: str
) -> None:
    await has(store, order(7, phone=written.removeprefix("+")))
    assert "Pedido 7" in await reply(answers, "Cadê meu pedido?", chat="5491123456789")


async def test_a_status_that_a_plugin_brought_is_said_as_it_is_called(
    store: ShopStore, answers: ShopAnswers
) -> None:
    await has(store, order(7, "out-for-delivery"))
    assert await reply(answers, "Cadê meu pedido?") == "Pedido 7 (R$ 1.234,50): out for delivery."


@pytest.mark.parametrize("text", ["Paguei o valor do bolo por pix", "Pix do pedido enviado"])
async def test_who_has_paid_is_thanked(store: ShopStore, answers: ShopAnswers, text: str) -> None:
    await has(store, order(7, "pending"), product(1, "Bolo"))
    assert await reply(answers, text) == RULES["pt"]["paid"].answer


async def test_an_order_that_was_just_made_is_asked_for(store: ShopStore, answers: ShopAnswers) -> None:
    await has(store, order(7))
    assert "Pedido 7" in await reply(answers, "Cadê o pedido que acabei de fazer?")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Já paguei o pedido, quando chega?", "Pedido 7 "),
        ("Quando chega?", "Pedido 7 "),
        ("qual o código de rastreio", "Pedido 7 "),
        ("kd meu pedido", "Pedido 7 "),
        ("Quanto deu meu pedido?", "Pedido 7 "),
        ("Mi pedido no ha llegado", "Pedido 7 "),
        ("My order hasn't arrived yet", "Order 7 "),
        ("Meu pedido chegou errado", RULES["pt"]["complaint"].answer),
        ("Meu pedido foi cancelado, por quê?", RULES["pt"]["complaint"].answer),
        ("My order arrived broken", RULES["en"]["complaint"].answer),
        ("Obrigada, chegou certinho o meu pedido!", RULES["pt"]["content"].answer),
    ],
)
async def test_what_is_asked_for_is_understood_however_it_is_put(
    store: ShopStore, answers: ShopAnswers, text: str, told: str
) -> None:
    await has(store, order(7))
    assert (await reply(answers, text)).startswith(told)


async def test_an_order_that_has_ended_is_not_on_its_way(store: ShopStore, answers: ShopAnswers) -> None:
    await has(store, order(7, "completed"), order(8, created_ms=NOW - 31 * 86_400_000))
    assert await reply(answers, "Quando chega?") == UNSURE["pt"]


async def test_a_number_that_none_of_their_orders_has_is_said(store: ShopStore, answers: ShopAnswers) -> None:
    await has(store, order(7))
    first, second = (await reply(answers, "Cadê o pedido nº 1234?")).splitlines()
    assert first == "Não encontrei o pedido 1234 com este número de telefone."
    assert second.startswith("Pedido 7 ")


@pytest.mark.parametrize("text", ["Quero um pedido de duas pizzas", "Quando posso fazer um pedido?"])
async def test_who_wants_to_order_is_not_told_of_orders(store: ShopStore, answers: ShopAnswers, text: str) -> None:
    await has(store, order(7))
    assert await reply(answers, text) == RULES["pt"]["order"].answer


async def test_a_question_for_delivery_is_none_for_an_order(answers: ShopAnswers) -> None:
    assert await reply(answers, "Vocês fazem entrega? Quando?") == RULES["pt"]["delivery"].answer


# ── prices and stock ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Quanto custa o bolo de cenoura?", "Bolo de Cenoura: R$ 45,00\nhttps://shop.example/p/1"),
        ("qual o preço dos bolos de cenoura", "Bolo de Cenoura: R$ 45,00\nhttps://shop.example/p/1"),
        ("Vocês têm pão de queijo?", "Pão de Queijo: R$ 8,00 (esgotado)\nhttps://shop.example/p/2"),
        ("How much is the café?", "Café: price on request\nhttps://shop.example/p/3"),
    ],
)
async def test_prices_and_stock_are_those_of_the_shop(
    store: ShopStore, answers: ShopAnswers, text: str, said: str
) -> None:
    await has(
        store,
        product(1, "Bolo de Cenoura"),
        product(2, "Pão de Queijo", "8", available=False),
        product(3, "Café", None),
        product(4, "Bolo de Milho", published=False),
    )
    assert await reply(answers, text) == said


@pytest.mark.parametrize("text", ["Vocês têm bolo de cenoura sem lactose?", "Tem bolo de cenoura vegano?"])
async def test_what_is_wanted_without_something_is_not_answered_with_another(
    store: ShopStore, answers: ShopAnswers, text: str
) -> None:
    await has(store, product(1, "Bolo de Cenoura"), product(2, "Torta de Limão sem Lactose"))
    assert await reply(answers, text) == UNSURE["pt"]
    await has(store, product(3, "Bolo de Cenoura Vegano sem Lactose"))
    assert (await reply(answers, text)).startswith("Bolo de Cenoura Vegano sem Lactose: ")


async def test_what_fits_but_for_a_word_is_said_to_be_the_nearest(store: ShopStore, answers: ShopAnswers) -> None:
    await has(store, product(1, "Bolo de Chocolate"))
    first, second, _ = (await reply(answers, "Tem bolo de chocolate branco?")).splitlines()
    assert (first, second) == ("O mais parecido que encontrei:", "Bolo de Chocolate: R$ 45,00")


async def test_of_what_comes_in_sizes_the_price_is_the_lowest(store: ShopStore, answers: ShopAnswers) -> None:
    await has(store, product(1, "Camiseta", "30", varies=True))
    assert await reply(answers, "Preço da camiseta?") == (
        "Camiseta: a partir de R$ 30,00\nhttps://shop.example/p/1"
    )
    assert "- Camiseta, from 30 BRL" in await answers.facts(asked("Preço da camiseta?"))


async def test_several_that_fit_are_told_a_few_of(store: ShopStore, answers: ShopAnswers) -> None:
    await has(store, *(product(number, f"Bolo {number}") for number in range(1, 9)))
    assert len((await reply(answers, "Quanto custa um bolo?")).splitlines()) == 6


@pytest.mark.parametrize(
    "text",
    [
        "Quanto custa uma bicicleta?",
        "Quanto custa uma bicicleta de cenoura?",
        "Quanto custa?",
        "Quanto custa " + "x" * 5_000,
    ],
)
async def test_of_what_is_unknown_a_rule_says_that_somebody_looks(
    store: ShopStore, answers: ShopAnswers, text: str
) -> None:
    await has(store, product(1, "Bolo de Cenoura"))
    assert await reply(answers, text) == RULES["pt"]["price"].answer


async def test_other_sentences_that_have_words_of_stock_are_left_to_the_rules(
    store: ShopStore, answers: ShopAnswers
) -> None:
    await has(store, product(1, "Cartão de aniversário"))
    assert await reply(answers, "Tem problema se o motoboy passar aí com o cartão depois?") == UNSURE["pt"]


# ── a language model ─────────────────────────────────────────────────────────────────────────────


async def test_a_model_is_told_what_is_known(store: ShopStore, answers: ShopAnswers) -> None:
    await has(store, order(7, "on-hold"), product(1, "Bolo de Cenoura", stock=3), order(8, phone=BIA))
    facts = await answers.facts(asked("Ainda tem bolo de cenoura? E o meu pedido?"))
    assert "- 7, on-hold, 1234.5 BRL, 2 x Bolo de cenoura" in facts
    assert "- Bolo de Cenoura, 45 BRL, 3 left, https://shop.example/p/1" in facts
    assert "- 8," not in facts, "somebody else's"
    assert await answers.facts(asked("Oi", tenant="farmacia")) == ""


async def test_the_facts_go_with_the_tenants_prompt(
    store: ShopStore, answers: ShopAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    await has(store, order(7, "on-hold"))
    model = LanguageModel(
        "openai",
        "http://127.0.0.1:1",
        model="m",
        api_key="",
        timeout=1,
        attempts=1,
        prompt="Be brief.",
        prompts={},
        fallback=RuleResponder(answers),
        shop=answers,
    )
    sent: list[Any] = []

    async def ask(request: bytes) -> str:
        sent.append(msgspec.json.decode(request))
        return "Está a caminho."

    monkeypatch.setattr(model, "_ask", ask)
    assert await model.reply([asked("Cadê meu pedido?")]) == "Está a caminho."
    system = sent[0]["messages"][0]["content"]
    assert system.startswith("Be brief.\n\n")
    assert "- 7, on-hold, 1234.5 BRL" in system


# ── payment proofs ───────────────────────────────────────────────────────────────────────────────


class Counter:
    """A conversation with proofs, as the stage has it; `added` is what it added."""

    def __init__(self, database: Database, answers: ShopAnswers) -> None:
        self.handler = ConversationHandler(
            ConversationStore(database), RuleResponder(answers), 10, proofs=Proofs(answers)
        )
        self.added: list[Job] = []

    async def _add(self, job: Job) -> JobId:
        self.added.append(job)
        return JobId("proof", 0, "1-0")

    async def get(self, text: str, caption: str = "", number: int = 1, kind: Any = "image") -> str:
        said = Incoming(ANA, f"wamid.{number}", NOW)
        file = Attachment(f"whatsapp:{number}", kind, caption)
        job = ProcessConversation(said, text, attachment=file if kind else None)
        done = await self.handler(context_of("process-conversation", job, tenant="padaria", add=self._add), job)
        return str(done.result["reply"])


@pytest.fixture
def counter(database: Database, answers: ShopAnswers) -> Counter:
    return Counter(database, answers)


async def test_an_image_of_who_has_not_paid_is_a_proof(store: ShopStore, counter: Counter) -> None:
    await has(store, order(7, "on-hold"), order(6, "completed"))
    for _ in range(2):  # the second time it comes again
        assert "pedido 7" in await counter.get("[image]")
    (job,) = counter.added
    assert job.payload == Proof(7, ANA, Attachment("whatsapp:1", "image"))
    assert (job.stage, job.tenant, job.dedup) == ("proof", "padaria", f"proof:padaria:{ANA}:wamid.1")


async def test_of_several_orders_it_is_the_one_that_is_named_or_the_latest(
    store: ShopStore, counter: Counter
) -> None:
    await has(store, order(7, "pending"), order(8, "pending"), order(9, "pending"))
    await counter.get("[document: pix.pdf] pedido 8", "pedido 8", 1, "document")
    await counter.get("[document: pix.pdf]", "", 2, "document")
    assert [(job.payload.order, job.payload.others) for job in counter.added] == [(8, []), (9, ["8", "7"])]


@pytest.mark.parametrize(
    ("text", "caption", "kind", "known"),
    [
        ("[image] um bolo como este", "um bolo como este", "image", [order(7, "pending")]),
        ("[image]", "", "image", [order(7, "completed")]),
        ("[image]", "", "image", [order(7, "pending", created_ms=NOW - 15 * 86_400_000)]),
        ("[image]", "", "image", [order(7, "failed"), order(8, "completed")]),
        ("[image]", "", "image", [order(7, "pending"), order(8, "completed")]),
        ("paguei", "", None, [order(7, "pending")]),
    ],
)
async def test_what_is_no_proof_is_answered_like_a_text(
    store: ShopStore, counter: Counter, text: str, caption: str, kind: Any, known: list[Order]
) -> None:
    await has(store, *known)
    assert await counter.get(text, caption, kind=kind) in (UNSURE["pt"], RULES["pt"]["paid"].answer)
    assert counter.added == []


async def test_an_image_of_what_went_wrong_is_no_proof(store: ShopStore, counter: Counter) -> None:
    await has(store, order(7, "pending"))
    said = "o bolo que paguei veio errado"
    assert await counter.get(f"[image] {said}", said) == RULES["pt"]["complaint"].answer
    assert counter.added == []


async def test_an_earlier_order_that_is_named_may_still_be_paid(store: ShopStore, counter: Counter) -> None:
    await has(store, order(7, "pending"), order(8, "completed"))
    assert "pedido 7" in await counter.get("[image] pix do pedido 7", "pix do pedido 7")
    assert [job.payload.order for job in counter.added] == [7]


class Files:
    """An AudioSource with one file."""

    def __init__(self, content: bytes | Exception = JPEG) -> None:
        self.content, self.asked = content, 0

    async def fetch(self, source: str, tenant: str) -> bytes:
        self.asked += 1
        assert (source, tenant) == ("whatsapp:1", "padaria")
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


PROOF = Proof(7, ANA, Attachment("whatsapp:1", "image", "Segue o pix"))


class Keeper:
    """The stage that keeps proofs."""

    def __init__(self, shop: Shop, store: ShopStore, wordpress: WordPress) -> None:
        self.shop, self.store, self.files = shop, store, Files()
        self.address = Address("padaria", shop.url, KEY, SECRET, USER, PASSWORD)
        self.wordpress = wordpress

    async def keep(self, proof: Proof = PROOF) -> PushOrder:
        handler = ProofHandler({"padaria": self.address}, self.wordpress, self.store, self.files, "on-hold")
        done = await handler(context_of("proof", proof, tenant="padaria"), proof)
        assert isinstance(done, Done)
        (job,) = done.forward
        assert (job.stage, job.tenant) == ("push-order", "padaria")
        assert isinstance(job.payload, PushOrder)
        return job.payload


@pytest_asyncio.fixture
async def keeper(shop: Shop, store: ShopStore) -> AsyncIterator[Keeper]:
    async with WordPress(timeout=5) as wordpress:
        yield Keeper(shop, store, wordpress)


async def test_a_proof_is_kept_privately_in_the_shop_and_noted(keeper: Keeper, store: ShopStore) -> None:
    await has(store, order(7, "pending"))
    pushed = await keeper.keep()
    ((slug, kept),) = keeper.shop.media.items()
    assert (kept["status"], kept["content"]) == ("private", JPEG)
    assert pushed.note.splitlines() == [
        f"Comprovante de pagamento recebido por WhatsApp de {ANA}.",
        "Legenda: Segue o pix",
        f"Arquivo: {keeper.shop.url}/wp-content/uploads/{slug}.jpg",
    ]
    assert (pushed.id, pushed.status) == (7, "on-hold")
    assert pushed.only == ["pending", "on-hold", "failed"]
    (known,) = await store.orders_of("padaria", f"+{ANA}", 1)
    assert known.proof_url == f"{keeper.shop.url}/wp-content/uploads/{slug}.jpg"


async def test_one_that_comes_again_is_not_kept_twice(keeper: Keeper) -> None:
    assert await keeper.keep() == await keeper.keep()
    assert (len(keeper.shop.media), keeper.files.asked) == (1, 1)


@pytest.mark.parametrize("content", [b"MZ an executable", Permanent("media 1 is gone")])
async def test_a_file_that_cannot_be_kept_leaves_a_note(keeper: Keeper, content: Any) -> None:
    keeper.files = Files(content)
    pushed = await keeper.keep()
    assert keeper.shop.media == {}
    assert "O arquivo não pôde ser guardado: " in pushed.note
    assert pushed.status == "on-hold"


async def test_whatsapp_may_be_away_for_a_while(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper.files = Files(ConnectionError("away"))
    with pytest.raises(RetryLater, match="away"):
        await keeper.keep()
    monkeypatch.setattr(proof, "PATIENCE", 0)
    pushed = await keeper.keep()
    assert pushed.note.endswith("O arquivo não pôde ser guardado: away")


async def test_a_note_is_no_longer_than_its_stage_takes(keeper: Keeper) -> None:
    pushed = await keeper.keep(msgspec.structs.replace(PROOF, others=["8" * 500] * 10))
    assert len(pushed.note) == 2_000


async def test_without_a_login_for_wordpress_there_is_only_a_note(keeper: Keeper) -> None:
    keeper.address = msgspec.structs.replace(keeper.address, user="", password="")
    pushed = await keeper.keep()
    assert (keeper.files.asked, keeper.shop.asked) == (0, [])
    assert "Arquivo" not in pushed.note


async def test_a_caption_is_no_html_to_the_shops_people(keeper: Keeper) -> None:
    caption = '<a href="https://evil.example">Aprovar</a> pix'
    attachment = msgspec.structs.replace(PROOF.attachment, caption=caption)
    pushed = await keeper.keep(msgspec.structs.replace(PROOF, attachment=attachment))
    assert "<" not in pushed.note
    assert "Aprovar" in pushed.note


async def test_whose_proof_is_not_certain_changes_no_status(keeper: Keeper, store: ShopStore) -> None:
    await has(store, order(7, "pending"))
    pushed = await keeper.keep(msgspec.structs.replace(PROOF, others=["8", "9"]))
    assert pushed.status == ""
    assert pushed.note.endswith("Pode ser também de: 8, 9.")
    (known,) = await store.orders_of("padaria", f"+{ANA}", 1)
    assert known.proof_url == "", "nor is its vendor told that it was paid so"


async def test_a_shop_that_is_away_gets_its_proof_later(keeper: Keeper) -> None:
    async def away(_: object) -> Any:
        return problem(503, "busy", "Later.", **{"Retry-After": "7"})

    keeper.shop.before = away
    with pytest.raises(RetryLater, match="503"):
        await keeper.keep()
