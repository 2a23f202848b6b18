"""Whose turn it is, where there is more to do than can be done at once. Pure."""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Things that wait, each for somebody. Those who have some take turns, so that one who brings
    much waits behind himself, and not in front of the others. What one brings stays in its order.
    """

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[T]] = {}
        """By whom they are for, who comes next first; nobody has an empty queue."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, whose: Hashable, thing: T) -> None:
        self._waiting.setdefault(whose, deque()).append(thing)
        self._count += 1

    def take(self) -> T:
        """The next. Raises LookupError where nothing waits."""
        if not self._waiting:
            raise LookupError("nothing waits")
        whose = next(iter(self._waiting))
        queue = self._waiting.pop(whose)
        thing = queue.popleft()
        if queue:
            self._waiting[whose] = queue
        self._count -= 1
        return thing
