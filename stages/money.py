"""Amounts as people write them."""

from decimal import ROUND_HALF_UP, Decimal

from babel.numbers import format_currency, get_currency_precision


def money(amount: Decimal, currency: str, locale: str) -> str:
    """As in R$ 1.234,50 (pt_BR), with as many decimals as the currency has."""
    unit = Decimal(1).scaleb(-get_currency_precision(currency))
    rounded = abs(amount).quantize(unit, ROUND_HALF_UP)
    return format_currency(rounded, currency, locale=locale).replace("\xa0", " ")
