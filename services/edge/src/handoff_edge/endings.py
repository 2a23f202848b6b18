"""Which open connections must end because the configuration or time says so. Pure.

`verdict` looks at a service; a control that names one connection is looked up by that name. Both
are asked again just before a connection is ended, so a change of mind during the spread counts.
"""

from dataclasses import dataclass

from handoff_common.events import CLOSE_CODES, Reason
from handoff_edge.rulebook import RuleBook, entitlement


@dataclass(frozen=True, slots=True)
class Ending:
    """reason: for the event and the close code. text: told to both peers in the Close frame."""

    reason: Reason
    text: str

    @property
    def close_code(self) -> int:
        return CLOSE_CODES[self.reason]


DRAINED = Ending(Reason.DRAINED, "the edge is going away")


def verdict(
    book: RuleBook,
    service_id: str,
    customer_id: str,
    now_ms: int,
    *,
    contract_grace_ms: int,
    noticed_ms: int,
) -> Ending | None:
    """Why the service's open connections must end now, or None where they may go on.

    noticed_ms: when it was first seen that the customer may not have WebSockets; it stands for the
    contract's end where the snapshots do not tell one.

    A version that was deactivated ends nothing: a connection belongs to the version that it was
    accepted under, and who wants it ended disables the product.
    """
    cap = book.cap(customer_id)
    if cap is not None and cap.end_open:
        return Ending(Reason.OVER_BUDGET, "the budget of this month is used up")
    service = book.service(service_id)
    if service is None:
        return None
    if service.deleted_at is not None:
        return Ending(Reason.DISABLED, "the service was deleted")
    if not service.websockets_enabled and not service.keep_open:
        return Ending(Reason.DISABLED, "WebSockets were disabled for this service")
    lapse = lapsed(book, customer_id, now_ms, noticed_ms)
    if lapse is not None and now_ms >= lapse.since_ms + contract_grace_ms:
        return Ending(Reason.CONTRACT_ENDED, lapse.text)
    return None


@dataclass(frozen=True, slots=True)
class Lapse:
    """A customer that may have no WebSockets any more, since when, and why."""

    since_ms: int
    text: str


def lapsed(book: RuleBook, customer_id: str, now_ms: int, noticed_ms: int) -> Lapse | None:
    """What keeps the customer from new handoffs, its open ones may outlive by a grace; None where
    nothing does."""
    ended = "the contract for WebSockets has ended"
    customer = book.customer(customer_id)
    if customer is None or customer.deleted_at is not None:
        return Lapse(noticed_ms, ended)
    found = entitlement(customer.contracts, now_ms)
    if not found.in_force:
        return Lapse(noticed_ms if found.ended_ms is None else found.ended_ms, ended)
    if customer.suspended or customer.account_type == "trial":
        return Lapse(noticed_ms, "the account may not use WebSockets any more")
    return None


def told_by(count: int, elapsed: float, spread: float) -> int:
    """How many of `count` connections must have been told that they end, `elapsed` seconds after
    the first was: evenly, all within `spread` seconds."""
    if elapsed >= spread:
        return count
    return min(count, int(count * elapsed / spread) + 1)
