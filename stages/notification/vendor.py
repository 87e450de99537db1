"""What a vendor is told of a paid order, in Portuguese."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from decimal import Decimal

import phonenumbers
from babel.numbers import format_decimal
from phonenumbers import PhoneNumberFormat

from stages.jobs import OrderItem, SendVendor
from stages.money import money
from stages.notification.phone import is_user_id, normalised

LOCALE, REGION = "pt_BR", "BR"
UNNAMED = "(sem nome)"
AMOUNT_LIMIT = Decimal(10**12)
PHONE_LIMIT = 40  # characters of one that is no phone number
JOINERS = "\u200c\u200d"  # these keep an emoji of several parts together

# WhatsApp has no escape for what it formats by, so likes take its place; within a word an underscore is left.
MARKUP = re.compile(r"[*~`]|(?<![^\W_])_|_(?![^\W_])")
LIKES = {
    "*": "\N{ASTERISK OPERATOR}",
    "~": "\N{TILDE OPERATOR}",
    "`": "\N{MODIFIER LETTER GRAVE ACCENT}",
    "_": "\N{MODIFIER LETTER LOW MACRON}",
}


def checked(order: SendVendor) -> SendVendor:
    """The order. Raises ValueError, fit for a person, where an amount of it is none."""
    _check("total", order.total)
    for item in order.items:
        if item.price is not None:
            _check(f"price of {item.name!r}", item.price)
    return order


def _check(name: str, amount: Decimal) -> None:
    if not amount.is_finite() or not 0 <= amount < AMOUNT_LIMIT:
        raise ValueError(f"the {name} is {str(amount)[:40]}: expected an amount from 0 to below {AMOUNT_LIMIT:,}")


def order_text(order: SendVendor, limit: int) -> str:
    """The message for an order that was checked, of at most `limit` characters: items that do not fit are counted.

    What is not an item takes less than 400.
    """
    head = f"Oba! Pedido {_plain(order.order_id)} pago 🎉\nCliente: {_phone(order.client_phone)}"
    proof = "em anexo" if order.proof_url else "não enviado"
    tail = f"Total: {money(order.total, order.currency, LOCALE)}\nComprovante: {proof}"
    items = _fitting(order, limit - len(f"{head}\n\n\n\n{tail}"))
    return "\n\n".join(filter(None, [head, items, tail]))[:limit]


def _fitting(order: SendVendor, room: int) -> str:
    """As many whole lines of items as there is room for, and how many more there are."""
    text = best = ""
    for left, line in zip(range(len(order.items), 0, -1), _lines(order.items, order.currency), strict=True):
        more = f"{text}… e mais {left} {'item' if left == 1 else 'itens'}"
        best = more if len(more) <= room else best
        text += f"{line}\n"
        if len(text) > room + 1:
            return best
    return text.rstrip("\n")


def _lines(items: Sequence[OrderItem], currency: str) -> Iterator[str]:
    for item in items:
        line = f"• {format_decimal(item.quantity, locale=LOCALE)}x {_plain(item.name) or UNNAMED}"
        each = " cada" if item.quantity > 1 else ""
        yield line if item.price is None else f"{line}: {money(item.price, currency, LOCALE)}{each}"


def _phone(text: str) -> str:
    try:
        number = normalised(text, REGION)
    except ValueError:
        return _plain(text)[:PHONE_LIMIT]
    if is_user_id(number):
        return number
    return phonenumbers.format_number(phonenumbers.parse(number), PhoneNumberFormat.INTERNATIONAL)


def _plain(text: str) -> str:
    """One line in which nothing formats, hides, or runs the other way."""
    seen = "".join(char for char in text if char.isspace() or char in JOINERS or not _hidden(char))
    return MARKUP.sub(lambda found: LIKES[found[0]], " ".join(seen.split()))


def _hidden(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf", "Cs")  # but emoji that are newer than Python stay
