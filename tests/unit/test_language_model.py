"""What of a model's answer goes to the customer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.conversation.language_model import TEXT_LIMIT, fit

pytestmark = pytest.mark.unit

WORDS = "uma pizza grande " * 300


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        (" Claro! ", "Claro!"),
        ("<think>hm</think>Claro!", "Claro!"),
        ("\n<think>\nhm\n</think>\n\nClaro!", "Claro!"),
        ("hm, the template began it\n</think>Claro!", "Claro!"),
        ("<think>cut off", ""),
        ("<think></think>", ""),
        ("I <think> so", "I <think> so"),
        ("hm</think><think>cut off", ""),
        ("Cl\0aro!", "Claro!"),
    ],
)
def test_reasoning_and_what_a_database_cannot_keep_are_left_out(answer: str, sent: str) -> None:
    assert fit(answer) == sent


def test_what_just_fits_stays() -> None:
    assert fit("x" * TEXT_LIMIT) == "x" * TEXT_LIMIT


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (f"{WORDS[:3000]}. {WORDS}", "."),
        (f"{'x' * (TEXT_LIMIT - 1)}! {WORDS}", "!"),  # it ends just where the limit is
        (f"Sim. {WORDS}", "pizza"),  # too little would be left of it
        (f"{'x' * TEXT_LIMIT} y", "x"),
        ("x" * 9999, "x"),
    ],
)
def test_a_long_text_ends_with_a_sentence_or_else_a_word(text: str, end: str) -> None:
    cut = fit(text)
    assert text.startswith(cut)
    assert cut.endswith(end)
    assert TEXT_LIMIT / 2 < len(cut) <= TEXT_LIMIT


@given(st.lists(st.sampled_from(["ab", " ", ". ", "\n", "\0", "<think>", "</think>"])), st.integers(1, 2000))
def test_whatever_the_answer_it_fits(parts: list[str], times: int) -> None:
    answer = "".join(parts) * times
    assert len(fit(answer)) <= TEXT_LIMIT
    assert fit(fit(answer)) == fit(answer)
