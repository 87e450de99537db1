"""The responder's rules: topics, the three languages, and the one remembered from before."""

import pytest

from stages.conversation.rules import RULES, UNSURE, RuleResponder, Topic
from stages.ports import Message

pytestmark = pytest.mark.unit


def said(text: str) -> Message:
    return Message("shop", "chat", text, "in", text, 0)


def answered(text: str) -> Message:
    return Message("shop", "chat", f"reply:{text}", "out", text, 0)


async def reply(*history: Message) -> str:
    return await RuleResponder().reply(history)


@pytest.mark.parametrize(
    ("text", "language", "topic"),
    [
        ("Já fiz o pagamento pelo pix, vou mandar o comprovante agora.", "pt", "paid"),
        ("Vocês têm refrigerante de dois litros? Quanto custa?", "pt", "price"),
        ("Olá, eu gostaria de fazer um pedido de duas pizzas grandes para hoje à noite.", "pt", "order"),
        ("Qual é o frete?", "pt", "delivery"),
        ("Qual o horário de vocês?", "pt", "hours"),
        ("Obrigado pelo atendimento, a comida estava muito boa.", "pt", "thanks"),
        ("BOA NOITE", "pt", "greeting"),
        ("Ya hice la transferencia", "es", "paid"),
        ("¿Cuánto cuesta?", "es", "price"),
        ("Quisiera dos pizzas para hoy", "es", "order"),
        ("¿Cuál es la dirección de ustedes?", "es", "delivery"),
        ("¿Hoy cierran?", "es", "hours"),
        ("Muchas gracias", "es", "thanks"),
        ("Buenas tardes", "es", "greeting"),
        ("I have paid, here is the receipt", "en", "paid"),
        ("How much is a large pizza?", "en", "price"),
        ("I'd like two pizzas", "en", "order"),
        ("I\N{RIGHT SINGLE QUOTATION MARK}d like two pizzas", "en", "order"),
        ("Do you deliver?", "en", "delivery"),
        ("Until when are you open?", "en", "hours"),
        ("Thank you!", "en", "thanks"),
        ("Hi", "en", "greeting"),
        ("meu pedido veio errado, faltou o bolo", "pt", "complaint"),
        ("Paguei errado, quero o estorno", "pt", "complaint"),
        ("quero cancelar o pedido", "pt", "complaint"),
        ("me llegó mal el pedido", "es", "complaint"),
        ("quiero hacer un reclamo", "es", "complaint"),
        ("my order arrived broken", "en", "complaint"),
        ("Can I change my order?", "en", "complaint"),
        ("quero falar com um atendente", "pt", "human"),
        ("Obrigada, chegou tudo certinho meu pedido!", "pt", "content"),
        ("vcs aceitam pix?", "pt", "paying"),
        ("quais as formas de pagamento", "pt", "paying"),
        ("¿Cómo puedo pagar? ¿Aceptan tarjeta?", "es", "paying"),
        ("Do you accept cards?", "en", "paying"),
        ("qnto custa", "pt", "price"),
        ("que horas fecha hj?", "pt", "hours"),
        ("¿A qué hora abren?", "es", "hours"),
        ("faz entrega no centro?", "pt", "delivery"),
        ("obg", "pt", "thanks"),
    ],
)
async def test_a_topic_is_answered_in_the_customers_language(text: str, language: str, topic: Topic) -> None:
    assert await reply(said(text)) == RULES[language][topic].answer


async def test_what_costs_money_comes_before_courtesies() -> None:
    assert await reply(said("Oi, boa noite! Paguei agora, obrigado")) == RULES["pt"]["paid"].answer


async def test_who_says_more_than_hello_is_not_asked_what_they_want() -> None:
    assert await reply(said("Oi, tudo bem? Vocês têm pão sem glúten para sábado?")) == UNSURE["pt"]


async def test_accents_that_are_missing_or_apart_change_nothing() -> None:
    expected = RULES["pt"]["price"].answer
    for text in (
        "Qual é o preço?",
        "qual e o preco",
        "Qual e\N{COMBINING ACUTE ACCENT} o prec\N{COMBINING CEDILLA}o?",
    ):
        assert await reply(said(text)) == expected


async def test_only_whole_words_raise_a_topic() -> None:
    assert await reply(said("você viu o pixel da tela?")) == UNSURE["pt"]


@pytest.mark.parametrize(
    ("text", "language"),
    [("você não foi hoje", "pt"), ("usted no fue hoy", "es"), ("you were not the one", "en")],
)
async def test_without_a_topic_the_answer_is_unsure_in_the_right_language(text: str, language: str) -> None:
    assert await reply(said(text)) == UNSURE[language]


@pytest.mark.parametrize("text", ["", "👍", "12345", "hmm", "こんにちは"])
async def test_with_no_telling_the_language_is_portuguese(text: str) -> None:
    assert await reply(said(text)) == UNSURE["pt"]


async def test_the_language_is_remembered_from_earlier_messages() -> None:
    assert await reply(said("I would like an order"), answered("Anotado!"), said("ok")) == UNSURE["en"]


async def test_the_latest_clear_message_decides_the_language() -> None:
    assert await reply(said("Hello, I have a question"), said("usted no fue hoy"), said("👍")) == UNSURE["es"]


async def test_our_own_answers_say_nothing_about_the_language() -> None:
    assert await reply(answered(RULES["en"]["order"].answer), said("ok")) == UNSURE["pt"]


async def test_a_word_of_two_languages_is_read_in_the_one_remembered() -> None:
    """`pedido` is Portuguese and Spanish."""
    assert await reply(said("pedido")) == RULES["pt"]["order"].answer
    assert await reply(said("Hola, buenas noches"), said("pedido")) == RULES["es"]["order"].answer
