"""What an edge tells the log of its refusals: all of it, soon, and without making anyone wait."""

from collections import Counter
from pathlib import Path

from handoff_common.clock import SystemClock
from handoff_common.events import EdgeRefusals, EdgeWatermark, Limits, RuleSnapshot
from handoff_common.log import EventLog
from handoff_common.log_sqlite import SqliteLog
from handoff_common.service import running
from handoff_common.topics import EDGES
from handoff_edge.wiring import assemble
from handoff_metering.refusals import newest
from support.edge_events import customer, request_bytes, service
from support.edge_world import (
    QUICK_RELAY,
    Origin,
    World,
    all_records,
    backend_of,
    edge_events,
    edge_settings,
    publish,
    until,
    world,
)
from support.faulty_log import Faulty
from support.parts.waiting import eventually

Told = dict[tuple[str | None, str], int]
UNKNOWN = request_bytes(host="nobody.example.com")


async def told(log: EventLog) -> Told:
    """(service, cause) → how many, as a reader of the log adds it up."""
    events = [event for event in await edge_events(log) if isinstance(event, EdgeRefusals)]
    found: Counter[tuple[str | None, str]] = Counter()
    for key, count in newest(event.data for event in events).items():
        assert count.customer_id == ("cus" if key.service_id else "")
        found[key.service_id or None, key.cause] += count.refused
    return dict(found)


async def all_told(log: EventLog, expected: Told) -> None:
    async def is_so() -> bool | None:
        return await told(log) == expected or None

    await eventually(is_so, f"{expected} was told")


async def test_each_refusal_is_told_with_its_service_and_cause(tmp_path: Path) -> None:
    refusing = Origin(lambda _: b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    async with world(tmp_path, origin=refusing, refusals_interval=0.01) as w:
        await w.ask(UNKNOWN)
        await w.ask(UNKNOWN)
        await w.ask(request_bytes().replace(b"HTTP/1.1", b"HTTP/1.0"))
        await w.ask(request_bytes())
        rule = RuleSnapshot(name="chat", path_prefix="/chat", backend="main")
        backends = (backend_of(w.origin),)
        await w.tell(service(101, backends=backends, rules=(rule,)))
        await w.ask(request_bytes(target="/other"))
        await w.tell(service(102, backends=backends, limits=Limits(max_connections=0)))
        await w.ask(request_bytes())
        await w.tell(service(103, backends=backends, websockets_enabled=False))
        for _ in range(3):
            await w.ask(request_bytes())
        expected: Told = {
            (None, "unknown_domain"): 2,
            (None, "http_1_0"): 1,
            ("svc", "origin_declined"): 1,
            ("svc", "no_rule"): 1,
            ("svc", "too_many_connections"): 1,
            ("svc", "not_enabled"): 3,
        }
        await all_told(w.log, expected)
        assert w.edge.metrics.services.of("svc").refused == 6
        # A process that is started again counts from nothing, and what the former one told stands.
    log = await SqliteLog.open(tmp_path / "log.db")
    async with world(tmp_path, log=log, configured=False, refusals_interval=0.01) as w:
        await until(lambda: w.edge.configuration.seen)
        await w.ask(UNKNOWN)
        await all_told(log, expected | {(None, "unknown_domain"): 3})
    await log.close()


async def test_compaction_drops_no_watermark_for_a_count(tmp_path: Path) -> None:
    async with world(tmp_path, refusals_interval=0.01) as w:
        before = await w.watermark()
        await w.ask(UNKNOWN)
        await w.ask(request_bytes(host="another.example.com"))
        await all_told(w.log, {(None, "unknown_domain"): 2})
        assert await w.watermark() == before
        kinds = Counter(type(event) for event in await edge_events(w.log))
        assert kinds[EdgeWatermark] == 1
        assert kinds[EdgeRefusals] <= 2, "one record for an hour, however often it was told"


async def test_what_was_not_told_yet_is_told_at_a_stop(tmp_path: Path) -> None:
    async with world(tmp_path, refusals_interval=3600) as w:
        await w.ask(UNKNOWN)
        await all_told(w.log, {(None, "unknown_domain"): 1})
        for _ in range(4):
            await w.ask(UNKNOWN)
        assert await told(w.log) == {(None, "unknown_domain"): 1}, "not before the interval is over"
    log = await SqliteLog.open(tmp_path / "log.db")
    assert await told(log) == {(None, "unknown_domain"): 5}
    last = [event for event in await edge_events(log) if isinstance(event, EdgeWatermark)][-1]
    assert last.data.ended
    await log.close()


async def test_nothing_is_told_where_nothing_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path, refusals_interval=0.01) as w:
        await w.open()
    log = await SqliteLog.open(tmp_path / "log.db")
    assert await told(log) == {}
    await log.close()


async def held_back(w: World, log: Faulty) -> None:
    """While the log takes nothing, clients are answered at once and all is told later."""
    assert (await w.ask(UNKNOWN))[0] == 421
    await until(lambda: log.attempts, "the report is tried")
    for _ in range(20):
        assert (await w.ask(UNKNOWN))[0] == 421
    client = await w.open()
    client.reset()


async def test_a_log_that_hangs_keeps_no_client_waiting(tmp_path: Path) -> None:
    log = Faulty(await SqliteLog.open(tmp_path / "log.db"), EDGES.name)
    async with world(tmp_path, log=log, refusals_interval=0.01, journal_timeout=1.0) as w:
        log.attempts = 0
        log.gate.clear()
        await held_back(w, log)
        log.gate.set()
        await all_told(w.log, {(None, "unknown_domain"): 21})
    await log.close()


async def test_a_log_that_fails_loses_no_count(tmp_path: Path) -> None:
    log = Faulty(await SqliteLog.open(tmp_path / "log.db"), EDGES.name)
    async with world(tmp_path, log=log, refusals_interval=0.01) as w:
        log.attempts = 0
        log.failing = True
        await held_back(w, log)
        await until(lambda: log.attempts > 3, "it is tried again")
        assert await told(w.log) == {}
        log.failing = False
        await all_told(w.log, {(None, "unknown_domain"): 21})
    await log.close()


async def test_counts_go_past_a_journal_to_the_log_that_others_read(tmp_path: Path) -> None:
    log = await SqliteLog.open(tmp_path / "log.db")
    journal = await SqliteLog.open(tmp_path / "journal.db", partitions=1)
    async with Origin().serving() as origin:
        await publish(log, service(100, backends=(backend_of(origin),)), customer(100))
        edge = assemble(
            edge_settings(tmp_path, refusals_interval=0.01),
            log=log,
            journal=journal,
            clock=SystemClock(),
            relay=QUICK_RELAY,
        )
        async with running(edge.service):
            w = World(edge, journal, origin)
            await until(lambda: edge.configuration.seen)
            await w.ask(UNKNOWN)
            await all_told(log, {(None, "unknown_domain"): 1})
            w.closed()
    keys = {record.key for record in await all_records(journal, EDGES.name)}
    assert keys <= {journal.owner_id, f"published/{journal.owner_id}"}
    await journal.close()
    await log.close()
