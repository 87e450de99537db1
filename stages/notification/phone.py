"""Phone numbers, and what else WhatsApp calls a person."""

import re

import phonenumbers
from babel import Locale
from phonenumbers import (
    NumberParseException,
    PhoneNumber,
    PhoneNumberFormat,
    PhoneNumberType,
    ValidationResult,
)

LENGTH_LIMIT = 40  # characters of a number as people write it
NUMBER = re.compile(r"\+?[\d\s().\-\u2010-\u2015/]+")
INVISIBLE = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060-\u2069]")  # what phones put around a copied number
EXAMPLE = PhoneNumber(country_code=55, national_number=11961234567)  # where the region has none

# https://developers.facebook.com/documentation/business-messaging/whatsapp/business-scoped-user-ids:
# a country, and up to 128 letters and digits; ENT where several businesses share it.
USER_ID = re.compile(r"[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]{1,128}", re.ASCII)

# Mobile numbers that WhatsApp's ids have in an older form: Brazil's without the ninth digit, Mexico's with a 1.
BRAZIL_OLD = re.compile(r"(55[1-9][1-9])([6-9]\d{7})", re.ASCII)
MEXICO_OLD = re.compile(r"(52)1(\d{10})", re.ASCII)
ARGENTINA = re.compile(r"\+549?(\d{10})", re.ASCII)

UNREADABLE = {
    NumberParseException.INVALID_COUNTRY_CODE: "not a number of any country",
    NumberParseException.NOT_A_NUMBER: "not a phone number",
    NumberParseException.TOO_SHORT_AFTER_IDD: "too short",
    NumberParseException.TOO_SHORT_NSN: "too short",
    NumberParseException.TOO_LONG: "too long",
}
IMPOSSIBLE = {
    ValidationResult.TOO_SHORT: "too short",
    ValidationResult.TOO_LONG: "too long",
    ValidationResult.INVALID_LENGTH: "too short or too long",
}


def is_user_id(to: str) -> bool:
    """Whether it is a business-scoped user id: WhatsApp's for a person who does not show a phone number."""
    return USER_ID.fullmatch(to) is not None


def also_written(number: str) -> list[str]:
    """A normalised number, and how else shops may have it: Argentina's mobile ones have a 9 when they are dialled
    from abroad, and in WhatsApp's ids, that nobody there writes."""
    if found := ARGENTINA.fullmatch(number):
        return [f"+549{found[1]}", f"+54{found[1]}"]
    return [number]


def recipient_key(to: str) -> str:
    """The same for all spellings of one number that has its country code; a user id stays as it is.

    Cheap, for limits on how much one person is sent: it is not looked at whether the number exists.
    """
    if is_user_id(to):
        return to
    digits = to.removeprefix("+")
    if not digits.isdecimal():
        digits = re.sub(r"\D", "", to)
    return (_newer(digits) or to)[:LENGTH_LIMIT]


def normalised(text: str, region: str) -> str:
    """A number as +5511987654321 (E.164), Brazil's mobile ones with their ninth digit; user ids stay as they are.

    Digits without `+` are tried as a number of `region` (as in BR; empty: of none), then as one with its country
    code, as WhatsApp's ids are. 51987654321 is both, of Porto Alegre and of Peru: what is known to have a country
    code is best given with a `+`. Raises ValueError, fit for a person.
    """
    if is_user_id(text):
        return text
    written = INVISIBLE.sub("", text).strip()
    if len(written) > LENGTH_LIMIT or not NUMBER.fullmatch(written):
        raise ValueError(_refusal(written, "not a phone number", region))
    refusals = []
    for candidate in _candidates(written, region):
        try:
            return _e164(candidate, region)
        except ValueError as error:
            refusals.append(str(error))
    raise ValueError(_refusal(written, refusals[0], region))


def _candidates(written: str, region: str) -> list[str]:
    if written.startswith("+"):
        return [written]
    digits = re.sub(r"\D", "", written)
    international = f"+{digits.removeprefix('00')}"
    return [written, international] if region else [international]


def _e164(written: str, region: str) -> str:
    """Raises ValueError with the reason alone."""
    try:
        number = phonenumbers.parse(written, region or None)
        plain = f"+{_newer(_plain(number).removeprefix('+'))}"
        _check(phonenumbers.parse(plain))
    except NumberParseException as error:
        raise ValueError(UNREADABLE[error.error_type]) from None
    return plain


def _check(number: PhoneNumber) -> None:
    country = _country(phonenumbers.region_code_for_country_code(number.country_code or 0))
    reason = IMPOSSIBLE.get(phonenumbers.is_possible_number_with_reason(number))
    if reason:
        raise ValueError(f"{reason} for a number of {country}")
    if not phonenumbers.is_valid_number(number):
        raise ValueError(f"not in use in {country}")


def _plain(number: PhoneNumber) -> str:
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def _newer(digits: str) -> str:
    """The newer form of a number in digits that begin with the country code."""
    if old := BRAZIL_OLD.fullmatch(digits):
        return f"{old[1]}9{old[2]}"
    if old := MEXICO_OLD.fullmatch(digits):
        return f"{old[1]}{old[2]}"
    return digits


def _country(region: str) -> str:
    name: str = Locale("en").territories.get(region, region)
    return name


def _refusal(written: str, reason: str, region: str) -> str:
    example = phonenumbers.example_number_for_type(region or "BR", PhoneNumberType.MOBILE) or EXAMPLE
    number = written if len(written) <= LENGTH_LIMIT else f"{written[:LENGTH_LIMIT]}…"
    return f"{number!r} is {reason}: write the number with country and area code, as in {_plain(example)}"
