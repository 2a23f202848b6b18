"""Refused handoffs by cause: what was refused, why, and what to do about it. An operator who has
chosen no customer sees everyone's, and those of no service."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from starlette.responses import Response
from starlette.routing import Route

from handoff_client import metering
from handoff_client.metering import RefusalRow
from handoff_common.access import Permission
from handoff_console.context import Refused, Visit, page
from handoff_console.live import service_names
from handoff_console.periods import By, Range, after, earlier, filled, label, start_of
from handoff_console.refusal_causes import Cause, cause
from handoff_console.service_names import names_of
from handoff_console.usage_figures import chart

SPANS: Mapping[str, tuple[str, By, int]] = {
    "hour": ("Last hour", "hour", 2),
    "day": ("Last 24 hours", "hour", 24),
    "month": ("Last 30 days", "day", 30),
}
"""Name → its text, the periods it is counted by, and how many. Counts are told by the hour, so that
the last hour is the one that is not over and the one before."""


class Line(NamedTuple):
    """Handoffs of one service that were refused for one cause. service_id None: of none."""

    service_id: str | None
    code: str
    refused: int

    @property
    def page(self) -> str | None:
        """Where what was lacking is switched."""
        if self.code != "not_enabled" or self.service_id is None:
            return None
        return f"/services/{self.service_id}/websockets"

    @property
    def cause(self) -> Cause:
        return cause(self.code)


def lines_of(rows: Sequence[RefusalRow]) -> list[Line]:
    """Per service and cause, the most frequent first."""
    counts: dict[tuple[str | None, str], int] = {}
    for row in rows:
        key = (row.service_id, row.cause)
        counts[key] = counts.get(key, 0) + row.count
    lines = [Line(*key, count) for key, count in counts.items()]
    return sorted(lines, key=lambda line: (-line.refused, line.code, line.service_id or ""))


async def shown(visit: Visit) -> Response:
    query = visit.request.query_params
    span, service_id = query.get("span") or "day", query.get("service_id") or None
    if span not in SPANS:
        raise Refused(400, "No such span", f"span must be one of {', '.join(SPANS)}.")
    everyone = visit.viewer.is_operator and visit.viewer.customer_id is None
    _, by, count = SPANS[span]
    end = after(start_of(visit.console.clock.now(), by), by)
    range_ = Range(by, earlier(end, by, count), end)
    listing = metering.refusals(
        by="day" if by == "day" else "hour",
        service_id=service_id,
        from_=range_.from_,
        customer_id=None if everyone else visit.customer_id,
        limit=1_000,
    )
    if everyone:
        rows = await _all(visit, listing)
        names = await names_of(visit, (row.service_id for row in rows if row.service_id))
    else:
        rows, names = await asyncio.gather(
            _all(visit, listing), service_names(visit.api, visit.customer_id)
        )
    lines = lines_of(rows)
    periods = filled(range_, (row for row in rows if row.hour is not None), _hour)
    values = [sum(row.count for row in found) for found in periods.values()]
    options = sorted(names.items(), key=lambda one: one[1].casefold())
    return visit.render(
        "refused.html",
        everyone=everyone,
        span=span,
        spans=SPANS,
        service_id=service_id,
        services=[("", "all services"), *options],
        names=names,
        lines=lines,
        total=sum(line.refused for line in lines),
        periods=list(zip(periods, values, strict=True)),
        label=label,
        chart=chart(range_, [("Refused", "bars", values)]),
        by=by,
    )


def _hour(row: RefusalRow) -> Any:
    return row.hour


async def _all(visit: Visit, listing: Any) -> list[RefusalRow]:
    return [row async for row in visit.api.items(listing)]


ROUTES = (Route("/connections/refused", page(Permission.READ_STATS, shown)),)
