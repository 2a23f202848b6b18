"""Usage: minutes, connections open at once, and bandwidth, by hour, day or month."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from starlette.responses import Response
from starlette.routing import Route

from handoff_client import HandoffApiError, Unauthorized, metering, usage
from handoff_client.metering import ConcurrencyRow
from handoff_common.access import Permission
from handoff_console import usage_figures
from handoff_console.context import Refused, Visit, page
from handoff_console.filters import BadFilter, Filters, field, written
from handoff_console.live import service_names
from handoff_console.periods import Range, after, label, range_of, years
from handoff_console.usage_figures import Figures

EVERY_SERVICE = "all services"
TROUBLES = {
    "connections_gone": "Connections of some of this time are not kept any more: choose a later "
    "time to see how many were open at once.",
    "too_many_connections": "There were too many connections to tell how many were open at once: "
    "choose a shorter time.",
}
"""Why connections open at once cannot be told, by the API's code."""
MOST_LISTED = 96
"""Periods of a table: four days of hours. A page of all that a chart has would be long to load."""


class Looked(NamedTuple):
    """trouble: why connections open at once cannot be told; "" where they are."""

    range: Range
    service_id: str | None
    names: Mapping[str, str]
    figures: Figures
    trouble: str

    @property
    def service(self) -> str:
        if self.service_id is None:
            return EVERY_SERVICE
        return self.names.get(self.service_id, self.service_id)


async def shown(visit: Visit) -> Response:
    """A range that cannot be is mended where it was typed."""
    try:
        looked = await _look(visit)
    except BadFilter as error:
        return await _to_mend(visit, error)
    range_, figures = looked.range, looked.figures
    query: dict[str, str] = {
        "by": range_.by,
        "from": written(range_.from_),
        "to": written(range_.to),
    }
    if looked.service_id is not None:
        query["service_id"] = looked.service_id
    listed = figures.periods[-MOST_LISTED:]
    cut = len(listed) < len(figures.periods)
    return visit.render(
        "usage.html",
        looked=looked,
        by=range_.by,
        usual=range_ == range_of({"by": range_.by}, visit.console.clock.now()),
        service_id=looked.service_id,
        wrong={},
        range=range_,
        figures=figures,
        query=query,
        listed=listed,
        earlier=query | {"to": written(listed[0].start)} if cut else None,
        label=lambda at: label(at, range_.by),
        connections_of=lambda at: Filters(
            service_id=looked.service_id, from_=at, to=after(at, range_.by)
        ).query(),
        from_field=field(range_.from_),
        to_field=field(range_.to),
        services=_options(looked.names),
        charts={
            "minutes": usage_figures.minutes_chart(figures),
            "open": usage_figures.open_chart(figures),
            "bytes": usage_figures.bytes_chart(figures),
        },
    )


async def _to_mend(visit: Visit, error: BadFilter) -> Response:
    query = visit.request.query_params
    return visit.render(
        "usage.html",
        status=400,
        looked=None,
        by=query.get("by") or "day",
        service_id=query.get("service_id") or None,
        wrong={error.name: str(error)},
        from_field=query.get("from", ""),
        to_field=query.get("to", ""),
        services=_options(await service_names(visit.api, visit.customer_id)),
    )


def _options(names: Mapping[str, str]) -> list[tuple[str, str]]:
    return [("", EVERY_SERVICE), *sorted(names.items(), key=lambda one: one[1].casefold())]


async def as_csv(visit: Visit) -> Response:
    try:
        looked = await _look(visit)
    except BadFilter as error:
        raise Refused(400, "This range cannot be shown", str(error)) from None
    name = f"usage-{label(looked.range.from_, 'day')}-by-{looked.range.by}.csv"
    return Response(
        usage_figures.csv(looked.figures, looked.service),
        media_type="text/csv; charset=utf-8; header=present",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


async def _look(visit: Visit) -> Looked:
    """Raises BadFilter."""
    now = visit.console.clock.now()
    query = visit.request.query_params
    range_ = range_of(query, now)
    customer_id, service_id = visit.customer_id, query.get("service_id") or None
    rows, names, (open_, trouble) = await asyncio.gather(
        _rows(visit, range_, customer_id, service_id),
        service_names(visit.api, customer_id),
        _concurrency(visit, range_, customer_id, service_id),
    )
    figures = usage_figures.figures_of(range_, rows, open_, now)
    return Looked(range_, service_id, names, figures, trouble)


async def _rows(
    visit: Visit, range_: Range, customer_id: str, service_id: str | None
) -> list[usage.Row]:
    listing = usage.listing(
        by=range_.by,
        service_id=service_id,
        from_=range_.from_,
        to=range_.to,
        customer_id=customer_id,
        limit=1_000,
    )
    return [row async for row in visit.api.items(listing)]


async def _concurrency(
    visit: Visit, range_: Range, customer_id: str, service_id: str | None
) -> tuple[Sequence[ConcurrencyRow] | None, str]:
    """Of the service or of all together, and why there is none. Asked for year by year: the API
    answers for no longer time at once."""
    rows: list[ConcurrencyRow] = []
    try:
        for part in years(range_, visit.console.clock.now()):
            asked = metering.concurrency(
                service_id,
                customer_id=customer_id,
                by="hour" if range_.by == "hour" else "day",
                from_=part.from_,
                to=part.to,
            )
            found = await visit.api.run(asked)
            rows.extend(found)
    except Unauthorized:
        raise
    except HandoffApiError as error:
        return None, TROUBLES.get(error.code) or error.detail or "This cannot be told just now."
    return rows, ""


ROUTES = (
    Route("/usage", page(Permission.READ_STATS, shown)),
    Route("/usage.csv", page(Permission.READ_STATS, as_csv)),
)
