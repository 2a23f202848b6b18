"""The projection of `handoff.connections.v1`: events → states, totals, what is to be published.

It folds a batch of one slice in memory, by `usage.fold`, and writes what changed once, in the
transaction that also moves the position. It owns no rule of what counts.
"""

from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from handoff_common.clock import Clock
from handoff_common.database import Tx
from handoff_common.events import (
    ConnectionAccepted,
    ConnectionBytes,
    ConnectionClosed,
    ConnectionEvent,
    ParkedDecision,
    counters_of,
)
from handoff_common.instants import to_ms
from handoff_common.log import Partition
from handoff_common.outbox import enqueue
from handoff_common.projection import Folded, Parking
from handoff_common.telemetry import get_logger
from handoff_common.topics import CONNECTIONS
from handoff_metering import publishing, replay, retention, tables
from handoff_metering.metrics import Metrics
from handoff_metering.store import parked as store_parked
from handoff_metering.store import slices as store_slices
from handoff_metering.store import states as store
from handoff_metering.usage import (
    NO_BYTES,
    NOTHING,
    ConnectionState,
    Deltas,
    Totals,
    UsageKey,
    fold,
    summed,
)

_TYPES = {
    ConnectionAccepted: "accepted",
    ConnectionBytes: "bytes",
    ConnectionClosed: "closed",
}


class ConnectionsProjection:
    """See the module; a `handoff_common.projection.Projection`.

    rebuilding: whether it makes the tables anew, which nobody else may touch meanwhile.
    """

    name = store_slices.PROJECTION
    topics = (CONNECTIONS.name,)

    def __init__(
        self,
        *,
        clock: Clock,
        metrics: Metrics,
        max_batch: int,
        keep_months: int,
        rebuilding: bool = False,
    ) -> None:
        self.max_batch = max_batch
        self._keep_months = keep_months
        self._clock = clock
        self._metrics = metrics
        self._rebuilding = rebuilding
        self._logger = get_logger("metering")

    async def apply(self, tx: Tx, partition: Partition, batch: Sequence[Folded]) -> None:
        for index, (record, event) in enumerate(batch):
            cause = replay.wrong(event, record.appended_ms)
            if cause is not None:
                raise Parking(index, cause)
        events: list[_Placed] = []
        for index, (record, event) in enumerate(batch):
            if isinstance(event, ParkedDecision):
                events += await self._decided(tx, partition, record.appended_ms, event)
            else:
                events.append(_Placed(record.offset, event, index))
        if not events:
            return
        # Taken first, so that what accrues beside this on another connection waits its turn.
        held = await store_slices.lock_slice(tx, partition.number, rebuilding=self._rebuilding)
        ids = sorted({placed.event.data.connection_id for placed in events})
        sums = _Sums(partition.number, await store.load_states(tx, ids))
        recent = retention.first_recent(batch[-1].record.appended_ms, self._keep_months)
        for offset, event, place in events:
            if event.data.connection_id < recent and place is not None:
                appended_ms = batch[place].record.appended_ms
                state = sums.known.get(event.data.connection_id)
                cause = retention.retired(state, event, appended_ms, self._keep_months)
                if cause is not None:
                    raise Parking(place, cause)
            sums.add(offset, event)
        await self._save(tx, partition.number, held, sums, batch[-1].record.offset)
        for effect, count in sums.effects.items():
            self._metrics.events.labels(effect).inc(count)

    async def _save(
        self,
        tx: Tx,
        number: int,
        held: store_slices.Slice,
        sums: "_Sums",
        last_offset: int,
    ) -> None:
        await store.save_states(tx, number, sums.changed.values())
        await store.save_events(tx, sums.rows)
        await store.change_edge_totals(tx, number, sums.edges)
        changes = sums.usage()
        if not changes:
            return
        revision = held.revision + 1
        rows = await store.change_usage(tx, number, changes, revision)
        await store_slices.set_revision(tx, number, revision)
        if not held.unpublished:
            version = publishing.Version(held.generation, revision, last_offset)
            await enqueue(
                tx,
                tables.outbox,
                publishing.usage_rows(rows, number, version, self._clock.now_ms()),
            )

    async def _decided(
        self, tx: Tx, partition: Partition, appended_ms: int, event: ParkedDecision
    ) -> "list[_Placed]":
        """What a decision about a parked record lets through: one event, or none. A record of a
        connection that was retired cannot be folded any more: it can only be discarded."""
        decision = event.data
        held = None
        if decision.partition == partition.number:
            held = await store_parked.record(tx, partition, decision.offset)
        said = {"partition": decision.partition, "offset": decision.offset}
        if held is None:
            self._logger.warning("decision_without_record", **said)
            return []
        again = None
        if decision.decision == "retry":
            again = replay.retried(partition.topic, held.value)
            if again is None or await self._is_retired(tx, again, appended_ms):
                self._logger.warning("retried_in_vain", **said)
                return []
        await store_parked.decide(tx, partition, event)
        self._logger.info("parked_record_decided", decision=decision.decision, **said)
        return [] if again is None else [_Placed(held.offset, again, None)]

    async def _is_retired(self, tx: Tx, event: ConnectionEvent, appended_ms: int) -> bool:
        identifier = event.data.connection_id
        known = await store.load_states(tx, [identifier])
        state = known.get(identifier)
        return retention.retired(state, event, appended_ms, self._keep_months) is not None


class _Placed(NamedTuple):
    """An event to be folded. place: of its own record in the batch; None for one that a decision
    has let through."""

    offset: int
    event: ConnectionEvent
    place: int | None


class _Sums:
    """What a batch of one slice changes, added up in memory."""

    def __init__(self, number: int, known: dict[str, ConnectionState]) -> None:
        self._number = number
        self.known = known
        self.changed: dict[str, tuple[ConnectionState, int]] = {}
        self._deltas: defaultdict[UsageKey, list[Totals]] = defaultdict(list)
        self.edges: dict[str, tuple[int, int]] = {}
        self.rows: list[tuple[Any, ...]] = []
        self.effects: Tally[str] = Tally()

    def add(self, offset: int, event: ConnectionEvent) -> None:
        connection_id = event.data.connection_id
        before = self.known.get(connection_id)
        after, deltas = fold(before, event)
        effect = "stale" if after is before else "counted"
        self.effects[effect] += 1
        self.rows.append(self._row(offset, event, deltas, effect))
        if after is before:
            return
        self.known[connection_id] = after
        self.changed[connection_id] = (after, offset)
        for key, change in deltas:
            self._deltas[key].append(change)
        opened = int(before is None)
        closed = after.closed_by_edge - (before is not None and before.closed_by_edge)
        if opened or closed:
            accepted, ended = self.edges.get(after.edge_id, (0, 0))
            self.edges[after.edge_id] = (accepted + opened, ended + closed)

    def usage(self) -> dict[UsageKey, Totals]:
        """What changes in the totals; what comes to nothing is left out."""
        sums = ((key, summed(changes)) for key, changes in self._deltas.items())
        return {key: total for key, total in sums if total != NOTHING}

    def _row(
        self, offset: int, event: ConnectionEvent, deltas: Deltas, effect: str
    ) -> tuple[Any, ...]:
        """In the order of `store.EVENT_COLUMNS`."""
        data = event.data
        counters = counters_of(data)
        said, added = store.counters_text(counters), None
        for _, change in deltas:
            # The bytes of an event are all of one hour, and most often the first ones.
            if change.counters is not NO_BYTES:
                added = (
                    said if change.counters == counters else store.counters_text(change.counters)
                )
        return (
            data.connection_id,
            self._number,
            offset,
            data.service_id,
            data.region,
            event.id,
            _TYPES[type(event)],
            data.seq,
            to_ms(data.accepted_at) + data.elapsed_ms,
            data.elapsed_ms,
            said,
            added,
            effect,
        )
