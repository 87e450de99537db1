"""The database that stores share. Each table lies beside the stage that owns it, in one `metadata`."""

from stages.store.database import Database, StoreUnavailable, metadata, sqlite_file

__all__ = ["Database", "StoreUnavailable", "metadata", "sqlite_file"]
