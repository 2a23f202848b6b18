"""Billing's SQL: what is read and written, in the caller's transaction. It decides nothing.

Statements are the same on SQLite and Postgres. `rows` has usage, delivery and progress, `prices`
the price books and terms, `invoices` what is issued.
"""

from typing import Any

import msgspec

from handoff_common.database import Tx, inserting

__all__ = ["Tx", "as_json", "inserting"]


def as_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
