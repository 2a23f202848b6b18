"""What holds an invoice open, and what to do about it. Pure; docs/billing.md has the codes."""

from typing import NamedTuple


class Advice(NamedTuple):
    """title: what is the case. what: to do. path: where an operator does it, "" where nowhere."""

    title: str
    what: str
    path: str = ""


_UNKNOWN = Advice("Held", "Ask the operator of this installation.")
_REBUILD = Advice("Metering is being rebuilt", "Wait until the rebuild has ended.", "/operations")
_BEHIND = "Look for an edge that is silent, or a slice that lags."

ADVICE = {
    "month_open": Advice("The month is not over", "Nothing: its usage still comes in."),
    "grace": Advice("Late events are waited for", "Nothing: the time of grace ends by itself."),
    "no_progress": Advice("Metering has said nothing yet", "Start metering.", "/operations"),
    "progress_missing": Advice("A part of metering has said nothing", _BEHIND, "/operations"),
    "progress_behind": Advice("Metering is behind", _BEHIND, "/operations"),
    "generations_differ": _REBUILD,
    "rows_of_another_generation": _REBUILD,
    "rows_beyond_progress": Advice(
        "Usage is newer than what metering vouches for",
        "Wait a few seconds: metering says so with its next progress.",
        "/operations",
    ),
    "open_orphans": Advice(
        "Connections of a lost edge are open",
        "Wait until they are closed at their last proof of life, or bring the edge back.",
        "/operations",
    ),
    "parked": Advice(
        "Records wait for a decision", "Retry or discard each of them.", "/operations/parked"
    ),
    "usage_unreadable": Advice(
        "Billing could not read usage", "Install a release that reads it, or rebuild billing."
    ),
    "difference": Advice(
        "Events of an edge are missing",
        "Find the edge whose totals differ, and let it deliver its journal.",
        "/operations",
    ),
    "no_price_book": Advice(
        "No prices are in force for the month",
        "Give the customer terms that cover it.",
        "/price-books",
    ),
    "customer_unknown": Advice(
        "Nobody has said who the customer is", "Wait until config has published the customer."
    ),
}


def advice(code: str) -> Advice:
    """Of a hold's code; a newer server may have some that are not known here."""
    return ADVICE.get(code, _UNKNOWN)
