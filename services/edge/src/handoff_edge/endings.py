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

    noticed_ms: when it was first seen that the customer has no contract in force; it stands for the
    contract's end where the snapshots do not tell one.
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
    ended_ms = contract_ended(book, customer_id, now_ms, noticed_ms)
    if ended_ms is not None and now_ms >= ended_ms + contract_grace_ms:
        return Ending(Reason.CONTRACT_ENDED, "the contract for WebSockets has ended")
    return None


def contract_ended(book: RuleBook, customer_id: str, now_ms: int, noticed_ms: int) -> int | None:
    """When the customer's contract ended; None while one is in force."""
    customer = book.customer(customer_id)
    if customer is None or customer.deleted_at is not None:
        return noticed_ms
    found = entitlement(customer.contracts, now_ms)
    if found.in_force:
        return None
    return noticed_ms if found.ended_ms is None else found.ended_ms
