"""The default Responder: a few rules in Portuguese, English and Spanish."""

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from stages.ports import Message
from stages.words import folded


class Rule(NamedTuple):
    """A topic: the words that raise it (whole words, without accents) and the answer."""

    words: str
    answer: str


# The first rule whose words occur wins: what costs money comes before courtesies.
RULES: dict[str, tuple[Rule, ...]] = {
    "pt": (
        Rule("pix|pagamento|paguei|comprovante", "Obrigado! Vamos conferir o pagamento e já confirmamos."),
        Rule("quanto custa|preco|valor|quanto e", "Já vou conferir o preço para você. Um momento, por favor."),
        Rule(
            "pedido|pedir|quero|queria|gostaria|encomendar",
            "Anotado! Posso confirmar o seu pedido? Diga também o endereço de entrega.",
        ),
        Rule("entrega|endereco|frete", "Entregamos na sua região. Qual é o endereço?"),
        Rule("horario|aberto|abrem|fecham", "Atendemos todos os dias, das 9h às 22h."),
        Rule("obrigado|obrigada|valeu|agradeco", "Nós é que agradecemos! Volte sempre."),
        Rule("ola|oi|bom dia|boa tarde|boa noite", "Olá! Como podemos ajudar?"),
    ),
    "es": (
        Rule("pago|pague|transferencia|comprobante", "¡Gracias! Revisamos el pago y le confirmamos enseguida."),
        Rule("cuanto cuesta|cuanto vale|precio", "Enseguida le confirmo el precio. Un momento, por favor."),
        Rule(
            "pedido|pedir|quiero|quisiera|encargar",
            "¡Anotado! ¿Confirmamos su pedido? Díganos también la dirección de entrega.",
        ),
        Rule("entrega|direccion|envio", "Entregamos en su zona. ¿Cuál es la dirección?"),
        Rule("horario|abierto|abren|cierran", "Atendemos todos los días, de 9 a 22 h."),
        Rule("gracias", "¡Gracias a usted! Hasta pronto."),
        Rule("hola|buenos dias|buenas tardes|buenas noches", "¡Hola! ¿En qué podemos ayudarle?"),
    ),
    "en": (
        Rule("paid|payment|receipt", "Thank you! We will check the payment and confirm shortly."),
        Rule("how much|price|cost", "Let me check the price for you. One moment, please."),
        Rule(
            "order|i want|i would like|id like|i'd like",
            "Noted! Shall we confirm your order? Please send the delivery address too.",
        ),
        Rule("delivery|deliver|address|shipping", "We deliver in your area. What is the address?"),
        Rule("open|close|hours", "We are open every day from 9 am to 10 pm."),
        Rule("thanks|thank you", "Thank you! See you soon."),
        Rule("hello|hi|good morning|good afternoon|good evening", "Hello! How can we help?"),
    ),
}

# Short words that tell the languages apart where no rule does.
MARKS = {
    "pt": "voces|voce|eu|nao|uma|um|para|hoje|meu|minha|tem|com|muito|esta|estava|foi|e|o|os|as|ja|pelo|de",
    "es": "usted|ustedes|yo|no|una|un|para|hoy|mi|tiene|tienen|con|muy|esta|fue|y|el|los|las|ya|por|de",
    "en": "you|i|not|a|an|for|today|my|have|with|very|is|was|and|the|by|of|do|to",
}

UNSURE = {
    "pt": "Obrigado pela mensagem! Um atendente responde em breve.",
    "es": "¡Gracias por su mensaje! Le responderemos en breve.",
    "en": "Thanks for your message! Someone will answer shortly.",
}

DEFAULT_LANGUAGE = "pt"


class Knowing(Protocol):
    """Somebody who knows more than rules do."""

    async def answer(self, asked: Message, language: str) -> str:
        """The answer; empty where there is none."""


class RuleResponder:
    """Answers by topic, in the customer's language, what `shop` has no answer to."""

    def __init__(self, shop: Knowing | None = None) -> None:
        self._shop = shop

    async def reply(self, history: Sequence[Message]) -> str:
        language, asked = language_of(history), history[-1]
        if self._shop and (known := await self._shop.answer(asked, language)):
            return known
        said = plain(asked.text)
        return next((rule.answer for rule in RULES[language] if occurs(rule.words, said)), UNSURE[language])


def language_of(history: Sequence[Message]) -> str:
    """The customer's language; unsure of what they said last, the one used before."""
    said = (plain(message.text) for message in reversed(history) if message.direction == "in")
    return next(filter(None, map(_language, said)), DEFAULT_LANGUAGE)


def plain(text: str) -> str:
    """Lower case, without accents and punctuation."""
    straight = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")  # what telephones type
    return " ".join(re.findall(r"[\w']+", folded(straight)))


def _language(text: str) -> str | None:
    """The language most words speak for; None where there is no telling."""
    scores = {language: _score(language, text) for language in RULES}
    best = max(scores.values())
    winners = [language for language, score in scores.items() if score == best]
    return winners[0] if best and len(winners) == 1 else None


def _score(language: str, text: str) -> int:
    topics = "|".join(rule.words for rule in RULES[language])
    return len(re.findall(rf"\b(?:{topics}|{MARKS[language]})\b", text))


def occurs(words: str, text: str) -> bool:
    """Whether one of the words, as in `Rule.words`, is in a text that is plain."""
    return re.search(rf"\b(?:{words})\b", text) is not None
