"""Products and orders of the tenants' shops, and how far they have been pulled."""

from alembic.operations import Operations
from sqlalchemy import BigInteger, Boolean, Column, String, Text

revision = "0003"
down_revision = "0002"


def upgrade(op: Operations) -> None:
    op.create_table(
        "products",
        Column("tenant", String, primary_key=True),
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("name", Text, nullable=False),
        Column("sku", String, nullable=False),
        Column("price", String),
        Column("regular_price", String),
        Column("currency", String, nullable=False),
        Column("stock", BigInteger),
        Column("available", Boolean, nullable=False),
        Column("published", Boolean, nullable=False),
        Column("url", Text, nullable=False),
        Column("about", Text, nullable=False),
        Column("words", Text, nullable=False),
        Column("modified_ms", BigInteger, nullable=False),
        Column("seen_ms", BigInteger, nullable=False),
    )
    op.create_index("products_by_seen", "products", ["tenant", "seen_ms"])
    op.create_table(
        "orders",
        Column("tenant", String, primary_key=True),
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("number", String, nullable=False),
        Column("status", String, nullable=False),
        Column("phone", String, nullable=False),
        Column("customer", Text, nullable=False),
        Column("email", String, nullable=False),
        Column("total", String, nullable=False),
        Column("currency", String, nullable=False),
        Column("items", Text, nullable=False),
        Column("created_ms", BigInteger, nullable=False),
        Column("paid_ms", BigInteger),
        Column("told_ms", BigInteger),
        Column("modified_ms", BigInteger, nullable=False),
        Column("seen_ms", BigInteger, nullable=False),
    )
    op.create_index("orders_by_phone", "orders", ["tenant", "phone", "created_ms"])
    op.create_index("orders_by_seen", "orders", ["tenant", "seen_ms"])
    op.create_index("orders_by_paid", "orders", ["tenant", "paid_ms"])
    op.create_table(
        "pulls",
        Column("tenant", String, primary_key=True),
        Column("kind", String, primary_key=True),
        Column("began_ms", BigInteger, nullable=False),
        Column("position_ms", BigInteger, nullable=False),
        Column("full_began_ms", BigInteger),
        Column("full_ended_ms", BigInteger),
        Column("ended_ms", BigInteger),
        Column("holder", String, nullable=False),
        Column("held_until_ms", BigInteger, nullable=False),
        Column("failures", BigInteger, nullable=False),
        Column("next_ms", BigInteger, nullable=False),
        Column("problem", Text, nullable=False),
    )
