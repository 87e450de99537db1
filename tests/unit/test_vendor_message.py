"""The message to a vendor: how it reads, and that no order breaks it."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.jobs import OrderItem, SendVendor
from stages.money import money
from stages.notification.vendor import LOCALE, checked, order_text

pytestmark = pytest.mark.unit

PIZZA = OrderItem("Pizza grande", 2, Decimal("75.5"))
ORDER = SendVendor(
    order_id="A-1042",
    client_phone="+5511987654321",
    total=Decimal(162),
    items=[PIZZA, OrderItem("Guaraná 2 l", 1, Decimal(11)), OrderItem("Guardanapos", 1_200)],
    proof_url="https://files.example/proof.pdf",
)


def order(**changes: object) -> SendVendor:
    fields: dict[str, object] = {name: getattr(ORDER, name) for name in ORDER.__struct_fields__}
    return SendVendor(**fields | changes)  # type: ignore[arg-type]


def test_an_order_reads_well() -> None:
    assert order_text(ORDER, 1024) == (
        "Oba! Pedido A-1042 pago 🎉\n"
        "Cliente: +55 11 98765-4321\n"
        "\n"
        "• 2x Pizza grande: R$ 75,50 cada\n"
        "• 1x Guaraná 2 l: R$ 11,00\n"
        "• 1.200x Guardanapos\n"
        "\n"
        "Total: R$ 162,00\n"
        "Comprovante: em anexo"
    )


def test_without_items_and_proof_it_says_the_rest() -> None:
    assert order_text(order(items=[], proof_url=None), 1024) == (
        "Oba! Pedido A-1042 pago 🎉\nCliente: +55 11 98765-4321\n\nTotal: R$ 162,00\nComprovante: não enviado"
    )


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [
        ("162", "BRL", "R$ 162,00"),
        ("1234.5", "BRL", "R$ 1.234,50"),
        ("999999999999.99", "BRL", "R$ 999.999.999.999,99"),
        ("0", "BRL", "R$ 0,00"),
        ("-0.00", "BRL", "R$ 0,00"),
        ("0.005", "BRL", "R$ 0,01"),
        ("1E+3", "BRL", "R$ 1.000,00"),
        ("1E-300", "BRL", "R$ 0,00"),
        ("1234.5", "USD", "US$ 1.234,50"),
        ("1234.5", "JPY", "JP¥ 1.235"),
        ("1.2345", "KWD", "KWD 1,235"),
        ("10", "XYZ", "XYZ 10,00"),
    ],
)
def test_money_is_written_as_in_brazil(amount: str, currency: str, expected: str) -> None:
    assert money(Decimal(amount), currency, LOCALE) == expected


@pytest.mark.parametrize(
    ("phone", "shown"),
    [
        ("5511987654321", "+55 11 98765-4321"),
        ("551187654321", "+55 11 98765-4321"),
        ("+14155552671", "+1 415-555-2671"),
        ("BR.1502576394655843", "BR.1502576394655843"),
        ("the *usual* one", "the ∗usual∗ one"),  # noqa: RUF001
    ],
)
def test_the_clients_phone_is_written_for_people(phone: str, shown: str) -> None:
    assert f"\nCliente: {shown}\n" in order_text(order(client_phone=phone), 1024)


def test_items_that_do_not_fit_are_counted() -> None:
    full = order_text(ORDER, 1024)
    assert order_text(ORDER, len(full)) == full
    short = order_text(ORDER, len(full) - 1)
    assert "• 1x Guaraná 2 l: R$ 11,00\n… e mais 1 item\n\nTotal" in short
    assert "Guardanapos" not in short
    for limit in range(len(order_text(order(items=[]), 1024)) + len("\n\n… e mais 3 itens"), len(full)):
        text = order_text(ORDER, limit)
        assert len(text) <= limit
        assert "… e mais " in text
        assert text.endswith("\n\nTotal: R$ 162,00\nComprovante: em anexo")
    many = order(items=[OrderItem(f"Prato do dia {n}") for n in range(500)])
    text = order_text(many, 400)
    count = text.count("• 1x Prato do dia")
    assert 5 < count < 20
    assert f"{count - 1}\n… e mais {500 - count} itens\n\nTotal: R$ 162,00\n" in text


def test_formatting_in_names_formats_nothing() -> None:
    names = [
        "*Promo",
        "Suco_de_uva _doce_",
        "~velho~",
        "```Prato",
        "> dica\n- um",
        "Bolo\u202egnp.exe\0",
        " a   b ",
        "\u200b",
    ]
    text = order_text(order(order_id="n_1*2", items=[OrderItem(name) for name in names]), 1024)
    assert not set("*~`\u202e\0") & set(text)
    lines = [line.removeprefix("• 1x ") for line in text.split("\n\n")[1].splitlines()]
    assert [lines[1], *lines[4:]] == ["Suco_de_uva ˍdoceˍ", "> dica - um", "Bolognp.exe", "a b", "(sem nome)"]
    assert text.startswith("Oba! Pedido n_1∗2 pago")  # noqa: RUF001


def test_an_emoji_of_several_parts_stays_whole() -> None:
    assert "• 1x Bolo 👨‍👩‍👧" in order_text(order(items=[OrderItem("Bolo 👨‍👩‍👧")]), 1024)


amounts = st.decimals(0, 10**12 - 1, allow_nan=False, places=2)
items = st.builds(
    OrderItem, st.text(min_size=1, max_size=200), st.integers(1, 1_000_000), st.one_of(st.none(), amounts)
)
orders = st.builds(
    SendVendor,
    st.text(min_size=1, max_size=100),
    st.text(min_size=1, max_size=100),
    amounts,
    st.lists(items, max_size=30),
    currency=st.sampled_from(["BRL", "JPY", "KWD", "ZZZ"]),
)


@given(orders, st.integers(400, 4096))
def test_every_order_fits_and_says_its_total(order: SendVendor, limit: int) -> None:
    text = order_text(checked(order), limit)
    assert len(text) <= limit
    assert f"\n\nTotal: {money(order.total, order.currency, LOCALE)}\n" in text
    assert text.endswith("Comprovante: não enviado")
    bullets = sum(line.startswith("• ") for line in text.splitlines())
    left = len(order.items) - bullets
    assert (f"… e mais {left} ite" in text) is (left > 0)


@pytest.mark.parametrize("amount", ["NaN", "sNaN", "Infinity", "-Infinity", "-0.01", "1000000000000", "1E+400"])
def test_amounts_that_are_none_are_refused(amount: str) -> None:
    with pytest.raises(ValueError, match=f"the total is {amount.replace('+', '.')}: expected an amount"):
        checked(order(total=Decimal(amount)))
    with pytest.raises(ValueError, match="the price of 'Pizza' is "):
        checked(order(items=[PIZZA, OrderItem("Pizza", 1, Decimal(amount))]))


def test_an_order_in_order_is_given_back() -> None:
    assert checked(ORDER) is ORDER
