"""Which published products have a word in their names."""

from alembic.operations import Operations
from sqlalchemy import BigInteger, Boolean, Column, String, column, select, table

revision = "0006"
down_revision = "0005"

LONGEST_WORD = 64
PART = 1_000  # products


def upgrade(op: Operations) -> None:
    words = op.create_table(
        "product_words",
        Column("tenant", String, primary_key=True),
        Column("word", String, primary_key=True),
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    op.create_index("product_words_by_id", "product_words", ["id", "tenant", "word"])
    products = table("products", column("tenant"), column("id"), column("words"), column("published", Boolean))
    connection = op.get_bind()
    found = connection.execute(select(products).where(products.c.published))
    for part in found.partitions(PART):
        rows = [
            {"tenant": row.tenant, "word": word, "id": row.id}
            for row in part
            for word in set(row.words.split())
            if len(word) <= LONGEST_WORD
        ]
        if rows:
            connection.execute(words.insert(), rows)
