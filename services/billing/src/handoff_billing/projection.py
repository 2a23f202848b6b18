"""Folds metering's usage rows and other teams' delivery rows into billing's tables.

Rows are absolute and versioned, so repeats, reordering and replays change nothing.
"""

from collections.abc import Sequence

from handoff_billing.store import Tx, corrections, invoices
from handoff_billing.store import rows as stored
from handoff_common.events import (
    DeliveryData,
    DeliveryUsage,
    ProgressData,
    UsageData,
    UsageProgress,
    UsageTotals,
)
from handoff_common.instants import to_ms
from handoff_common.log import Partition
from handoff_common.minutes import month_of
from handoff_common.projection import Folded
from handoff_common.topics import DELIVERY, USAGE


class UsageProjection:
    """Implements `projection.Projection`."""

    name = "billing-usage"
    topics: tuple[str, ...] = (USAGE.name, DELIVERY.name)
    max_batch = 2_000

    async def apply(self, tx: Tx, partition: Partition, batch: Sequence[Folded]) -> None:
        rows: list[UsageData] = []
        said: list[ProgressData] = []
        delivered: list[DeliveryData] = []
        for _, event in batch:
            if isinstance(event, UsageTotals):
                rows.append(event.data)
            elif isinstance(event, UsageProgress):
                said.append(event.data)
            elif isinstance(event, DeliveryUsage):
                delivered.append(event.data)
        await stored.save_usage(tx, rows)
        await stored.save_delivery(tx, delivered)
        # After the rows: who reads a progress must find what it speaks of.
        await stored.save_progress(tx, partition.number, said)
        months = {(row.customer_id, month_of(to_ms(row.hour))) for row in rows}
        months |= {(row.customer_id, month_of(to_ms(row.hour))) for row in delivered}
        await invoices.allocate_ids(tx, months)
        await corrections.mark_late(tx, months)
