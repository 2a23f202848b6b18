"""Billing's SQL: what is read and written, in the caller's transaction. It decides nothing.

Statements are the same on SQLite and Postgres. `rows` has usage, delivery and progress, `prices`
the price books and terms, `invoices` what is issued.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy.dialects import postgresql, sqlite

from handoff_common.database import Tx

__all__ = ["Tx", "as_json", "inserting"]


def inserting(tx: Tx) -> Callable[..., Any]:
    """The dialect's INSERT that knows ON CONFLICT."""
    return sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert


def as_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
