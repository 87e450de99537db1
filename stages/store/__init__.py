"""The database that stores share. Each table lies beside the stage that owns it, in one `metadata`."""

from stages.store.bulk import Bulk, Rows
from stages.store.database import Database, metadata, sqlite_file, storable
from stages.store.errors import StoreUnavailable, WriteRefused

__all__ = ["Bulk", "Database", "Rows", "StoreUnavailable", "WriteRefused", "metadata", "sqlite_file", "storable"]
