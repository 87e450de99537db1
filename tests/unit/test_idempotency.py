"""Idempotency keys: what is one, and what is kept of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.idempotency import key_of, name_of
from api.problems import Problem

pytestmark = pytest.mark.unit

printable = st.text(st.characters(min_codepoint=32, max_codepoint=126))


@pytest.mark.parametrize(
    ("offered", "key"),
    [
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (r'"with \"quotes\" and \\"', r'with "quotes" and \\'[:-1]),
        ("order 7", "order 7"),
        ("k" * 255, "k" * 255),
        ('"open', '"open'),
    ],
)
def test_a_key_is_taken_in_quotes_and_without(offered: str, key: str) -> None:
    assert key_of([offered]) == key


@pytest.mark.parametrize("offered", [[""], ['""'], ["k" * 256], ["a\tb"], ["chave-ç"], ["a", "b"], ["a", "a"]])
def test_what_is_no_key_is_refused_with_what_to_send(offered: list[str]) -> None:
    with pytest.raises(Problem, match="1 to 255 printable ASCII characters") as raised:
        key_of(offered)
    assert raised.value.status == 400


@given(printable, printable, printable, printable)
def test_keys_of_two_callers_never_meet(one: str, key: str, other: str, other_key: str) -> None:
    same = (one, key) == (other, other_key)
    assert (name_of(one, key) == name_of(other, other_key)) == same
