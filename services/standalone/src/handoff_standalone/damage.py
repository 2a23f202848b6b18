"""A damaged database of the data folder, named: which file, what is wrong, what can be done."""

import sqlite3
from pathlib import Path

from handoff_common.errors import HandoffError

_WAY_OUT = {
    "config": "restore it from a backup",
    "billing": "restore it from a backup; final invoices are also in the log",
    "metering": "move it away and run `handoff rebuild`, which makes it again from the log",
}


class DatabaseDamaged(HandoffError):
    """A service's database cannot be used."""

    code = "database_damaged"


def named(error: BaseException, data: Path, service: str) -> BaseException:
    """DatabaseDamaged where the error comes from the service's database file, else the error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, sqlite3.DatabaseError):
        cause = cause.__cause__
    if cause is None or service not in _WAY_OUT:
        return error
    return DatabaseDamaged(f"{data / service}.db: {cause}; {_WAY_OUT[service]}")
