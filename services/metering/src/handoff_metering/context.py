"""What the API stands on, and the questions that several of its calls ask."""

from dataclasses import dataclass

from handoff_common.access import Principal, owner_of
from handoff_common.clock import Clock
from handoff_common.database import Database
from handoff_common.errors import not_found
from handoff_common.events import ServiceData
from handoff_common.log import EventLog
from handoff_common.outbox import Outbox
from handoff_common.projection import Projector
from handoff_metering import instants
from handoff_metering.errors import bad_parameter
from handoff_metering.schemas import REGIONS
from handoff_metering.views import EdgesView, ServicesView


@dataclass(frozen=True, slots=True)
class Context:
    database: Database
    log: EventLog
    clock: Clock
    services: ServicesView
    edges: EdgesView
    projector: Projector
    outbox: Outbox

    async def service(self, principal: Principal, service_id: str) -> ServiceData:
        """A service that the principal may see; 404 for all others."""
        service = await self.services.find(service_id)
        if service is None or not principal.may_see(service.customer_id):
            raise not_found("service", service_id)
        return service

    def customer(self, principal: Principal, asked: str | None) -> str | None:
        """Whose data a call is about; None, for an operator who named nobody: everyone's. 404 for
        another's, as if there were none."""
        return owner_of(principal, asked)

    def instant(self, name: str, text: str | None, default: int) -> int:
        """A `from` or `to`, as epoch ms; 400 that says what is allowed."""
        if text is None or not text.strip():
            return default
        try:
            return instants.parse(text, self.clock.now_ms())
        except ValueError as error:
            raise bad_parameter(name, str(error)) from None


def region(text: str | None) -> str | None:
    """A billing region, or None for all of them."""
    if text is None or text in ("", "all"):
        return None
    if text not in REGIONS:
        raise bad_parameter("region", f"{text!r}; allowed: all, {', '.join(REGIONS)}")
    return text


def ordered(from_ms: int, to_ms: int) -> None:
    """400 where a range ends before it begins."""
    if from_ms > to_ms:
        raise bad_parameter("from", "lies after `to`; allowed: an instant before it")
