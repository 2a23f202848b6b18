"""Many coarse deadlines behind one timer tick. Pure: time is an argument.

An entry is in one slot, at or after its deadline, never before it. A deadline that moved further
away needs nothing: when its slot comes the owner looks, and places the entry again.
"""

from typing import Generic, Protocol, TypeVar


class Entry(Protocol):
    """What waits in a wheel. `slot` belongs to the wheel; -1: in none."""

    slot: int


E = TypeVar("E", bound=Entry)


class Wheel(Generic[E]):
    """Slots of `tick_ns` each."""

    __slots__ = ("_slots", "_tick_ns")

    def __init__(self, tick_ns: int) -> None:
        self._tick_ns = tick_ns
        self._slots: dict[int, set[E]] = {}

    def place(self, entry: E, due_ns: int) -> None:
        """Have `entry` given out by the first `take` at or after `due_ns`, not before."""
        self.remove(entry)
        entry.slot = slot = -(-due_ns // self._tick_ns)
        self._slots.setdefault(slot, set()).add(entry)

    def advance(self, entry: E, due_ns: int) -> None:
        """Place it anew only where that is sooner."""
        if entry.slot < 0 or -(-due_ns // self._tick_ns) < entry.slot:
            self.place(entry, due_ns)

    def remove(self, entry: E) -> None:
        if entry.slot >= 0:
            waiting = self._slots[entry.slot]
            waiting.remove(entry)
            if not waiting:
                del self._slots[entry.slot]
            entry.slot = -1

    def take(self, now_ns: int) -> list[E]:
        """All whose slot has come; they are in the wheel no longer."""
        past = now_ns // self._tick_ns
        taken: list[E] = []
        for slot in [slot for slot in self._slots if slot <= past]:
            taken.extend(self._slots.pop(slot))
        for entry in taken:
            entry.slot = -1
        return taken
