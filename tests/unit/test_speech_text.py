"""What of a reply is spoken: words, and nothing that only eyes can use."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages.speech.text import speakable

pytestmark = pytest.mark.unit

ANYTHING = st.text() | st.lists(
    st.sampled_from(
        ["Olá", " ", "\n", "*", "_", "[a](b)", "](", "https://", "www.", "👋🏽", "\u200d", "#", "-", "e\u0301"]
    )
).map("".join)
SYMBOLS = {"So", "Sk", "Me", "Cc", "Cf", "Co", "Cs", "Cn"}


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Olá! Como podemos ajudar?", "Olá! Como podemos ajudar?"),
        ("Pedido *confirmado* 🎉👍🏽", "Pedido confirmado"),
        ("Veja em https://loja.com.br/p?id=1_2_3 agora", "Veja em agora"),
        ("Veja WWW.LOJA.COM.BR/a*b", "Veja"),
        ("O [cardápio](https://loja.com/menu) de hoje", "O cardápio de hoje"),
        ("# Pedido\n\n- 2 pizzas\n- 1 suco\n> até já", "Pedido. 2 pizzas. 1 suco. até já"),
        ("Total:\nR$ 89,50", "Total: R$ 89,50"),
        ("Está 30 °C, ~frio~ `demais`", "Está 30 °C, frio demais"),
        ("1\ufe0f\u20e3 quente👨‍👩‍👧frio", "1 quente frio"),
        ("-5 graus, 2+2, e-mail", "-5 graus, 2+2, e-mail"),
        ("[[_Ola]] <b>oi</b>", "Ola <b>oi</b>"),
        ("cafe\u0301", "café"),
        ("👍\n***\n…", ""),
        ("", ""),
    ],
)
def test_what_is_spoken(written: str, spoken: str) -> None:
    assert speakable(written) == spoken


@given(ANYTHING)
@example("ht\u200btps://a b")
@example("https*://a b")
@example("# # a")
@example("HTTP://\r0")
@example("- https://a - b")
def test_whatever_is_written_one_clean_line_is_spoken(written: str) -> None:
    spoken = speakable(written)
    spoken.encode()
    assert len(spoken.splitlines()) <= 1
    assert not set("*_~[]") & set(spoken)
    assert not {unicodedata.category(c) for c in spoken if c != "°"} & SYMBOLS
    assert "https://" not in spoken.lower()
    assert speakable(spoken) == spoken


@given(st.text(st.characters(categories=["L", "Nd"], max_codepoint=0x24F), min_size=1))
def test_plain_words_are_spoken_as_they_are(word: str) -> None:
    word = unicodedata.normalize("NFC", word)
    assert speakable(f"{word}, {word}!") == f"{word}, {word}!"
