"""What a former process of this edge left open is closed, at its last proof of life.

Runs before anything new is taken. Each `closed` releases its connection in the same transaction, so
a process that dies in here leaves the rest for the next one, and nothing is closed twice.
"""

from collections.abc import Iterator, Sequence

from handoff_common import codec
from handoff_common.errors import Unreadable
from handoff_common.events import ConnectionClosed, EdgeWatermark
from handoff_common.instants import to_ms
from handoff_common.log import JournaledLog, Message
from handoff_common.telemetry import get_logger
from handoff_common.topics import CONNECTIONS, EDGES
from handoff_edge.connection import Place, lost
from handoff_edge.metrics import Metrics

_BATCH = 500


async def recover(log: JournaledLog, place: Place, metrics: Metrics) -> list[ConnectionClosed]:
    """Close every connection that the journal holds; returns what was written.

    A held record that cannot be read is reported with its key and stays held. Raises LogError.
    """
    logger = get_logger("recovery")
    through_ms = await _last_through(log, place)
    closes: list[ConnectionClosed] = []
    unreadable = 0
    for key, value in (await log.held(CONNECTIONS.name)).items():
        try:
            latest = codec.decode(CONNECTIONS.name, value)
        except Unreadable as error:
            unreadable += 1
            logger.error(
                "held_record_unreadable", topic=CONNECTIONS.name, key=key, detail=str(error)
            )
            continue
        closes.append(lost(latest, place, through_ms))
    metrics.unreadable.set(unreadable)
    for batch in _batches(closes):
        await log.append(
            CONNECTIONS.name,
            [Message(c.data.connection_id, codec.encode(c), keep="release") for c in batch],
        )
        metrics.recovered.inc(len(batch))
    if closes:
        logger.warning("connections_recovered", count=len(closes), unreadable=unreadable)
    return closes


async def _last_through(log: JournaledLog, place: Place) -> int:
    held = (await log.held(EDGES.name)).get(place.edge_id)
    if held is None:
        return 0
    try:
        watermark = codec.decode(EDGES.name, held)
    except Unreadable as error:
        get_logger("recovery").error(
            "held_record_unreadable", topic=EDGES.name, key=place.edge_id, detail=str(error)
        )
        return 0
    assert isinstance(watermark, EdgeWatermark)
    return to_ms(watermark.data.through)


def _batches(closes: Sequence[ConnectionClosed]) -> Iterator[Sequence[ConnectionClosed]]:
    for start in range(0, len(closes), _BATCH):
        yield closes[start : start + _BATCH]
