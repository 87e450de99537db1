"""Phone numbers: what is made of people's spellings, and what is said of those that cannot be used."""

import re
import string

import phonenumbers
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from stages.notification.phone import is_user_id, normalised, recipient_key

pytestmark = pytest.mark.unit

AREA_CODES = [
    code for code in range(11, 100) if phonenumbers.is_valid_number(phonenumbers.parse(f"+55{code}987654321"))
]
mobile = st.builds("{}{}".format, st.sampled_from(AREA_CODES), st.from_regex(r"9[6-9][0-9]{7}", fullmatch=True))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("+5511987654321", "+5511987654321"),
        ("5511987654321", "+5511987654321"),
        ("(11) 98765-4321", "+5511987654321"),
        ("011 98765-4321", "+5511987654321"),
        ("0055 11 98765-4321", "+5511987654321"),
        ("11 8765-4321", "+5511987654321"),
        ("551187654321", "+5511987654321"),
        ("+55 11 7765 4321", "+5511977654321"),
        ("\u202a+55 11 98765\u201143 21\u202c", "+5511987654321"),  # as copied out of a list of contacts
        ("11 3876-4321", "+551138764321"),  # a landline
        ("4915112345678", "+4915112345678"),
        ("14155552671", "+14155552671"),
        ("5215512345678", "+525512345678"),  # WhatsApp's id of a Mexican
        ("+39 06 1234 5678", "+390612345678"),  # an Italian nought stays
    ],
)
def test_a_number_is_written_in_one_way(written: str, expected: str) -> None:
    assert normalised(written, "BR") == expected


def test_of_no_region_every_number_has_its_country_code() -> None:
    assert normalised("51987654321", "BR") == "+5551987654321"
    assert normalised("51987654321", "") == "+51987654321"


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("123", "'123' is too short for a number of Brazil"),
        ("+5511", "'+5511' is too short for a number of Brazil"),
        ("+55119876543210", "'+55119876543210' is too long for a number of Brazil"),
        ("+999123456", "'+999123456' is not a number of any country"),
        ("+5520987654321", "'+5520987654321' is not in use in Brazil"),
        ("+10005550006", "'+10005550006' is not in use in United States"),
        ("ask Maria", "'ask Maria' is not a phone number"),
        ("maria@example.com", "'maria@example.com' is not a phone number"),
        ("11 98765-4321 ext. 7", "'11 98765-4321 ext. 7' is not a phone number"),
        ("", "'' is not a phone number"),
        ("+", "'+' is not a phone number"),
        ("9" * 41, f"'{'9' * 40}…' is not a phone number"),
        ("br.1502576394655843", "'br.1502576394655843' is not a phone number"),
    ],
)
def test_what_is_no_number_is_refused_with_the_reason_and_what_to_do(written: str, reason: str) -> None:
    with pytest.raises(
        ValueError, match="^" + re.escape(f"{reason}: write the number with country and area code")
    ):
        normalised(written, "BR")


@pytest.mark.parametrize("user_id", ["BR.1502576394655843", "US.ENT.11815799212886844830", f"BR.{'a1' * 64}"])
def test_a_business_scoped_user_id_passes_unchanged(user_id: str) -> None:
    assert is_user_id(user_id)
    assert normalised(user_id, "BR") == recipient_key(user_id) == user_id


@pytest.mark.parametrize(
    "text", ["BR.", "BR.a b", "B.1", "BRA.1", "BR.ENT.", f"BR.{'1' * 129}", "BR.1\n", "5511", "BR.é"]
)
def test_what_only_looks_like_a_user_id_is_none(text: str) -> None:
    assert not is_user_id(text)
    with pytest.raises(ValueError, match="write the number"):
        normalised(text, "BR")


def examples() -> list[str]:
    """A mobile number of every area code of Brazil, and the library's own."""
    own = phonenumbers.example_number_for_type("BR", PhoneNumberType.MOBILE)
    assert own
    return [
        phonenumbers.format_number(own, PhoneNumberFormat.E164),
        *(f"+55{code}9{first}7654321" for code in AREA_CODES for first in "6789"),
    ]


@pytest.mark.parametrize(
    "form", [PhoneNumberFormat.E164, PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.NATIONAL]
)
def test_brazils_mobile_numbers_come_back_from_every_way_of_writing_them(form: int) -> None:
    for number in examples():
        written = phonenumbers.format_number(phonenumbers.parse(number), form)
        assert normalised(written, "BR") == number
        assert normalised(number.removeprefix("+"), "BR") == number
        assert normalised(f"{number[:5]}{number[6:]}", "BR") == number  # without the ninth digit


@given(mobile)
def test_all_spellings_of_a_recipient_have_one_key(number: str) -> None:
    old = f"{number[:2]}{number[3:]}"
    spellings = [f"55{number}", f"+55{number}", f"55{old}", f"+55{old}", f"+55 {number[:2]} {number[2:]}"]
    assert {recipient_key(spelling) for spelling in spellings} == {f"55{number}"}
    assert recipient_key(normalised(spellings[-2], "BR")) == f"55{number}"


@given(mobile, mobile)
def test_different_recipients_have_different_keys(one: str, other: str) -> None:
    assert (recipient_key(f"55{one}") == recipient_key(f"+55{other}")) is (one == other)


@given(st.text())
def test_a_recipients_key_is_short_and_not_empty(to: str) -> None:
    assert len(recipient_key(to)) <= 135
    assert recipient_key(to) or not to.removeprefix("+")


anything = st.one_of(
    st.text(),
    st.text(alphabet=f"{string.digits}+ ()-./;=xext#*,", max_size=41),
    st.from_regex(r"\+?[0-9]{1,17}", fullmatch=True),
    mobile,
)


@given(anything, st.sampled_from(["BR", "US", "MX", "AR", "IT", "ZZ", ""]))
@example("+55 11 98765-4321", "")
@example("٠١١٩٨٧٦٥٤٣٢١", "BR")
def test_a_normalised_number_stays_as_it_is_and_nothing_but_value_errors_are_raised(
    text: str, region: str
) -> None:
    try:
        number = normalised(text, region)
    except ValueError:
        return
    assert is_user_id(number) or re.fullmatch(r"\+[1-9][0-9]{5,15}", number, re.ASCII)
    assert normalised(number, region) == normalised(number, "BR") == number
