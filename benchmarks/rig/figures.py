"""Rounds become figures, figures become a table."""

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass
class Figure:
    """One value a round, all in the same unit."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values) if self.values else float("nan")

    def __str__(self) -> str:
        """The median, and from the least to the most."""
        if not self.values:
            return "–"
        if len(self.values) == 1:
            return shown(self.values[0])
        return f"{shown(self.median)} ({shown(min(self.values))}–{shown(max(self.values))})"


def shown(value: float) -> str:
    """Three digits that count, and never an exponent."""
    size = abs(value)
    if size >= 100 or size == 0:
        return f"{value:,.0f}"
    digits = 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:.{digits}f}"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def ratio(ours: Figure, peers: Iterable[Figure]) -> float:
    """To the best of the peers: the one with the least median."""
    best = min((peer.median for peer in peers if peer.values), default=float("nan"))
    return ours.median / best if ours.values and best else float("nan")


def machine() -> str:
    """What a reader must know of where the figures are from."""
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, Linux {platform.release()}, load average {load:.1f}"
