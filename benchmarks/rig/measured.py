"""What processes cost: CPU seconds and memory, from /proc.

CPU is the scheduler's own account of each thread's time on a core, in nanoseconds. On loopback the
kernel carries a segment to its receiver within the sender's system call, so a process pays for what
it sends and not for what it is sent; that holds for all that are compared. What the kernel puts off
to its own threads (ksoftirqd) is in nobody's account.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_GONE = (FileNotFoundError, ProcessLookupError)


def family(root: int) -> list[int]:
    """A process and all that came of it."""
    found = [root]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(*_GONE):
                found += [int(child) for child in children.read_text().split()]
    return found


@dataclass(frozen=True)
class Cpu:
    """Nanoseconds of each thread (process id, thread id), and the thread's name."""

    threads: dict[tuple[int, int], tuple[str, int]]

    @classmethod
    def of(cls, root: int) -> Self:
        found = {}
        for pid in family(root):
            for task in Path(f"/proc/{pid}/task").glob("*"):
                with suppress(*_GONE):
                    ns = int((task / "schedstat").read_text().split()[0])
                    found[pid, int(task.name)] = ((task / "comm").read_text().strip(), ns)
        return cls(found)

    def since(self, before: "Cpu") -> float:
        """Seconds of all threads. Threads that ended in between are not in it: none of those that
        are measured ends its threads while it serves."""
        return sum(self.by_thread(before).values())

    def by_thread(self, before: "Cpu") -> Counter[str]:
        """The same by the threads' names."""
        found: Counter[str] = Counter()
        for key, (name, ns) in self.threads.items():
            _, earlier = before.threads.get(key, ("", 0))
            found[name] += (ns - earlier) / 1e9  # type: ignore[assignment]
        return found


@dataclass(frozen=True)
class Memory:
    """KiB of a process and all that came of it. rss counts shared pages in each of them; pss
    shares them out."""

    rss: int
    pss: int

    @classmethod
    def of(cls, root: int) -> Self:
        rss = pss = 0
        for pid in family(root):
            with suppress(*_GONE):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    name, _, value = line.partition(":")
                    rss += int(value.split()[0]) if name == "Rss" else 0
                    pss += int(value.split()[0]) if name == "Pss" else 0
        return cls(rss, pss)
