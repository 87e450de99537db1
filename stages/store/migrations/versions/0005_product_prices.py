"""Which products have several prices."""

from alembic.operations import Operations
from sqlalchemy import Boolean, Column, false

revision = "0005"
down_revision = "0004"


def upgrade(op: Operations) -> None:
    op.add_column("products", Column("varies", Boolean, nullable=False, server_default=false()))
