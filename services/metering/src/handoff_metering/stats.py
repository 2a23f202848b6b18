"""The statistics calls, in the shapes of the API that its clients know.

Rows are by UTC hour or day, or by minute for the last two hours. `from` counts from the start of
the period that holds it, `to` is exclusive. What `websocket_conn_time_ms` says is owed minutes
times 60,000, in the period in which each minute starts; live, as far as watermarks have come.
`requests` is the connections accepted, `bandwidth` the bytes that count as delivery.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Query

from handoff_common.access import Permission, Principal, authorize
from handoff_common.instants import from_ms, to_ms
from handoff_common.minutes import DAY_MS, HOUR_MS, MINUTE_MS, month_bounds, month_of
from handoff_metering.context import Context, ordered, region
from handoff_metering.errors import bad_parameter
from handoff_metering.schemas import FIELDS, REGIONS, bandwidth, stats_row
from handoff_metering.store import reports
from handoff_metering.usage import Totals

_PERIODS = {"minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS}
_DEFAULT_SPAN_MS = {"minute": 2 * HOUR_MS, "hour": DAY_MS, "day": 30 * DAY_MS}
_MINUTES_KEPT_MS = 2 * HOUR_MS

Text = Annotated[str | None, Query()]
Reader = Annotated[Principal, Depends(authorize(Permission.READ_STATS))]


class _Range(NamedTuple):
    by: str
    region: str | None
    from_ms: int
    to_ms: int


def router(context: Context) -> APIRouter:
    """The `/stats` paths."""
    routes = APIRouter(prefix="/stats", tags=["stats"])

    def ranged(
        from_: Annotated[str | None, Query(alias="from")] = None,
        to: Text = None,
        by: Text = None,
        region_: Annotated[str | None, Query(alias="region")] = None,
    ) -> _Range:
        return _range(context, from_, to, by, region_)

    Ranged = Annotated[_Range, Depends(ranged)]  # noqa: N806  (a type)

    async def rows(
        asked: _Range, customer_id: str | None, service_id: str | None
    ) -> list[reports.Row]:
        scope = reports.Scope(customer_id, service_id, asked.region, asked.from_ms, asked.to_ms)
        async with context.database.read() as tx:
            if asked.by == "minute":
                return await reports.usage_by_minute(tx, scope)
            return await reports.usage(tx, scope, asked.by)

    @routes.get("/regions")
    async def regions(_: Reader) -> dict[str, Any]:
        """The billing regions."""
        return {"status": "success", "meta": {}, "msg": None, "data": list(REGIONS)}

    @routes.get("/aggregate")
    async def aggregate(
        principal: Reader, asked: Ranged, customer_id: Text = None
    ) -> dict[str, Any]:
        """All services together."""
        found = await rows(asked, context.customer(principal, customer_id), None)
        return _envelope(asked, [stats_row(at, t, None) for at, t in _summed(found)])

    @routes.get("")
    async def every(principal: Reader, asked: Ranged, customer_id: Text = None) -> dict[str, Any]:
        """Each service by itself."""
        found = await rows(asked, context.customer(principal, customer_id), None)
        return _envelope(asked, _by_service(found))

    @routes.get("/field/{field}")
    async def every_field(
        principal: Reader, asked: Ranged, field: str, customer_id: Text = None
    ) -> dict[str, Any]:
        """One field, each service by itself."""
        _known(field)
        found = await rows(asked, context.customer(principal, customer_id), None)
        data = {
            service_id: [_only(row, field) for row in of_service]
            for service_id, of_service in _by_service(found).items()
        }
        return _envelope(asked, data)

    @routes.get("/service/{service_id}")
    async def one(principal: Reader, asked: Ranged, service_id: str) -> dict[str, Any]:
        """One service."""
        service = await context.service(principal, service_id)
        found = await rows(asked, service.customer_id, service_id)
        return _envelope(asked, [stats_row(at, t, service_id) for at, t in _summed(found)])

    @routes.get("/service/{service_id}/field/{field}")
    async def one_field(
        principal: Reader, asked: Ranged, service_id: str, field: str
    ) -> dict[str, Any]:
        """One field of one service."""
        _known(field)
        service = await context.service(principal, service_id)
        found = await rows(asked, service.customer_id, service_id)
        data = [_only(stats_row(at, t, service_id), field) for at, t in _summed(found)]
        return _envelope(asked, data)

    @routes.get("/usage")
    async def usage(principal: Reader, asked: Ranged, customer_id: Text = None) -> dict[str, Any]:
        """Bandwidth and requests by region."""
        found = await rows(asked, context.customer(principal, customer_id), None)
        return _envelope(asked, _by_region(found))

    @routes.get("/usage_by_service")
    async def usage_by_service(
        principal: Reader, asked: Ranged, customer_id: Text = None
    ) -> dict[str, Any]:
        """Bandwidth and requests by region, and in it by service."""
        found = await rows(asked, context.customer(principal, customer_id), None)
        data: dict[str, dict[str, dict[str, int]]] = {}
        for service_id in sorted({row.service_id for row in found}):
            for name, numbers in _by_region(r for r in found if r.service_id == service_id).items():
                data.setdefault(name, {})[service_id] = numbers
        return _envelope(asked, data)

    @routes.get("/usage_by_month")
    async def usage_by_month(
        principal: Reader,
        year: Text = None,
        month: Text = None,
        billable_units: Text = None,
        customer_id: Text = None,
    ) -> dict[str, Any]:
        """A month's bandwidth and requests by service and region, and in total."""
        start_ms, end_ms = _month(context, year, month)
        asked = _Range("day", None, start_ms, end_ms)
        whose = context.customer(principal, customer_id)
        found = await rows(asked, whose, None)
        billable = (billable_units or "").lower() in ("1", "true")
        services = {
            service_id: {
                "name": context.services.name_of(service_id),
                **_units(_by_region(r for r in found if r.service_id == service_id), billable),
            }
            for service_id in sorted({row.service_id for row in found})
        }
        data = {
            "customer_id": whose or "",
            "services": services,
            "total": _units(_by_region(found), billable),
        }
        return _envelope(asked._replace(by="month"), data)

    return routes


def _range(
    context: Context, from_: str | None, to: str | None, by: str | None, region_: str | None
) -> _Range:
    by = by or "day"
    if by not in _PERIODS:
        raise bad_parameter("by", f"{by!r}; allowed: {', '.join(_PERIODS)}")
    now_ms = context.clock.now_ms()
    to_instant = context.instant("to", to, now_ms)
    from_instant = context.instant("from", from_, max(0, to_instant - _DEFAULT_SPAN_MS[by]))
    ordered(from_instant, to_instant)
    start_ms = from_instant - from_instant % _PERIODS[by]
    if by == "minute" and start_ms < now_ms - _MINUTES_KEPT_MS - MINUTE_MS:
        raise bad_parameter("from", "by=minute is there for the last 2 hours; use by=hour")
    return _Range(by, region(region_), start_ms, to_instant)


def _month(context: Context, year: str | None, month: str | None) -> tuple[int, int]:
    now = from_ms(context.clock.now_ms())
    if year is None and month is None:
        start_ms = month_of(to_ms(now))
        return month_bounds(from_ms(start_ms).year, from_ms(start_ms).month)
    for name, text, low, high in (("year", year, 1970, 9998), ("month", month, 1, 12)):
        digits = text is None or (text.isascii() and text.isdigit() and len(text) <= 4)
        if text is not None and not (digits and low <= int(text) <= high):
            raise bad_parameter(name, f"{text[:40]!r}; allowed: {low} to {high}")
    return month_bounds(int(year or now.year), int(month or now.month))


def _envelope(asked: _Range, data: Any) -> dict[str, Any]:
    return {
        "status": "success",
        "meta": {
            "from": _text(asked.from_ms),
            "to": _text(asked.to_ms),
            "by": asked.by,
            "region": asked.region or "all",
        },
        "msg": None,
        "data": data,
    }


def _text(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _summed(rows: Iterable[reports.Row]) -> list[tuple[int, Totals]]:
    """Rows of all regions and services, by period."""
    periods: dict[int, Totals] = {}
    for row in rows:
        periods[row.start_ms] = periods.get(row.start_ms, Totals()).plus(row.totals)
    return sorted(periods.items())


def _by_service(rows: list[reports.Row]) -> dict[str, list[dict[str, Any]]]:
    return {
        service_id: [
            stats_row(at, totals, service_id)
            for at, totals in _summed(row for row in rows if row.service_id == service_id)
        ]
        for service_id in sorted({row.service_id for row in rows})
    }


def _by_region(rows: Iterable[reports.Row]) -> dict[str, dict[str, int]]:
    regions: dict[str, Totals] = {}
    for row in rows:
        regions[row.region] = regions.get(row.region, Totals()).plus(row.totals)
    return {
        name: {"bandwidth": bandwidth(total.counters), "requests": total.opened}
        for name, total in sorted(regions.items())
    }


def _units(regions: dict[str, dict[str, int]], billable: bool) -> dict[str, dict[str, Any]]:
    """With `billable_units` that API counts in GB of 10^9 bytes and in units of 10,000 requests.
    Shown only: no bill is made from these."""
    if not billable:
        return dict(regions)
    return {
        name: {
            "bandwidth": numbers["bandwidth"] / 1_000_000_000,
            "requests": numbers["requests"] / 10_000,
        }
        for name, numbers in regions.items()
    }


def _known(field: str) -> None:
    if field not in FIELDS:
        raise bad_parameter("field", f"{field!r}; allowed: {', '.join(sorted(FIELDS))}")


def _only(row: dict[str, Any], field: str) -> dict[str, Any]:
    kept = ("service_id", "start_time", field)
    return {name: value for name, value in row.items() if name in kept}
