"""What edges have refused, as they last said. Pure.

Counts are absolute and only grow, so of each the greatest holds: the order of events, repeats, and
the loss of any but the last of a key change nothing.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from handoff_common.events import RefusalsData
from handoff_common.instants import to_ms
from handoff_common.minutes import hour_of

NOBODY = ""
"""In place of a service and its customer, where no service was asked for."""

_LONGEST = 64
"""Characters of an id."""


class Key(NamedTuple):
    """What one process of an edge counts. started_ms: when the process began."""

    edge_id: str
    started_ms: int
    hour_ms: int
    service_id: str
    cause: str


class Count(NamedTuple):
    customer_id: str
    refused: int


def newest(told: Iterable[RefusalsData], *, since_ms: int = 0) -> Mapping[Key, Count]:
    """The greatest of each count, of the hours from `since_ms` on."""
    found: dict[Key, Count] = {}
    for data in told:
        hour_ms = hour_of(to_ms(data.hour))
        if hour_ms < since_ms:
            continue
        for one in data.counts:
            service_id, customer_id = one.service_id or NOBODY, one.customer_id or NOBODY
            key = Key(data.edge_id, to_ms(data.started_at), hour_ms, service_id, one.cause)
            if not all(_fits(text) for text in (data.edge_id, service_id, customer_id)):
                continue
            known = found.get(key)
            if known is None or known.refused < one.count:
                found[key] = Count(customer_id, one.count)
    return found


def _fits(identifier: str) -> bool:
    """What no database column takes must not stop the reader, whoever wrote it."""
    return len(identifier) <= _LONGEST and "\0" not in identifier
