"""Usage, delivery and progress rows: projections of the log."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Row, Table, and_, func, or_, select, true

from handoff_billing import tables as t
from handoff_billing.holds import Progress, RowVersion
from handoff_billing.store import Tx, as_json, inserting
from handoff_billing.usage import Delivered, Totals, UsageKey, summed
from handoff_common.events import COUNTER_NAMES, Counters, DeliveryData, ProgressData, UsageData
from handoff_common.instants import to_ms
from handoff_common.minutes import next_month

_ROWS_PER_STATEMENT = 500
_SUMS = [func.sum(t.usage.c[name]).label(name) for name in t.COUNTED]


async def save_usage(tx: Tx, rows: Iterable[UsageData]) -> None:
    """Keep the greatest (generation, revision) of each row; older ones change nothing."""
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for data in rows:
        row = {
            "customer_id": data.customer_id,
            "hour_ms": to_ms(data.hour),
            "service_id": data.service_id,
            "region": data.region,
            "slice": data.slice,
            "generation": data.generation,
            "revision": data.revision,
            "record_offset": data.offset,
            "minutes": data.minutes,
            **{name: getattr(data, name) for name in COUNTER_NAMES},
            "opened": data.opened,
            "closed": data.closed,
            "lost": data.lost,
        }
        _keep_newest(newest, row, t.usage, ("generation", "revision"))
    await _save_newer(tx, t.usage, newest, ("generation", "revision"))


async def save_progress(tx: Tx, partition: int, rows: Iterable[ProgressData]) -> None:
    """Keep the latest of each slice in one partition of the usage topic."""
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for data in rows:
        row = {
            "slice": data.slice,
            "partition": partition,
            "slices": data.slices,
            "generation": data.generation,
            "revision": data.revision,
            "position": data.position,
            "through_ms": to_ms(data.through),
            "open_orphans": data.open_orphans,
            "parked": as_json(data.parked),
            "difference": data.difference,
        }
        _keep_newest(newest, row, t.progress, ("generation", "revision"))
    await _save_newer(tx, t.progress, newest, ("generation", "revision"))


async def save_delivery(tx: Tx, rows: Iterable[DeliveryData]) -> None:
    """Keep the greatest revision of each row."""
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for data in rows:
        row = {
            "customer_id": data.customer_id,
            "hour_ms": to_ms(data.hour),
            "region": data.region,
            "source": data.source,
            "bytes": data.bytes,
            "revision": data.revision,
        }
        _keep_newest(newest, row, t.delivery, ("revision",))
    await _save_newer(tx, t.delivery, newest, ("revision",))


def _keep_newest(
    newest: dict[tuple[Any, ...], dict[str, Any]],
    row: dict[str, Any],
    table: Table,
    version: Sequence[str],
) -> None:
    key = tuple(row[column.name] for column in table.primary_key)
    seen = newest.get(key)
    if seen is None or [row[v] for v in version] > [seen[v] for v in version]:
        newest[key] = row


async def _save_newer(
    tx: Tx,
    table: Table,
    newest: Mapping[tuple[Any, ...], dict[str, Any]],
    version: Sequence[str],
) -> None:
    if not newest:
        return
    insert = inserting(tx)
    statement = insert(table)
    keys = [column.name for column in table.primary_key]
    excluded = statement.excluded
    newer = or_(
        *(
            and_(
                *(excluded[before] == table.c[before] for before in version[:at]),
                excluded[name] > table.c[name],
            )
            for at, name in enumerate(version)
        )
    )
    statement = statement.on_conflict_do_update(
        index_elements=keys,
        set_={c.name: excluded[c.name] for c in table.c if c.name not in keys},
        where=newer,
    )
    rows = [newest[key] for key in sorted(newest)]
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        await tx.execute(statement, rows[start : start + _ROWS_PER_STATEMENT])


Detail = Literal["hour", "service", "region"]


async def read_usage(
    tx: Tx,
    customer_id: str,
    month_ms: int,
    *,
    detail: Detail = "hour",
    region: str | None = None,
) -> dict[UsageKey, Totals]:
    """The customer's month, slices summed.

    detail: `hour` is per service, region and hour; `service` and `region` sum up further, with the
    month's start for the hour and "" for what is summed away. What is rated is the same.
    """
    keys = {
        "hour": [t.usage.c.service_id, t.usage.c.region, t.usage.c.hour_ms],
        "service": [t.usage.c.service_id, t.usage.c.region],
        "region": [t.usage.c.region],
    }[detail]
    found = await tx.execute(
        select(*keys, *_SUMS)
        .where(
            _in_month(t.usage, customer_id, month_ms),
            true() if region is None else t.usage.c.region == region,
        )
        .group_by(*keys)
    )
    return summed(
        (
            UsageKey(
                row.service_id if detail != "region" else "",
                row.region,
                row.hour_ms if detail == "hour" else month_ms,
            ),
            _counted(row),
        )
        for row in found
    )


async def read_delivery(
    tx: Tx, customer_id: str, month_ms: int, *, region: str | None = None
) -> list[Delivered]:
    return await _delivered(
        tx,
        _in_month(t.delivery, customer_id, month_ms),
        true() if region is None else t.delivery.c.region == region,
    )


async def read_hours(
    tx: Tx, customer_id: str, from_ms: int, to_ms: int
) -> tuple[dict[UsageKey, Totals], list[Delivered]]:
    """Usage per region and hour, with "" for the service, and other delivery, of the hours
    `from_ms <= hour < to_ms`."""
    keys = [t.usage.c.region, t.usage.c.hour_ms]
    found = await tx.execute(
        select(*keys, *_SUMS).where(_between(t.usage, customer_id, from_ms, to_ms)).group_by(*keys)
    )
    usage = summed((UsageKey("", row.region, row.hour_ms), _counted(row)) for row in found)
    return usage, await _delivered(tx, _between(t.delivery, customer_id, from_ms, to_ms))


async def _delivered(tx: Tx, *conditions: Any) -> list[Delivered]:
    d = t.delivery.c
    found = await tx.execute(
        select(d.region, d.hour_ms, d.source, d.bytes)
        .where(*conditions)
        .order_by(d.region, d.hour_ms, d.source)
    )
    return [Delivered(*row) for row in found]


async def latest_delivery_revision(tx: Tx, customers: Collection[str]) -> int:
    """The greatest revision of these customers' delivery rows, 0 where there is none."""
    d = t.delivery.c
    query = select(func.max(d.revision)).where(d.customer_id.in_(sorted(customers)))
    return int(await tx.scalar(query) or 0)


async def read_progress(tx: Tx) -> list[Progress]:
    p = t.progress.c
    found = await tx.execute(select(t.progress).order_by(p.slice, p.partition))
    return [
        Progress(
            slice=row.slice,
            partition=row.partition,
            slices=row.slices,
            generation=row.generation,
            revision=row.revision,
            position=row.position,
            through_ms=row.through_ms,
            open_orphans=row.open_orphans,
            parked=msgspec.json.decode(row.parked, type=dict[str, int]),
            difference=row.difference,
        )
        for row in found
    ]


async def read_row_versions(tx: Tx, customer_id: str, month_ms: int) -> list[RowVersion]:
    """Per slice, generation and whether they are empty: the greatest offset of the month's rows."""
    u = t.usage.c
    empty = and_(*(u[name] == 0 for name in t.COUNTED)).label("empty")
    found = await tx.execute(
        select(u.slice, u.generation, func.max(u.record_offset), empty)
        .where(_in_month(t.usage, customer_id, month_ms))
        .group_by(u.slice, u.generation, empty)
    )
    return [
        RowVersion(number, version, offset, bool(none)) for number, version, offset, none in found
    ]


async def count_unreadable(tx: Tx) -> dict[str | None, int]:
    """Customer (None: cannot be told) → records that billing's own projections parked."""
    c = t.parked.c.customer_id
    found = await tx.execute(select(c, func.count()).group_by(c))
    return {row[0]: row[1] for row in found}


def _in_month(table: Table, customer_id: str, month_ms: int) -> Any:
    return _between(table, customer_id, month_ms, next_month(month_ms))


def _between(table: Table, customer_id: str, from_ms: int, to_ms: int) -> Any:
    return and_(
        table.c.customer_id == customer_id,
        table.c.hour_ms >= from_ms,
        table.c.hour_ms < to_ms,
    )


def _counted(row: Row[Any]) -> Totals:
    """The sums that `_SUMS` has selected."""
    minutes, *rest = (int(row._mapping[name]) for name in t.COUNTED)
    return Totals(minutes, Counters(*rest[:8]), *rest[8:])
