"""The projection's side of the store: connection states, totals, slices, leases."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import bindparam, func, select, tuple_, update

from handoff_common import bulk
from handoff_common.bulk import upsert
from handoff_common.database import Tx
from handoff_common.events import COUNTER_NAMES, Counters, Reason
from handoff_metering import tables
from handoff_metering.usage import AcceptFacts, ConnectionState, End, Totals, UsageKey

_IDS_PER_SELECT = 500
_KEYS_PER_SELECT = 200

state_columns = (
    *(tables.connections.c[name] for name in ("connection_id", "customer_id", "service_id")),
    *(tables.connections.c[name] for name in ("region", "pop", "edge_id")),
    *(tables.connections.c[name] for name in ("accepted_ms", "elapsed_ms", "seq")),
    *(tables.connections.c[name] for name in ("minutes", "bytes_hour_ms")),
    *(tables.connections.c[name] for name in ("reason", "closed_by", "close_code")),
    tables.connections.c.end_elapsed_ms,
    *(tables.connections.c[name] for name in ("domain", "rule", "backend", "service_version")),
    *(tables.connections.c[name] for name in ("subprotocol", "tls", "client_network")),
    *(tables.connections.c[name] for name in COUNTER_NAMES),
)

_CONSTANT = ("connection_id", "slice", "customer_id", "service_id", "region", "pop", "edge_id")


_REASONS = {reason.value: reason for reason in Reason}


def state_of(row: Sequence[Any]) -> ConnectionState:
    """The state that a row of `state_columns` holds."""
    (
        connection_id,
        customer_id,
        service_id,
        region,
        pop,
        edge_id,
        accepted_ms,
        elapsed_ms,
        seq,
        minutes,
        bytes_hour_ms,
        reason,
        closed_by,
        close_code,
        end_elapsed_ms,
        domain,
        rule,
        backend,
        service_version,
        subprotocol,
        tls,
        client_network,
        *counters,
    ) = tuple(row)
    return ConnectionState(
        connection_id=connection_id,
        customer_id=customer_id,
        service_id=service_id,
        region=region,
        pop=pop,
        edge_id=edge_id,
        accepted_ms=accepted_ms,
        elapsed_ms=elapsed_ms,
        seq=seq,
        counters=Counters(*counters),
        minutes=minutes,
        bytes_hour_ms=bytes_hour_ms,
        end=None
        if reason is None
        else End(_REASONS[reason], closed_by, close_code, end_elapsed_ms),
        accept=None
        if domain is None
        else AcceptFacts(
            domain=domain,
            rule=rule,
            backend=backend,
            service_version=service_version,
            subprotocol=subprotocol,
            tls=bool(tls),
            client_network=client_network,
        ),
    )


COLUMNS = tuple(column.name for column in tables.connections.c)
MUTABLE = tuple(name for name in COLUMNS if name not in (*_CONSTANT, "accepted_ms"))
EVENT_COLUMNS = tuple(column.name for column in tables.connection_events.c)

_LOAD = (
    f"SELECT {', '.join(column.name for column in state_columns)} "  # noqa: S608  (our own names)
    "FROM connections WHERE connection_id = ANY($1::text[]) "
    "AND connection_id >= $2 AND connection_id <= $3"
)
"""The bounds say nothing new: by them the server leaves out the months that hold none of them."""


async def load_states(tx: Tx, connection_ids: Sequence[str]) -> dict[str, ConnectionState]:
    """Connection id → state, of those that are known."""
    if tx.dialect.name != "sqlite":
        if not connection_ids:
            return {}
        bounds = min(connection_ids), max(connection_ids)
        rows = await (await bulk.driver(tx)).fetch(_LOAD, connection_ids, *bounds)
        return {row[0]: state_of(row) for row in rows}
    found: dict[str, ConnectionState] = {}
    for start in range(0, len(connection_ids), _IDS_PER_SELECT):
        part = connection_ids[start : start + _IDS_PER_SELECT]
        for row in await tx.execute(
            select(*state_columns).where(tables.connections.c.connection_id.in_(part))
        ):
            found[row[0]] = state_of(row)
    return found


async def save_states(tx: Tx, number: int, states: Iterable[tuple[ConnectionState, int]]) -> None:
    """Write states of a slice, each with the offset of the last record that it counted."""
    await bulk.merge(
        tx,
        tables.connections,
        COLUMNS,
        [_record(number, state, offset) for state, offset in states],
        keys=("connection_id",),
        update=MUTABLE,
    )


_NO_END = (None,) * 5
_NO_FACTS = (None,) * 7


def _record(number: int, state: ConnectionState, offset: int) -> tuple[Any, ...]:
    """A row in the order of COLUMNS."""
    end, accept = state.end, state.accept
    return (
        state.connection_id,
        number,
        state.customer_id,
        state.service_id,
        state.region,
        state.pop,
        state.edge_id,
        state.accepted_ms,
        state.elapsed_ms,
        state.seq,
        *state.counters,
        state.minutes,
        state.next_minute_ms if end is None else None,
        state.bytes_hour_ms,
        *(
            _NO_END
            if end is None
            else (
                end.reason.value,
                end.closed_by,
                end.close_code,
                end.elapsed_ms,
                state.accepted_ms + end.elapsed_ms,
            )
        ),
        *(
            _NO_FACTS
            if accept is None
            else (
                accept.domain,
                accept.rule,
                accept.backend,
                accept.service_version,
                accept.subprotocol,
                accept.tls,
                accept.client_network,
            )
        ),
        offset,
    )


async def due(
    tx: Tx, number: int, edge_id: str, through_ms: int, limit: int | None
) -> list[ConnectionState]:
    """Open connections of an edge in a slice that owe a minute more at `through_ms`."""
    c = tables.connections.c
    rows = await tx.execute(
        select(*state_columns)
        .where(c.slice == number, c.edge_id == edge_id, c.next_minute_ms < through_ms)
        .order_by(c.next_minute_ms)
        .limit(limit)
    )
    return [state_of(row) for row in rows]


async def save_minutes(tx: Tx, states: Iterable[ConnectionState]) -> None:
    """Write what accrual changed in open connections."""
    connections = tables.connections
    rows = [
        {"id_": s.connection_id, "minutes_": s.minutes, "next_": s.next_minute_ms}
        for s in sorted(states, key=lambda s: s.connection_id)
    ]
    if rows:
        await tx.execute(
            update(connections)
            .where(connections.c.connection_id == bindparam("id_"))
            .values(minutes=bindparam("minutes_"), next_minute_ms=bindparam("next_")),
            rows,
        )


async def open_on(tx: Tx, number: int, edge_ids: Iterable[str]) -> dict[str, int]:
    """Edge → open connections of the slice."""
    wanted = sorted(edge_ids)
    if not wanted:
        return {}
    c = tables.connections.c
    rows = await tx.execute(
        select(c.edge_id, func.count().label("open"))
        .where(c.slice == number, c.edge_id.in_(wanted), c.next_minute_ms.is_not(None))
        .group_by(c.edge_id)
    )
    return {row.edge_id: row.open for row in rows}


async def open_connections(tx: Tx, number: int, edge_id: str, limit: int) -> list[ConnectionState]:
    c = tables.connections.c
    rows = await tx.execute(
        select(*state_columns)
        .where(c.slice == number, c.edge_id == edge_id, c.next_minute_ms.is_not(None))
        .order_by(c.next_minute_ms)
        .limit(limit)
    )
    return [state_of(row) for row in rows]


# --- Events --------------------------------------------------------------------------------------


async def save_events(tx: Tx, records: Sequence[tuple[Any, ...]]) -> None:
    """Keep what each event said, keyed by its place in the log; rows in the order of
    EVENT_COLUMNS. None can be there yet: they come with the move of the position."""
    await bulk.copy(tx, tables.connection_events, EVENT_COLUMNS, records)


# --- Totals --------------------------------------------------------------------------------------


def totals_of(row: Any) -> Totals:
    return Totals(
        row.minutes,
        Counters(*(getattr(row, name) for name in COUNTER_NAMES)),
        row.opened,
        row.closed,
        row.lost,
    )


_USAGE_COLUMNS = tuple(column.name for column in tables.usage.c)
_USAGE_KEYS = ("customer_id", "service_id", "region", "hour_ms", "slice")
_COUNTED = ("minutes", *COUNTER_NAMES, "opened", "closed", "lost")
_ADD = f"""
    INSERT INTO usage AS u ({", ".join(_USAGE_COLUMNS)})
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::bigint[], $5::int[],
        {", ".join(f"${at}::bigint[]" for at in range(6, len(_USAGE_COLUMNS) + 1))}
    )
    ON CONFLICT ({", ".join(_USAGE_KEYS)}) DO UPDATE SET
        {", ".join(f"{name} = u.{name} + excluded.{name}" for name in _COUNTED)},
        revision = excluded.revision
    RETURNING {", ".join(f"u.{name}" for name in _USAGE_COLUMNS)}
"""  # noqa: S608  (our own names)


async def change_usage(
    tx: Tx, number: int, changes: Mapping[UsageKey, Totals], revision: int
) -> dict[UsageKey, Totals]:
    """Add the changes to a slice's rows; returns the rows' new totals."""
    keys = sorted(changes)
    if not keys:
        return {}
    if tx.dialect.name != "sqlite":
        # The server adds: what the rows hold already is not read first.
        records = [_usage_record(key, number, changes[key], revision) for key in keys]
        rows = await (await bulk.driver(tx)).fetch(_ADD, *zip(*records, strict=True))
        return dict(_usage_of(row) for row in rows)
    totals: dict[UsageKey, Totals] = {}
    u = tables.usage.c
    for start in range(0, len(keys), _KEYS_PER_SELECT):
        part = [(*key, number) for key in keys[start : start + _KEYS_PER_SELECT]]
        known = await tx.execute(
            select(tables.usage).where(
                tuple_(u.customer_id, u.service_id, u.region, u.hour_ms, u.slice).in_(part)
            )
        )
        totals |= dict(_usage_of(row) for row in known)
    result = {key: totals.get(key, Totals()).plus(changes[key]) for key in keys}
    await bulk.merge(
        tx,
        tables.usage,
        _USAGE_COLUMNS,
        [_usage_record(key, number, total, revision) for key, total in result.items()],
        keys=_USAGE_KEYS,
        update=(*_COUNTED, "revision"),
    )
    return result


def _usage_record(key: UsageKey, number: int, total: Totals, revision: int) -> tuple[Any, ...]:
    """A row in the order of the table."""
    return (
        *key,
        number,
        total.minutes,
        *total.counters,
        total.opened,
        total.closed,
        total.lost,
        revision,
    )


def _usage_of(row: Sequence[Any]) -> tuple[UsageKey, Totals]:
    customer_id, service_id, region, hour_ms, _, minutes, *counted, _ = tuple(row)
    *counters, opened, closed, lost = counted
    return (
        UsageKey(customer_id, service_id, region, hour_ms),
        Totals(minutes, Counters(*counters), opened, closed, lost),
    )


async def all_usage(tx: Tx, number: int) -> dict[UsageKey, Totals]:
    """All of a slice's rows."""
    rows = await tx.execute(select(tables.usage).where(tables.usage.c.slice == number))
    return {
        UsageKey(row.customer_id, row.service_id, row.region, row.hour_ms): totals_of(row)
        for row in rows
    }


async def change_edge_totals(tx: Tx, number: int, changes: Mapping[str, tuple[int, int]]) -> None:
    """Add (accepted, closed) to what a slice has seen of each edge."""
    if not changes:
        return
    e = tables.edge_totals.c
    rows = await tx.execute(
        select(e.edge_id, e.accepted, e.closed).where(
            e.slice == number, e.edge_id.in_(sorted(changes))
        )
    )
    before = {row.edge_id: (row.accepted, row.closed) for row in rows}
    await upsert(
        tx,
        tables.edge_totals,
        [
            {
                "slice": number,
                "edge_id": edge_id,
                "accepted": before.get(edge_id, (0, 0))[0] + accepted,
                "closed": before.get(edge_id, (0, 0))[1] + closed,
            }
            for edge_id, (accepted, closed) in changes.items()
        ],
        keys=["slice", "edge_id"],
        update=["accepted", "closed"],
    )


async def edges_seen(tx: Tx, number: int) -> frozenset[str]:
    """Edges of which the slice has events."""
    e = tables.edge_totals.c
    return frozenset(await tx.scalars(select(e.edge_id).where(e.slice == number)))


async def edge_totals(tx: Tx) -> dict[str, tuple[int, int]]:
    """Edge → (accepted, closed) over all slices."""
    e = tables.edge_totals.c
    rows = await tx.execute(
        select(e.edge_id, func.sum(e.accepted), func.sum(e.closed)).group_by(e.edge_id)
    )
    return {edge_id: (int(accepted), int(closed)) for edge_id, accepted, closed in rows}


_json = msgspec.json.Encoder()


def counters_text(counters: Counters) -> str:
    return _json.encode(counters).decode()
