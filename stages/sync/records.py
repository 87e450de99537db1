"""What is kept of a shop's records, read from WooCommerce's JSON one by one."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from html.parser import HTMLParser
from typing import Annotated, Any, TypeVar

import msgspec

from stages.notification.phone import normalised
from stages.store import storable

LONGEST_NAME = 500  # characters
LONGEST_TEXT = 4_000  # characters of a description
MOST_ITEMS = 500
MOST_STOCK = 2**53
MOST_DIGITS = 15  # of an amount, before its point
ENDS_A_LINE = {"p", "br", "div", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6"}
UNSEEN = {"script", "style"}

Written = str | int | float | None  # an amount: plugins make numbers of what are strings
Id = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
Read = TypeVar("Read")


class BadRecord(Exception):
    """A record that cannot be kept; the message says what is wrong with it."""


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """`price` is what it costs now, with `currency` the shop's, as a decimal in digits; None where it has none.
    Where it `varies`, it is the lowest: the product comes in sizes, say.
    `stock` is how many there are, None where the shop does not count. Times are in ms."""

    id: int
    name: str
    sku: str
    price: str | None
    regular_price: str | None
    currency: str
    stock: int | None
    available: bool
    published: bool
    varies: bool
    url: str
    about: str
    modified_ms: int


class Item(msgspec.Struct, frozen=True):
    """A line of an order; `total` is of all of them. There may be half a kilogram of something."""

    name: str
    quantity: float
    total: str


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """`phone` is as in +5511987654321, or as it was written where it is none. `paid_ms` is when it was paid, None
    where it is not. `status` is WooCommerce's, or one that a plugin brought. `proof_url`: of a payment proof that
    came by chat; empty where none did."""

    id: int
    number: str
    status: str
    phone: str
    customer: str
    email: str
    total: str
    currency: str
    items: tuple[Item, ...]
    created_ms: int
    modified_ms: int
    paid_ms: int | None
    proof_url: str = ""


class _Named(msgspec.Struct):
    id: Id


class _Status(msgspec.Struct):
    status: str = ""


class _Kind(msgspec.Struct):
    type: str = ""
    parent_id: int = 0


class _Dated(msgspec.Struct):
    date_modified_gmt: str | None = None


class _Product(msgspec.Struct):
    id: Id
    date_modified_gmt: str | None
    name: str = ""
    sku: str | None = ""
    price: Written = ""
    regular_price: Written = ""
    type: str = ""
    parent_id: int = 0
    stock_quantity: float | None = None
    stock_status: str = ""
    status: str = ""
    permalink: str = ""
    short_description: str = ""
    description: str = ""


class _Item(msgspec.Struct):
    name: str | None = None
    quantity: float = 1
    total: Written = "0"


class _Billing(msgspec.Struct):
    first_name: str = ""
    last_name: str = ""
    phone: str = ""
    email: str | None = ""
    country: str | None = ""


class _Order(msgspec.Struct):
    id: Id
    status: str
    total: Written
    currency: str
    date_modified_gmt: str | None
    date_created_gmt: str | None = None
    date_paid_gmt: str | None = None
    number: str = ""
    billing: _Billing = msgspec.field(default_factory=_Billing)
    line_items: list[_Item] = []


PRODUCT_FIELDS, ORDER_FIELDS = (",".join(kind.__struct_fields__) for kind in (_Product, _Order))
_product = msgspec.json.Decoder(_Product).decode
_order = msgspec.json.Decoder(_Order).decode
_named = msgspec.json.Decoder(_Named).decode
_status = msgspec.json.Decoder(_Status).decode
_kind = msgspec.json.Decoder(_Kind).decode
_dated = msgspec.json.Decoder(_Dated).decode


def product(raw: msgspec.Raw, currency: str) -> Product:
    """Raises BadRecord."""
    read = _decoded(_product, raw)
    return Product(
        id=read.id,
        name=_line(text_of(read.name)),
        sku=_line(read.sku or ""),
        price=_amount("price", read.price),
        regular_price=_amount("regular_price", read.regular_price),
        currency=currency,
        stock=_stock(read.stock_quantity),
        available=read.stock_status != "outofstock",
        published=read.status == "publish",
        varies=read.type in ("variable", "grouped"),
        url=_line(read.permalink),
        about=text_of(read.short_description or read.description),
        modified_ms=_ms("date_modified_gmt", read.date_modified_gmt),
    )


def order(raw: msgspec.Raw, region: str) -> Order:
    """`region` is that of phone numbers without a country code. Raises BadRecord."""
    read = _decoded(_order, raw)
    modified = _ms("date_modified_gmt", read.date_modified_gmt)
    return Order(
        id=read.id,
        number=_line(read.number) or str(read.id),
        status=_line(read.status),
        phone=_phone(read.billing.phone, read.billing.country or region),
        customer=_line(f"{read.billing.first_name} {read.billing.last_name}"),
        email=_line(read.billing.email or ""),
        total=_amount("total", read.total) or "0",
        currency=_line(read.currency),
        items=tuple(
            Item(_line(text_of(item.name or "")), item.quantity, _amount("total of an item", item.total) or "0")
            for item in read.line_items[:MOST_ITEMS]
        ),
        created_ms=_ms("date_created_gmt", read.date_created_gmt) if read.date_created_gmt else modified,
        modified_ms=modified,
        paid_ms=_ms("date_paid_gmt", read.date_paid_gmt) if read.date_paid_gmt else None,
    )


def id_of(raw: msgspec.Raw) -> int | None:
    """Of a record that may not be one that can be read; None where it has none."""
    try:
        return _named(raw).id
    except (ValueError, RecursionError):
        return None


def status_of(raw: msgspec.Raw) -> str:
    """Likewise; empty where that cannot be told."""
    try:
        return _status(raw).status
    except (ValueError, RecursionError):
        return ""


def parent_of(raw: msgspec.Raw) -> int:
    """The id of the product that this is a variation of; 0 where it is none."""
    try:
        kind = _kind(raw)
    except (ValueError, RecursionError):
        return 0
    return kind.parent_id if kind.type == "variation" else 0


def modified_ms(raw: msgspec.Raw) -> int | None:
    """When a record was modified, though it may not be one that can be read; None where that cannot be told."""
    try:
        return _ms("date_modified_gmt", _dated(raw).date_modified_gmt)
    except (ValueError, RecursionError, BadRecord):
        return None


def _decoded(decode: Callable[[msgspec.Raw], Read], raw: msgspec.Raw) -> Read:
    try:
        return decode(raw)
    except (ValueError, RecursionError) as error:
        raise BadRecord(str(error)) from None


def _amount(name: str, given: Written) -> str | None:
    """An amount in plain digits, with a point; None where there is none. Raises BadRecord."""
    written = "" if given is None else str(given)
    if not written.strip():
        return None
    try:
        amount = Decimal(written)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount.adjusted() >= MOST_DIGITS or amount.as_tuple().exponent < -MOST_DIGITS:  # type: ignore[operator]
        raise BadRecord(f"its {name} is {written[:40]!r}, which is no amount")
    return f"{amount:f}"


def _stock(count: float | None) -> int | None:
    """Raises BadRecord."""
    if count is not None and abs(count) > MOST_STOCK:
        raise BadRecord(f"its stock_quantity is {count:g}")
    return None if count is None else int(count)


def _ms(name: str, written: str | None) -> int:
    """Raises BadRecord."""
    try:
        moment = datetime.fromisoformat(written or "")
        return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise BadRecord(f"its {name} is {(written or '')[:40]!r}, which is no time") from None


def _phone(written: str, region: str) -> str:
    try:
        return normalised(written, region)
    except ValueError:
        return _line(written)


def _line(written: str) -> str:
    """As it can be kept: one line, bounded."""
    return " ".join(storable(written).split())[:LONGEST_NAME]


def text_of(html: str) -> str:
    """The words of a piece of HTML, as they stand below each other; bounded."""
    if "<" not in html and "&" not in html:
        return storable(html).strip()[:LONGEST_TEXT]
    reader = _Words()
    reader.feed(html)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.words).split("\n"))
    return storable("\n".join(filter(None, lines)))[:LONGEST_TEXT]


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, _: Any) -> None:
        self._unseen += tag in UNSEEN
        if tag in ENDS_A_LINE:
            self.words.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._unseen -= tag in UNSEEN and self._unseen > 0
        if tag in ENDS_A_LINE:
            self.words.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.words.append(re.sub(r"\s+", " ", data))
