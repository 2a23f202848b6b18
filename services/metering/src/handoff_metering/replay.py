"""Records of the connections log → events that count, as every reader of it must take them.

The projection and the check of an invoice share this: what is parked, and what a decision about a
parked record does. Pure but for the codec.
"""

from collections.abc import Iterable, Iterator

from handoff_common import codec
from handoff_common.errors import Unreadable
from handoff_common.events import ConnectionEvent, ParkedDecision
from handoff_common.instants import to_ms
from handoff_common.log import Record
from handoff_common.minutes import DAY_MS
from handoff_metering import retention
from handoff_metering.usage import ConnectionState, fold

MAX_SKEW_MS = 300_000
MAX_AGE_MS = 3_660 * DAY_MS
_LONGEST = (
    ("connection_id", 64),
    ("customer_id", 64),
    ("service_id", 64),
    ("edge_id", 64),
    ("region", 32),
    ("pop", 32),
)


def wrong(event: ConnectionEvent | ParkedDecision, appended_ms: int) -> Unreadable | None:
    """Why a decoded event must not be folded, or None.

    Its instant lies more than 5 minutes ahead of the log's own append time, or its connection
    began more than ten years before: folding either would bill years. Or a name is longer than any
    edge makes.
    """
    if isinstance(event, ParkedDecision):
        return _ahead(to_ms(event.time), appended_ms, None)
    data = event.data
    accepted_ms = to_ms(data.accepted_at)
    instant = max(to_ms(event.time), accepted_ms + data.elapsed_ms)
    if instant > appended_ms + MAX_SKEW_MS:
        return _ahead(instant, appended_ms, data.customer_id)
    if accepted_ms < appended_ms - MAX_AGE_MS:
        return Unreadable(
            "skewed",
            f"accepted_at {data.accepted_at.isoformat()} is more than ten years before the log's "
            "own time",
            data.customer_id,
        )
    if (
        len(data.connection_id) > 64
        or len(data.customer_id) > 64
        or len(data.service_id) > 64
        or len(data.edge_id) > 64
        or len(data.region) > 32
        or len(data.pop) > 32
        or len(event.id) > 160
    ):
        return _too_long(event)
    return None


def _too_long(event: ConnectionEvent) -> Unreadable:
    data = event.data
    names = [(name, getattr(data, name), longest) for name, longest in _LONGEST]
    for name, value, longest in [*names, ("id", event.id, 160)]:
        if len(value) > longest:
            detail = f"{name} is longer than {longest} characters"
            return Unreadable("malformed", detail, data.customer_id)
    raise AssertionError("one of them was too long")


def _ahead(instant_ms: int, appended_ms: int, customer_id: str | None) -> Unreadable | None:
    ahead = instant_ms - appended_ms
    if ahead <= MAX_SKEW_MS:
        return None
    return Unreadable(
        "skewed",
        f"its instant is {ahead} ms ahead of the log's; allowed: {MAX_SKEW_MS}",
        customer_id,
    )


class Reading:
    """Takes the records of the log one by one, each partition's in order.

    keep_months: for which metering keeps connections (`retention`); None: none is ever retired.
    customer_id: whose connections can be retired here, where only theirs are of interest; each
    costs a state. None: everybody's.
    """

    def __init__(self, keep_months: int | None = None, customer_id: str | None = None) -> None:
        self._keep_months = keep_months
        self._customer_id = customer_id
        self._parked: dict[tuple[int, int], Record] = {}
        self._states: dict[str, ConnectionState] = {}
        self.discarded = 0

    @property
    def parked(self) -> int:
        """Records left out so far, without a decision that settles them."""
        return len(self._parked)

    def take(self, record: Record) -> ConnectionEvent | None:
        """The event to be folded now. None: the record is parked, or decides about one that is.

        A record that is parked counts when a decision behind it says to retry it: at the
        decision's place.
        """
        try:
            event = codec.decode(record.topic, record.value)
        except Unreadable:
            self._park(record)
            return None
        if wrong(event, record.appended_ms) is not None:
            self._park(record)
            return None
        if isinstance(event, ParkedDecision):
            return self._decided(record, event)
        folded: ConnectionEvent = event
        if not self._fold(folded, record.appended_ms):
            self._park(record)
            return None
        return folded

    def _decided(self, record: Record, event: ParkedDecision) -> ConnectionEvent | None:
        if event.data.partition != record.partition:
            return None
        held = self._parked.pop((record.partition, event.data.offset), None)
        if held is None:
            return None
        if event.data.decision == "discard":
            self.discarded += 1
            return None
        again = retried(held.topic, held.value)
        if again is None or not self._fold(again, record.appended_ms):
            self._park(held)
            return None
        return again

    def _fold(self, event: ConnectionEvent, appended_ms: int) -> bool:
        """False where its connection is retired."""
        keep, data = self._keep_months, event.data
        if keep is None or self._customer_id not in (None, data.customer_id):
            return True
        state = self._states.get(data.connection_id)
        if retention.retired(state, event, appended_ms, keep) is not None:
            return False
        self._states[data.connection_id], _ = fold(state, event)
        return True

    def _park(self, record: Record) -> None:
        self._parked[record.partition, record.offset] = record


def readable(records: Iterable[Record]) -> Iterator[tuple[int, ConnectionEvent]]:
    """(slice, event) of all that counts, in the order in which it was folded: what `usage_at`
    takes."""
    reading = Reading()
    for record in records:
        event = reading.take(record)
        if event is not None:
            yield record.partition, event


def retried(topic: str, value: bytes) -> ConnectionEvent | None:
    """What a parked record says after all, or None where it still cannot be decoded.

    Whoever decides to retry a record whose instant lies ahead accepts that instant.
    """
    try:
        event = codec.decode(topic, value)
    except Unreadable:
        return None
    if isinstance(event, ParkedDecision):
        return None
    checked: ConnectionEvent = event
    late = wrong(checked, to_ms(checked.time))
    return checked if late is None else None
