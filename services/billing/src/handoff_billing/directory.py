"""Names of customers and services, in memory, from config's snapshots."""

from handoff_common.events import CustomerData, CustomerSnapshot, ServiceData, ServiceSnapshot
from handoff_common.log import EventLog
from handoff_common.topics import CUSTOMERS, SERVICES
from handoff_common.view import View


class Directory:
    """Asks the log once more before saying that somebody is not known. `view.run` is its loop."""

    def __init__(self, log: EventLog) -> None:
        self._customers: dict[str, CustomerData] = {}
        self._services: dict[str, ServiceData] = {}
        self.view = View(log, [CUSTOMERS.name, SERVICES.name], self._fold, name="directory")

    async def customer(self, customer_id: str) -> CustomerData | None:
        if customer_id not in self._customers:
            await self.view.catch_up()
        return self._customers.get(customer_id)

    async def customer_name(self, customer_id: str) -> str:
        """Its name, or its id where config has said nothing of it."""
        customer = await self.customer(customer_id)
        return customer_id if customer is None else customer.name

    def service_name(self, service_id: str) -> str:
        service = self._services.get(service_id)
        return service_id if service is None else service.name

    def _fold(self, event: CustomerSnapshot | ServiceSnapshot, _partition: int) -> None:
        if isinstance(event, CustomerSnapshot):
            customer = self._customers.get(event.data.customer_id)
            if customer is None or customer.revision < event.data.revision:
                self._customers[event.data.customer_id] = event.data
            return
        service = self._services.get(event.data.service_id)
        if service is None or service.revision < event.data.revision:
            self._services[event.data.service_id] = event.data
