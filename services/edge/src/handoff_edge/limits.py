"""Counts that bound what a node takes on: unfinished heads, handshakes, bytes that come early, a
service's connections. Pure."""

from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Protocol

from handoff_common.events import Limits
from handoff_edge.errors import Refusal, Refused


class Admission:
    """Clients whose head is not whole yet: in total, and per network, so that one network with slow
    heads cannot keep all others out. Whose network is not known yet (None: behind a load balancer
    that has not said who it is) counts in total only."""

    def __init__(self, *, total: int, per_network: int) -> None:
        self._total = total
        self._per_network = per_network
        self._networks: Counter[str] = Counter()
        self.waiting = 0

    def admit(self, network: str | None) -> bool:
        """Count a client in; False where a bound is reached, and nothing was counted."""
        if self.waiting >= self._total or (network is not None and not self._has_room(network)):
            return False
        self.waiting += 1
        if network is not None:
            self._networks[network] += 1
        return True

    def identify(self, network: str) -> bool:
        """Count one that was counted without its network for it; False where that is full: the
        client still counts, without it."""
        if not self._has_room(network):
            return False
        self._networks[network] += 1
        return True

    def leave(self, network: str | None) -> None:
        self.waiting -= 1
        if network is None:
            return
        self._networks[network] -= 1
        if not self._networks[network]:
            del self._networks[network]

    def _has_room(self, network: str) -> bool:
        return self._networks.get(network, 0) < self._per_network


_SHARE: Final = 4
"""One service alone gets to four fifths of all handshakes; several that take as many as they can
leave ever less to each, and something to whoever has few."""


class Handshakes:
    """Handshakes under way or waiting for their turn: at most `total`, and a service gets a further
    one only while it has less than four times what is free. An origin that answers nobody so holds
    up its own clients, and does not take the last place from the others'."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._counts: Counter[Hashable] = Counter()
        self.under_way = 0

    def enter(self, whose: Hashable) -> bool:
        """Count one in; False where there is no place for it, and nothing was counted."""
        if self._counts.get(whose, 0) >= _SHARE * (self._total - self.under_way):
            return False
        self._counts[whose] += 1
        self.under_way += 1
        return True

    def leave(self, whose: Hashable) -> None:
        self.under_way -= 1
        self._counts[whose] -= 1
        if not self._counts[whose]:
            del self._counts[whose]


class Early:
    """Bytes that clients have sent behind their heads, of all handshakes together. Beyond `most`
    they are left in the kernel, which has clients wait."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    @property
    def full(self) -> bool:
        return self.held >= self._most


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one service on this node: connections open or being opened, and those begun within the
    last second."""

    open: int = 0
    recent: int = 0


def is_limited(limits: Limits) -> bool:
    """Whether there is anything to count for."""
    return limits.max_connections is not None or limits.max_new_per_second is not None


def over_limit(limits: Limits, counts: Counts) -> Refusal | None:
    """Why a service that has `counts` gets no further connection; None where it does."""
    if limits.max_connections is not None and counts.open >= limits.max_connections:
        text = f"the service has {counts.open} open connections; {limits.max_connections} allowed"
        return Refusal("too_many_connections", text, retry_after=5)
    if limits.max_new_per_second is not None and counts.recent >= limits.max_new_per_second:
        text = f"the service takes {limits.max_new_per_second} new connections per second"
        return Refusal("too_many_new", text, retry_after=1)
    return None


class Shared(Protocol):
    """Where several processes count together; `here` is what this one has of a service."""

    def take(self, service_id: str, limits: Limits, here: int) -> None:
        """Count one in, which makes it `here`. Raises Refused; nothing was counted then."""

    def put(self, service_id: str, here: int) -> None:
        """What this one has now, where the service is counted together."""

    def tell(self, service_id: str, here: int) -> bool:
        """Count the service together from now on; False where nobody can be asked now."""


class _Held:
    """One connection that is counted in. A call counts it out, once. Every open connection has one,
    and a closure would take four times the memory."""

    __slots__ = ("_counts", "_service_id")

    def __init__(self, counts: "ServiceCounts", service_id: str) -> None:
        self._counts: ServiceCounts | None = counts
        self._service_id = service_id

    def __call__(self) -> None:
        counts, self._counts = self._counts, None
        if counts is not None:
            counts.leave(self._service_id)


class ServiceCounts:
    """Connections of each service: open or being opened, and begun within the last second. Exact
    over every span of one second, not only between two ticks of a clock.

    shared: where the node counts, if it has more processes than this one. Services without limits
    are then counted here alone.
    """

    def __init__(self, shared: Shared | None = None) -> None:
        self._shared = shared
        self._open: Counter[str] = Counter()
        self._begun: dict[str, deque[int]] = {}

    def counts(self, service_id: str, now_ms: int) -> Counts:
        return Counts(self._open[service_id], len(self._recent(service_id, now_ms)))

    def reserve(self, service_id: str, limits: Limits, now_ms: int) -> Callable[[], None]:
        """Count one in, where the limits allow it; the returned function counts it out, once.

        Raises Refused; nothing was counted then.
        """
        here = self._open[service_id] + 1
        if self._shared is None:
            if refusal := over_limit(limits, self.counts(service_id, now_ms)):
                raise Refused(refusal)
            self._recent(service_id, now_ms).append(now_ms)
        elif is_limited(limits):
            self._shared.take(service_id, limits, here)
        else:
            self._shared.put(service_id, here)
        self._open[service_id] = here
        return _Held(self, service_id)

    def leave(self, service_id: str) -> None:
        """Count out one that `reserve` has counted in; what that returned does so."""
        left = self._open[service_id] - 1
        if self._shared is not None:
            self._shared.put(service_id, left)
        self._open[service_id] = left
        if not left:
            del self._open[service_id]

    def catch_up(self, limits_of: Callable[[str], Limits | None]) -> None:
        """Count the services together that have got a limit since their connections were opened.
        Called again and again: what does not succeed now does later."""
        if self._shared is None:
            return
        for service_id, here in self._open.items():
            limits = limits_of(service_id)
            if limits is None or not is_limited(limits):
                continue
            if not self._shared.tell(service_id, here):
                # Each would wait for the same lock, and all connections with it.
                return

    def _recent(self, service_id: str, now_ms: int) -> deque[int]:
        begun = self._begun.setdefault(service_id, deque())
        while begun and begun[0] <= now_ms - 1000:
            begun.popleft()
        return begun
