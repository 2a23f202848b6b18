"""The projection's side of the store: connection states, totals, slices, leases."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import bindparam, func, select, tuple_, update

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
_MUTABLE = tuple(
    column.name for column in tables.connections.c if column.name not in (*_CONSTANT, "accepted_ms")
)


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
        end=None if reason is None else End(Reason(reason), closed_by, close_code, end_elapsed_ms),
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


async def load_states(tx: Tx, connection_ids: Sequence[str]) -> dict[str, ConnectionState]:
    """Connection id → state, of those that are known."""
    found: dict[str, ConnectionState] = {}
    for start in range(0, len(connection_ids), _IDS_PER_SELECT):
        rows = await tx.execute(
            select(*state_columns).where(
                tables.connections.c.connection_id.in_(
                    connection_ids[start : start + _IDS_PER_SELECT]
                )
            )
        )
        for row in rows:
            state = state_of(row)
            found[state.connection_id] = state
    return found


async def save_states(tx: Tx, number: int, states: Iterable[tuple[ConnectionState, int]]) -> None:
    """Write states of a slice, each with the offset of the last record that it counted."""
    await upsert(
        tx,
        tables.connections,
        [_row(number, state, offset) for state, offset in states],
        keys=["connection_id"],
        update=_MUTABLE,
    )


def _row(number: int, state: ConnectionState, offset: int) -> dict[str, Any]:
    end, accept = state.end, state.accept
    return {
        "connection_id": state.connection_id,
        "slice": number,
        "customer_id": state.customer_id,
        "service_id": state.service_id,
        "region": state.region,
        "pop": state.pop,
        "edge_id": state.edge_id,
        "accepted_ms": state.accepted_ms,
        "elapsed_ms": state.elapsed_ms,
        "seq": state.seq,
        **state.counters._asdict(),
        "minutes": state.minutes,
        "next_minute_ms": state.next_minute_ms if end is None else None,
        "bytes_hour_ms": state.bytes_hour_ms,
        "reason": None if end is None else end.reason.value,
        "closed_by": None if end is None else end.closed_by,
        "close_code": None if end is None else end.close_code,
        "end_elapsed_ms": None if end is None else end.elapsed_ms,
        "ended_ms": None if end is None else state.accepted_ms + end.elapsed_ms,
        "domain": None if accept is None else accept.domain,
        "rule": None if accept is None else accept.rule,
        "backend": None if accept is None else accept.backend,
        "service_version": None if accept is None else accept.service_version,
        "subprotocol": None if accept is None else accept.subprotocol,
        "tls": None if accept is None else accept.tls,
        "client_network": None if accept is None else accept.client_network,
        "last_offset": offset,
    }


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


async def save_events(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep what each event said, keyed by its place in the log."""
    await upsert(tx, tables.connection_events, rows, keys=["slice", "offset"], update=[])


# --- Totals --------------------------------------------------------------------------------------


def totals_of(row: Any) -> Totals:
    return Totals(
        row.minutes,
        Counters(*(getattr(row, name) for name in COUNTER_NAMES)),
        row.opened,
        row.closed,
        row.lost,
    )


async def change_usage(
    tx: Tx, number: int, changes: Mapping[UsageKey, Totals], revision: int
) -> dict[UsageKey, Totals]:
    """Add the changes to a slice's rows; returns the rows' new totals."""
    u = tables.usage.c
    keys = sorted(changes)
    totals: dict[UsageKey, Totals] = {}
    for start in range(0, len(keys), _KEYS_PER_SELECT):
        part = keys[start : start + _KEYS_PER_SELECT]
        rows = await tx.execute(
            select(tables.usage).where(
                tuple_(u.customer_id, u.service_id, u.region, u.hour_ms, u.slice).in_(
                    [(*key, number) for key in part]
                )
            )
        )
        for row in rows:
            key = UsageKey(row.customer_id, row.service_id, row.region, row.hour_ms)
            totals[key] = totals_of(row)
    result = {key: totals.get(key, Totals()).plus(changes[key]) for key in keys}
    await upsert(
        tx,
        tables.usage,
        [
            {
                **key._asdict(),
                "slice": number,
                "minutes": total.minutes,
                **total.counters._asdict(),
                "opened": total.opened,
                "closed": total.closed,
                "lost": total.lost,
                "revision": revision,
            }
            for key, total in result.items()
        ],
        keys=["customer_id", "service_id", "region", "hour_ms", "slice"],
        update=["minutes", *COUNTER_NAMES, "opened", "closed", "lost", "revision"],
    )
    return result


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
