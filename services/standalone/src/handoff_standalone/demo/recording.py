"""A recorded month: connections that cross a month's end, as an edge would have written them.

The demo cannot wait for a month to end, so it appends a recording to the log before the system
starts: the events of an edge that has said that it delivered everything and ended.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from handoff_common import codec
from handoff_common.events import (
    AcceptedData,
    BytesData,
    ClosedData,
    ConnectionAccepted,
    ConnectionBytes,
    ConnectionClosed,
    EdgeWatermark,
    Reason,
    WatermarkData,
)
from handoff_common.instants import from_ms, to_ms
from handoff_common.log import EventLog, Message
from handoff_common.minutes import month_of, owed
from handoff_common.topics import CONNECTIONS, EDGES

GRACE = timedelta(hours=24)
EDGE_ID = "recorded-edge"


def closed_month(now: datetime) -> tuple[datetime, datetime]:
    """The newest month whose grace has passed: `(its start, its end)`."""
    end = from_ms(month_of(to_ms(now)))
    if now - end < GRACE + timedelta(minutes=5):
        end = from_ms(month_of(to_ms(end) - 1))
    return from_ms(month_of(to_ms(end) - 1)), end


def expected_minutes(month_end: datetime) -> int:
    """What the month owes for the recording, counted here by hand and not by the system."""
    total = 0
    for accepted, elapsed_ms, _ in _connections(month_end):
        left = max(0, -(-(to_ms(month_end) - to_ms(accepted)) // 60_000))
        total += min(left, owed(elapsed_ms))
    return total


async def append(log: EventLog, customer_id: str, service_id: str, month_end: datetime) -> int:
    """Append the recording; returns how many events it has."""
    ends: dict[int, int] = {}
    count = 0
    for connection in _connections(month_end):
        events = list(connection_events(customer_id, service_id, month_end, *connection))
        written = await log.append(
            CONNECTIONS.name, [Message(e.subject, codec.encode(e)) for e in events]
        )
        count += len(events)
        for position in written:
            ends[position.partition] = max(ends.get(position.partition, 0), position.offset)
    total = len(list(_connections(month_end)))
    through = month_end + timedelta(hours=3)
    watermark = EdgeWatermark(
        id=f"{EDGE_ID}-ended",
        source=f"/edges/{EDGE_ID}",
        subject=EDGE_ID,
        time=through,
        data=WatermarkData(
            edge_id=EDGE_ID,
            region="europe",
            pop="fra1",
            through=through,
            positions={str(number): offset for number, offset in ends.items()},
            open_connections=0,
            accepted_total=total,
            closed_total=total,
            ended=True,
        ),
    )
    await log.append(EDGES.name, [Message(EDGE_ID, codec.encode(watermark))])
    return count


def _connections(month_end: datetime) -> Iterator[tuple[datetime, int, int]]:
    """(accepted, elapsed ms, body bytes each way): 400 connections of a busy last evening, one in
    four of which is still open when the month ends, and one that lasted 20 days."""
    for n in range(400):
        accepted = month_end - timedelta(hours=6, milliseconds=-(n * 53_777))
        elapsed = 60_000 + n * 37_931 + (1 if n % 3 else 0)
        yield accepted, elapsed, 1_000_003 * (n + 1)
    yield month_end - timedelta(days=20), 20 * 86_400_000 + 1, 9_000_000_000


def connection_events(
    customer_id: str,
    service_id: str,
    month_end: datetime,
    accepted: datetime,
    elapsed_ms: int,
    body: int,
) -> Iterator[ConnectionAccepted | ConnectionBytes | ConnectionClosed]:
    connection_id = f"recorded-{to_ms(accepted):x}-{elapsed_ms:x}"
    boundary_ms = to_ms(month_end) - 1 - to_ms(accepted)

    def common(seq: int, at_ms: int, share: int) -> dict[str, object]:
        return {
            "customer_id": customer_id,
            "service_id": service_id,
            "region": "europe",
            "pop": "fra1",
            "edge_id": EDGE_ID,
            "connection_id": connection_id,
            "seq": seq,
            "accepted_at": accepted,
            "elapsed_ms": at_ms,
            "req_header_bytes": 400,
            "resp_header_bytes": 129,
            "bereq_header_bytes": 400,
            "beresp_header_bytes": 129,
            "req_body_bytes": share,
            "resp_body_bytes": share,
            "bereq_body_bytes": share,
            "beresp_body_bytes": share,
        }

    def envelope(seq: int, at_ms: int) -> dict[str, object]:
        return {
            "id": f"{connection_id}-{seq}",
            "source": f"/edges/{EDGE_ID}",
            "subject": connection_id,
            "time": accepted + timedelta(milliseconds=at_ms),
        }

    accepted_data = AcceptedData(
        **common(0, 0, 0),  # type: ignore[arg-type]
        domain="chat.example.com",
        backend="chat",
        service_version=1,
    )
    yield ConnectionAccepted(**envelope(0, 0), data=accepted_data)  # type: ignore[arg-type]
    seq = 1
    if 0 < boundary_ms < elapsed_ms:
        half = BytesData(**common(seq, boundary_ms, body // 2))  # type: ignore[arg-type]
        yield ConnectionBytes(**envelope(seq, boundary_ms), data=half)  # type: ignore[arg-type]
        seq += 1
    closed = ClosedData(
        **common(seq, elapsed_ms, body),  # type: ignore[arg-type]
        reason=Reason.CLIENT_CLOSED,
        closed_by="client",
        close_code=1000,
    )
    yield ConnectionClosed(**envelope(seq, elapsed_ms), data=closed)  # type: ignore[arg-type]
