"""Ends open connections that may not go on: disabled service, ended contract, hard cap, one asked
for by name. `endings` says which; this loop says it to the relay, spread over a grace so that a
service's clients do not all come back in one moment.
"""

import asyncio
import random
from typing import Final

from handoff_common.clock import Clock
from handoff_common.events import Reason
from handoff_common.telemetry import get_logger
from handoff_edge.configuration import Configuration
from handoff_edge.endings import DRAINED, Ending, lapsed, told_by, verdict
from handoff_edge.tunnels import Open, Tunnels

_LOOK_SECONDS: Final = 1.0
_TURN_SECONDS: Final = 0.02


class Enforcement:
    """grace: seconds over which a service's connections are ended. contract_grace: seconds that
    they may outlive its customer's contract."""

    def __init__(
        self,
        configuration: Configuration,
        tunnels: Tunnels,
        clock: Clock,
        *,
        grace: float,
        contract_grace: float,
    ) -> None:
        self._configuration = configuration
        self._tunnels = tunnels
        self._clock = clock
        self._grace = grace
        self._contract_grace_ms = int(contract_grace * 1000)
        self._noticed: dict[str, int] = {}
        self._ending: set[tuple[str, str]] = set()
        self._logger = get_logger("enforcement")

    async def run(self) -> None:
        """The loop: a look at each change of the rule book, and each second, for what time does."""
        changed = self._configuration.changed
        while True:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await changed.wait()
            except TimeoutError:
                pass
            changed.clear()
            self.look()

    def look(self) -> None:
        """Set, and take back, the ends that the rule book asks for now."""
        for key in self._tunnels.services():
            ending = self._verdict(*key)
            if ending is None and key not in self._ending:
                continue
            for one in self._tunnels.of_service(*key):
                if ending is None:
                    _take_back(one)
                elif one.ending_reason is not ending.reason and not _told(one):
                    self._set(one, ending, self._grace * random.random())  # noqa: S311
            if ending is None:
                self._ending.discard(key)
            else:
                self._ending.add(key)
        for asked in self._configuration.book.asked_ends(self._clock.now_ms()):
            found = self._tunnels.get(asked.connection_id)
            if found is not None and found.connection.customer_id == asked.customer_id:
                _tell(found, Ending(Reason.ENDED_BY_OPERATOR, asked.reason))

    async def drain(self, *, grace: float, spread: float) -> None:
        """Wait up to `grace` seconds for connections to end by themselves; then end the others over
        `spread` seconds. Returns when each has been told."""
        if await self._tunnels.wait_empty(timeout=grace):
            return
        left = list(self._tunnels)
        self._logger.info("draining", connections=len(left))
        loop = asyncio.get_running_loop()
        began, told = loop.time(), 0
        while True:
            upto = told_by(len(left), loop.time() - began, spread)
            for opened in left[told:upto]:
                if self._tunnels.get(opened.connection.connection_id) is opened:
                    _tell(opened, DRAINED)
            told = upto
            if told == len(left):
                return
            # Not a turn for each: it takes a millisecond, and there may be tens of thousands.
            await asyncio.sleep(max(spread / len(left), _TURN_SECONDS))

    def _verdict(self, service_id: str, customer_id: str) -> Ending | None:
        now_ms = self._clock.now_ms()
        book = self._configuration.book
        noticed_ms = self._noticed.setdefault(customer_id, now_ms)
        if lapsed(book, customer_id, now_ms, noticed_ms) is None:
            del self._noticed[customer_id]
        return verdict(
            book,
            service_id,
            customer_id,
            now_ms,
            contract_grace_ms=self._contract_grace_ms,
            noticed_ms=noticed_ms,
        )

    def _set(self, opened: Open, ending: Ending, delay: float) -> None:
        _take_back(opened)
        opened.ending_reason = ending.reason
        loop = asyncio.get_running_loop()
        opened.ending = loop.call_later(delay, self._end, opened, ending)

    def _end(self, opened: Open, ending: Ending) -> None:
        opened.ending = opened.ending_reason = None
        connection = opened.connection
        still = self._verdict(connection.service_id, connection.customer_id)
        if still is not None and still.reason is ending.reason:
            _tell(opened, ending)


def _told(opened: Open) -> bool:
    return opened.ending_reason is not None and opened.ending is None


def _tell(opened: Open, ending: Ending) -> None:
    """Have the relay end it now; nothing where that was done: the first reason is the record's."""
    if _told(opened):
        return
    _take_back(opened)
    opened.ending_reason = ending.reason
    opened.tunnel.end(ending.close_code, ending.text, ending.reason)


def _take_back(opened: Open) -> None:
    if opened.ending is not None:
        opened.ending.cancel()
        opened.ending = None
        opened.ending_reason = None
