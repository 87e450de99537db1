"""The default Responder: a few rules in Portuguese, English and Spanish."""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from stages.ports import Message
from stages.words import folded

Topic = Literal[
    "complaint", "human", "content", "paid", "paying", "price", "order", "delivery", "hours", "thanks", "greeting"
]


class Rule(NamedTuple):
    """The words that raise a topic (whole words, without accents; a regular expression) and the answer."""

    words: str
    answer: str


# The first rule whose words occur wins: what went wrong comes before what costs money, and that before courtesies.
# An answer states nothing that only the shop can know, such as its hours.
RULES: dict[str, dict[Topic, Rule]] = {
    "pt": {
        "complaint": Rule(
            "errad[oa]s?|quebrad[oa]s?|defeitos?|estragad[oa]s?|falt(?:ou|ando|aram)|(?:veio|chegou|vieram) sem|"
            r"reclam\w*|reembols\w*|estorn\w*|devol\w+|dinheiro de volta|cancel\w+|trocar|troca|"
            "nao quero mais|golpe",
            "Sinto muito! Um atendente vai ver isso e já responde.",
        ),
        "human": Rule(
            "atendente|humano|falar com (?:alguem|uma pessoa|o dono|a dona|voces)",
            "Claro! Um atendente responde em breve.",
        ),
        "content": Rule(
            "chegou (?:tudo )?(?:bem|certo|certinho|direitinho)|tudo certinho|adorei|amei|gostei muito",
            "Que bom! Volte sempre.",
        ),
        "paid": Rule(
            r"paguei|pagamos|(?:esta|foi|ja) pago|comprovante|transferi|segue o pix|"
            r"(?:fiz|mandei|enviei|fizemos) (?:o|um) (?:pix|pagamento|deposito)|"
            r"(?:pix|pagamento) (?:\w+ ){0,3}(?:feito|enviado|realizado|efetuado)",
            "Obrigado! Vamos conferir o pagamento e já confirmamos.",
        ),
        "paying": Rule(
            r"aceitam? (?:\w+ )?(?:pix|cartao|cartoes|credito|debito|dinheiro|vale)|pix|pagamento|"
            r"como (?:eu )?(?:pago|pagar)|posso pagar|cartao de (?:credito|debito)|parcel\w+",
            "Um atendente já fala com você sobre o pagamento.",
        ),
        "price": Rule(
            "(?:quanto|qnto|qto) (?:custam?|e|sai|fica|esta|ta)|custam?|precos?|valor|valores",
            "Já vou conferir o preço para você. Um momento, por favor.",
        ),
        "order": Rule(
            "pedido|pedir|quero|queria|gostaria|encomendar",
            "Anotado! Posso confirmar o seu pedido? Diga também o endereço de entrega.",
        ),
        "delivery": Rule(
            "entregas?|entregam|endereco|frete", "Qual é o endereço? Já confirmamos a entrega para você."
        ),
        "hours": Rule("horarios?|abert[oa]s?|abrem?|fecham?|que horas", "Já confirmamos o horário para você."),
        "thanks": Rule("obrigad[oa]|obg|brigad[oa]|valeu|vlw|agradeco", "Nós é que agradecemos! Volte sempre."),
        "greeting": Rule("ola|oi|bom dia|boa tarde|boa noite", "Olá! Como podemos ajudar?"),
    },
    "es": {
        "complaint": Rule(
            r"equivocad[oa]s?|rot[oa]s?|danad[oa]s?|defecto|falt(?:o|an|aron)|cambiar|estafa|"
            r"(?:llego|vino|llegaron) (?:\w+ )?(?:mal|sin|incomplet[oa])|"
            r"reclam\w+|reembols\w+|devol\w+|devuel\w+|cancel\w+",
            "¡Lo sentimos! Alguien lo revisa y le responde enseguida.",
        ),
        "human": Rule("asesora?|hablar con (?:alguien|una persona)", "¡Claro! Alguien le responde en breve."),
        "content": Rule("llego (?:todo )?bien|me encanto|me encantaron", "¡Qué bien! Hasta pronto."),
        "paid": Rule(
            r"pague|pagamos|comprobante|transferi|"
            r"(?:hice|mande|envie|hicimos) (?:la|el|una|un) (?:transferencia|pago|deposito)|"
            r"(?:transferencia|pago) (?:\w+ ){0,3}(?:hech[oa]|enviad[oa]|realizad[oa])",
            "¡Gracias! Revisamos el pago y le confirmamos enseguida.",
        ),
        "paying": Rule(
            r"acept(?:a|an) (?:\w+ )?(?:tarjetas?|efectivo)|pagos?|transferencia|como (?:pago|pagar)|"
            r"puedo pagar|tarjeta de (?:credito|debito)|cuotas",
            "Enseguida le respondemos sobre el pago.",
        ),
        "price": Rule(
            "cuanto (?:cuestan?|valen?|es|sale|salen|esta|estan)|a como|cuestan?|precios?",
            "Enseguida le confirmo el precio. Un momento, por favor.",
        ),
        "order": Rule(
            "pedido|pedir|quiero|quisiera|encargar",
            "¡Anotado! ¿Confirmamos su pedido? Díganos también la dirección de entrega.",
        ),
        "delivery": Rule(
            "entregas?|entregan|direccion|envios?|envian",
            "¿Cuál es la dirección? Enseguida confirmamos la entrega.",
        ),
        "hours": Rule("horarios?|abiert[oa]s?|abren?|cierran?|que hora", "Enseguida le confirmamos el horario."),
        "thanks": Rule("gracias", "¡Gracias a usted! Hasta pronto."),
        "greeting": Rule("hola|buenos dias|buenas tardes|buenas noches", "¡Hola! ¿En qué podemos ayudarle?"),
    },
    "en": {
        "complaint": Rule(
            r"wrong|broken|damaged|missing|refund\w*|return|returning|cancel\w*|complain\w*|"
            "change (?:my|the) order|exchange|scam",
            "We are sorry! Someone will look into it and answer shortly.",
        ),
        "human": Rule(
            "(?:talk|speak) (?:to|with) (?:someone|a person|a human|somebody)|human",
            "Sure! Someone will answer shortly.",
        ),
        "content": Rule(
            "arrived (?:well|fine|safely|safe)|love it|loved it|delicious", "Great to hear! See you soon."
        ),
        "paid": Rule(
            "paid|receipt|(?:made|sent) (?:the|a|my) (?:payment|transfer)|payment (?:is |was )?(?:done|sent|made)",
            "Thank you! We will check the payment and confirm shortly.",
        ),
        "paying": Rule(
            r"accept (?:\w+ )?(?:pix|cards?|cash)|payments?|how (?:do|can) i pay|can i pay|credit card",
            "Someone will answer about the payment shortly.",
        ),
        "price": Rule("how much|prices?|costs?", "Let me check the price for you. One moment, please."),
        "order": Rule(
            "order|i want|i would like|id like|i'd like",
            "Noted! Shall we confirm your order? Please send the delivery address too.",
        ),
        "delivery": Rule(
            "delivery|deliver|address|shipping|ship", "What is the address? We will confirm the delivery shortly."
        ),
        "hours": Rule("open|close|hours", "We will tell you our hours shortly."),
        "thanks": Rule("thanks|thank you|thx", "Thank you! See you soon."),
        "greeting": Rule("hello|hi|hey|good morning|good afternoon|good evening", "Hello! How can we help?"),
    },
}

# Short words that tell the languages apart where no rule does.
MARKS = {
    "pt": "voces|voce|vcs|vc|eu|nao|uma|um|para|pra|hoje|meu|minha|tem|com|muito|esta|estava|foi|e|o|a|os|as|ja|"
    "pelo|de|do|da|no|na|em|que|qual|onde|faz|cade",
    "es": "usted|ustedes|yo|no|una|un|para|hoy|mi|tiene|tienen|con|muy|esta|fue|y|el|la|los|las|ya|por|de|del|a|"
    "en|que|me|cual|donde|cuando",
    "en": "you|i|not|a|an|for|today|my|have|with|very|is|was|and|the|by|of|do|to",
}

UNSURE = {
    "pt": "Obrigado pela mensagem! Um atendente responde em breve.",
    "es": "¡Gracias por su mensaje! Le responderemos en breve.",
    "en": "Thanks for your message! Someone will answer shortly.",
}

DEFAULT_LANGUAGE = "pt"
LONGEST_GREETING = 4  # words; who says more wants something


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
        topic = topic_of(language, plain(asked.text))
        return RULES[language][topic].answer if topic else UNSURE[language]


def topic_of(language: str, text: str) -> Topic | None:
    """What a text that is plain is about, as far as rules tell."""
    topic = next((topic for topic, rule in RULES[language].items() if occurs(rule.words, text)), None)
    return None if topic == "greeting" and len(text.split()) > LONGEST_GREETING else topic


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
    topics = "|".join(rule.words for rule in RULES[language].values())
    return sum(len(phrase.split()) for phrase in re.findall(rf"\b(?:{topics}|{MARKS[language]})\b", text))


def occurs(words: str, text: str) -> bool:
    """Whether one of the words, as in `Rule.words`, is in a text that is plain."""
    return re.search(rf"\b(?:{words})\b", text) is not None
