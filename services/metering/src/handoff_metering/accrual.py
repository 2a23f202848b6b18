"""Live minutes: open connections accrue from watermarks, and each slice says how far it has come.

Runs whenever a watermark arrives and after each batch that was folded. A slice accrues for an edge
only up to the newest watermark whose position it has passed: behind it a `closed` may lie unread.
Only a connection that owes a minute more is written. Rows and progress go out by one outbox in one
order, so a progress never overtakes a row that it speaks of.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from handoff_common.away import until_back
from handoff_common.clock import Clock
from handoff_common.database import Database, Tx
from handoff_common.log import EventLog, Partition
from handoff_common.outbox import Outbox, enqueue
from handoff_common.topics import CONNECTIONS, USAGE
from handoff_metering import publishing, tables, watermarks
from handoff_metering.metrics import Metrics
from handoff_metering.store import parked as store_parked
from handoff_metering.store import slices as store_slices
from handoff_metering.store import states as store
from handoff_metering.usage import ConnectionState, Totals, UsageKey, accrue
from handoff_metering.views import EdgesView

_CONNECTIONS_PER_TRANSACTION = 5_000
_LOOK_SECONDS = 1.0


class Accrual:
    """See the module. `run` is its loop; `watermarks_changed` and `folded` wake it.

    own: the slices that this worker projects now.
    """

    def __init__(
        self,
        *,
        database: Database,
        log: EventLog,
        edges: EdgesView,
        own: Callable[[], Iterable[int]],
        outbox: Outbox,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._database = database
        self._log = log
        self._edges = edges
        self._own = own
        self._outbox = outbox
        self._clock = clock
        self._metrics = metrics
        self._wake = asyncio.Event()
        self._all = True
        self._slices: set[int] = set()
        self._said: dict[int, publishing.Progress] = {}
        self._late: set[int] = set()
        self._counts: tuple[int, list[int]] | None = None

    def watermarks_changed(self) -> None:
        """Something was heard of an edge: every slice may accrue, and say how far it is."""
        self._all = True
        self._wake.set()

    async def folded(self, partition: Partition) -> None:
        """A batch of the slice was committed."""
        self._slices.add(partition.number)
        self._outbox.poke()
        self._wake.set()

    async def run(self) -> None:
        before: set[int] = set()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            everything, self._all = self._all, False
            some, self._slices = self._slices, set()
            own = set(self._own())
            # What another worker has said since is not known here.
            self._said = {number: said for number, said in self._said.items() if number in own}
            # A slice that was taken over is as late as the last watermark.
            told = own if everything else own - before
            for number in sorted(told | own & some):
                await until_back(
                    functools.partial(self.step, number, say=number in told), what="accrue"
                )
            # Once for all of them: what goes out together is read and billed together.
            self._outbox.poke()
            before = own

    async def step(self, number: int, *, say: bool) -> None:
        """Accrue what one slice owes now. say: publish its progress too, where it changed.

        Without `say`, progress is looked at only where the slice had not passed the watermarks
        that it was told of, and published only where more than its position has changed.
        """
        late = number in self._late
        if not say and not late and not await self._is_due(number):
            return
        started = time.perf_counter()
        while not await self._advance(number, say=say, late=late):
            # More are due than one transaction should hold.
            pass
        self._metrics.accrual.observe(time.perf_counter() - started)

    async def _is_due(self, number: int) -> bool:
        async with self._database.read() as tx:
            position = (await store_slices.read_positions(tx)).get(number, 0)
            for edge in self._edges.edges.values():
                mark = edge.passed(number, position)
                if mark and await store.due(tx, number, edge.edge_id, mark.through_ms, 1):
                    return True
        return False

    async def _advance(self, number: int, *, say: bool, late: bool) -> bool:
        """One transaction; False where more is due.

        Progress is said in the transaction that found nothing more to accrue, of the same
        watermarks and at the same position: all that it vouches for has been published before it.
        """
        slices, partitions = await self._partitions()
        edges, lost = self._edges.edges, self._edges.lost
        said: publishing.Progress | None = None
        async with self._database.transaction() as tx:
            held = await store_slices.lock_slice(tx, number)
            positions = await store_slices.read_positions(tx)
            position = positions.get(number, 0)
            revision = held.revision
            changed, changes = await due(
                tx, number, position, edges, limit=_CONNECTIONS_PER_TRANSACTION
            )
            outgoing: list[publishing.Outgoing] = []
            now_ms = self._clock.now_ms()
            if changed:
                revision += 1
                await store.save_minutes(tx, changed)
                rows = await store.change_usage(tx, number, changes, revision)
                version = publishing.Version(held.generation, revision, position - 1)
                if not held.unpublished:
                    outgoing += publishing.usage_rows(rows, number, version, now_ms)
            done = len(changed) < _CONNECTIONS_PER_TRANSACTION
            if done and (say or late) and not held.unpublished:
                said = await self._progress(tx, number, positions, edges, lost)
                if said is not None and not self._is_news(number, said, but_for_position=not say):
                    said = None
            if said is not None:
                revision += 1
                version = publishing.Version(held.generation, revision, position - 1)
                outgoing += publishing.progress(said, number, slices, version, partitions, now_ms)
            if revision != held.revision:
                await store_slices.set_revision(tx, number, revision)
                await enqueue(tx, tables.outbox, outgoing)
        self._metrics.accrued.inc(sum(change.minutes for change in changes.values()))
        if said is not None:
            self._said[number] = said
            self._metrics.through.labels(str(number)).set(said.through_ms // 1000)
        return done

    def _is_news(self, number: int, said: publishing.Progress, *, but_for_position: bool) -> bool:
        last = self._said.get(number)
        if last is None:
            return True
        return said != (last._replace(position=said.position) if but_for_position else last)

    async def _progress(
        self,
        tx: Tx,
        number: int,
        positions: Mapping[int, int],
        edges: watermarks.Edges,
        lost: Collection[str],
    ) -> publishing.Progress | None:
        """What the slice's progress is now; None while nothing can be vouched for."""
        if not self._edges.view.ready:
            # An edge that is not known yet might be the one to wait for.
            return None
        position = positions.get(number, 0)
        if all(edge.latest.passed_by(number, position) for edge in edges.values()):
            self._late.discard(number)
        else:
            self._late.add(number)
        gone = {*lost} | {edge_id for edge_id, edge in edges.items() if edge.latest.ended}
        open_on = await store.open_on(tx, number, gone)
        low = watermarks.low(
            edges,
            number,
            position,
            lost=lost,
            open_on=open_on,
            seen=await store.edges_seen(tx, number),
        )
        parked = await store_parked.counts(tx, number)
        orphans = sum(count for edge_id, count in open_on.items() if edge_id in lost)
        totals = await store.edge_totals(tx)
        difference = 0
        for edge_id, edge in edges.items():
            found = watermarks.difference(edge, positions, *totals.get(edge_id, (0, 0)))
            difference += found.total if found else 0
        self._metrics.parked.labels(str(number)).set(sum(parked.values()))
        self._metrics.orphans.labels(str(number)).set(orphans)
        self._metrics.lost_edges.set(len(lost))
        self._metrics.difference.set(difference)
        if low.through_ms is None:
            return None
        return publishing.Progress(position, low.through_ms, orphans, parked, difference)

    async def _partitions(self) -> tuple[int, list[int]]:
        """(slices, partitions of the usage topic): fixed for the life of the topics."""
        if self._counts is None:
            self._counts = (
                await self._log.partitions(CONNECTIONS.name),
                list(range(await self._log.partitions(USAGE.name))),
            )
        return self._counts


async def due(
    tx: Tx, number: int, position: int, edges: watermarks.Edges, *, limit: int | None
) -> tuple[list[ConnectionState], dict[UsageKey, Totals]]:
    """What a slice at `position` may accrue now, of `limit` connections at most: the states after
    it, and what that changes."""
    changed: list[ConnectionState] = []
    changes: dict[UsageKey, Totals] = {}
    for edge in edges.values():
        room = None if limit is None else limit - len(changed)
        mark = edge.passed(number, position)
        if mark is None or room == 0:
            continue
        for state in await store.due(tx, number, edge.edge_id, mark.through_ms, room):
            after, deltas = accrue(state, mark.through_ms)
            changed.append(after)
            for key, change in deltas:
                changes[key] = changes.get(key, Totals()).plus(change)
    return changed, changes
