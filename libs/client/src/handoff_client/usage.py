"""`/v1/usage`: minutes and bytes by period, service and region."""

from datetime import datetime
from typing import Literal

from handoff_client.answer import Instant
from handoff_client.answer import listing as _listing
from handoff_client.call import Listing
from handoff_client.connections import Counters


class Row(Counters, frozen=True, kw_only=True):
    """One service in one region in the period that begins at `start`. lost: of those closed, whose
    edge went away."""

    start: Instant
    service_id: str
    region: str
    minutes: int
    opened: int
    closed: int
    lost: int


def listing(
    *,
    by: Literal["hour", "day", "month"] = "day",
    service_id: str | None = None,
    region: str | None = None,
    from_: datetime | None = None,
    to: datetime | None = None,
    customer_id: str | None = None,
    limit: int | None = None,
) -> Listing[Row]:
    """Of the current month where `from_` and `to` are left out. customer_id: operators may name
    one."""
    return _listing(
        "/v1/usage",
        Row,
        query={
            "by": by,
            "service_id": service_id,
            "region": region,
            "from": from_,
            "to": to,
            "customer_id": customer_id,
            "limit": limit,
        },
    )
