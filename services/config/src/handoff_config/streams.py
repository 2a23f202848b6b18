"""The kinds of stream: how each one's events and state are read and written, folded and told.

Pure. A stream's state is the fold of its events; the `streams` table keeps it so that nobody has to
fold again, and the events stay the truth.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from handoff_common import codec
from handoff_common.events import (
    AccessData,
    AccessSnapshot,
    CustomerSnapshot,
    Envelope,
    ServiceSnapshot,
)
from handoff_common.instants import from_ms
from handoff_common.log import Message
from handoff_common.topics import ACCESS, CUSTOMERS, SERVICES
from handoff_config import contracts, services, snapshots
from handoff_config.contracts import AnyCustomerEvent, AnyOperatorsEvent, Customer, Operators
from handoff_config.services import AnyServiceEvent, Service

S = TypeVar("S", Service, Customer, Operators)
E = TypeVar("E")

OPERATORS_STREAM = "operators"
_encoder = msgspec.json.Encoder()


class Recorded(NamedTuple):
    """One event as it is stored: its global revision and its instant."""

    revision: int
    at_ms: int
    event: Any


@dataclass(frozen=True)
class Kind(Generic[S, E]):
    """prefix: of the stream's name. told: the snapshots of a state, as topic and key → event."""

    prefix: str
    fold: Callable[[S | None, E, int], S]
    told: Callable[[S, int, int], dict[tuple[str, str], Envelope]]
    states: msgspec.json.Decoder[S]
    events: msgspec.json.Decoder[E]

    def folded(self, recorded: Iterable[tuple[E, int]], state: S | None = None) -> S | None:
        """The state after the events, given as (event, instant in ms)."""
        for event, at_ms in recorded:
            state = self.fold(state, event, at_ms)
        return state

    def messages(
        self, before: S | None, after: S, revision: int, at_ms: int
    ) -> list[tuple[str, Message]]:
        """What the log must be told after a change: each snapshot that is not as it was."""
        old: Mapping[tuple[str, str], Envelope] = {}
        if before is not None:
            old = self.told(before, revision, at_ms)
        return [
            (topic, Message(key, codec.encode(event)))
            for (topic, key), event in self.told(after, revision, at_ms).items()
            if old.get((topic, key)) != event
        ]


def encode(value: msgspec.Struct) -> str:
    return _encoder.encode(value).decode()


def _service_told(state: Service, revision: int, at_ms: int) -> dict[tuple[str, str], Envelope]:
    event = ServiceSnapshot(
        id=f"{state.service_id}-{revision}",
        source="/config",
        subject=state.service_id,
        time=from_ms(at_ms),
        data=snapshots.of_service(state, revision),
    )
    return {(SERVICES.name, state.service_id): event}


def _customer_told(state: Customer, revision: int, at_ms: int) -> dict[tuple[str, str], Envelope]:
    event = CustomerSnapshot(
        id=f"{state.customer_id}-{revision}",
        source="/config",
        subject=state.customer_id,
        time=from_ms(at_ms),
        data=snapshots.of_customer(state, revision),
    )
    told: dict[tuple[str, str], Envelope] = {(CUSTOMERS.name, state.customer_id): event}
    return told | _access_told(snapshots.of_customer_tokens(state, revision), revision, at_ms)


def _operators_told(state: Operators, revision: int, at_ms: int) -> dict[tuple[str, str], Envelope]:
    return _access_told(snapshots.of_operator_tokens(state, revision), revision, at_ms)


def _access_told(
    access: Mapping[str, AccessData], revision: int, at_ms: int
) -> dict[tuple[str, str], Envelope]:
    return {
        (ACCESS.name, token_id): AccessSnapshot(
            id=f"{token_id}-{revision}",
            source="/config",
            subject=token_id,
            time=from_ms(at_ms),
            data=data,
        )
        for token_id, data in access.items()
    }


SERVICE: Kind[Service, AnyServiceEvent] = Kind(
    "service/",
    services.fold,
    _service_told,
    msgspec.json.Decoder(Service),
    msgspec.json.Decoder(AnyServiceEvent),
)
CUSTOMER: Kind[Customer, AnyCustomerEvent] = Kind(
    "customer/",
    contracts.fold,
    _customer_told,
    msgspec.json.Decoder(Customer),
    msgspec.json.Decoder(AnyCustomerEvent),
)
OPERATORS: Kind[Operators, AnyOperatorsEvent] = Kind(
    OPERATORS_STREAM,
    contracts.fold_operators,
    _operators_told,
    msgspec.json.Decoder(Operators),
    msgspec.json.Decoder(AnyOperatorsEvent),
)
KINDS: tuple[Kind[Any, Any], ...] = (SERVICE, CUSTOMER, OPERATORS)


def kind_of(stream: str) -> Kind[Any, Any]:
    return next(kind for kind in KINDS if stream.startswith(kind.prefix))
