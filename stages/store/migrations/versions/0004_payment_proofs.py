"""Where the payment proof of an order is."""

from alembic.operations import Operations
from sqlalchemy import Column, Text, text

revision = "0004"
down_revision = "0003"


def upgrade(op: Operations) -> None:
    op.add_column("orders", Column("proof_url", Text, nullable=False, server_default=text("''")))
