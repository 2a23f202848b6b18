"""What holds a month's invoice open. Pure.

A month can be final at a *cut*: every slice of metering has said, in every partition of the usage
topic, that it is past the month's end, and no row of the month bears more than those sayings cover.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from handoff_common.instants import rfc3339
from handoff_common.minutes import next_month


@dataclass(frozen=True, slots=True)
class Hold:
    """One reason. `code` is stable; `detail` is for a person.

    forceable: whether an operator may finalize in spite of it.
    """

    code: str
    detail: str
    forceable: bool = True


class Progress(NamedTuple):
    """The latest that one slice has said in one partition of the usage topic; see
    `events.ProgressData`."""

    slice: int
    partition: int
    slices: int
    generation: int
    revision: int
    position: int
    through_ms: int
    open_orphans: int = 0
    parked: Mapping[str, int] = {}
    difference: int = 0


class RowVersion(NamedTuple):
    """Of the month's rows of one slice and generation, those with something in them or those that
    are `empty`: the greatest offset folded in."""

    slice: int
    generation: int
    offset: int
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """slice → next offset of its connections partition, and the watermark it vouches for."""

    positions: Mapping[int, int] = field(default_factory=dict)
    through_ms: Mapping[int, int] = field(default_factory=dict)


def cut_of(progress: Iterable[Progress]) -> Cut:
    """The least that each slice has said over all partitions."""
    positions: dict[int, int] = {}
    through: dict[int, int] = {}
    for one in progress:
        positions[one.slice] = min(one.position, positions.get(one.slice, one.position))
        through[one.slice] = min(one.through_ms, through.get(one.slice, one.through_ms))
    return Cut(dict(sorted(positions.items())), dict(sorted(through.items())))


def holds(
    *,
    customer_id: str,
    month_ms: int,
    now_ms: int,
    grace_ms: int,
    partitions: int,
    progress: Sequence[Progress],
    rows: Iterable[RowVersion],
    unreadable: Mapping[str | None, int],
    corrected: Mapping[int, Iterable[RowVersion]] = {},
) -> list[Hold]:
    """Every reason why the customer's month cannot be final yet; none: it can.

    partitions: of the usage topic. unreadable: customer (None: cannot be told) → records that
    billing itself could not decode. corrected: the months that the invoice corrects, and their
    rows: what it counts of them must lie before the cut too.
    """
    end_ms = next_month(month_ms)
    found: list[Hold] = []
    if now_ms < end_ms:
        found.append(Hold("month_open", f"the month ends at {rfc3339(end_ms)}", forceable=False))
    elif now_ms < end_ms + grace_ms:
        found.append(
            Hold("grace", f"late events are waited for until {rfc3339(end_ms + grace_ms)}")
        )
    found += _progress_holds(end_ms, partitions, progress)
    found += _row_holds(progress, rows, "the month")
    for other_ms, others in sorted(corrected.items()):
        which = f"the month from {rfc3339(other_ms)}, which it corrects,"
        found += _row_holds(progress, others, which)
    found += _quality_holds(customer_id, progress, unreadable)
    return found


def _progress_holds(end_ms: int, partitions: int, progress: Sequence[Progress]) -> Iterable[Hold]:
    if not progress:
        yield Hold("no_progress", "metering has not said yet how far it has come")
        return
    slices = max(one.slices for one in progress)
    said = {(one.slice, one.partition) for one in progress}
    for slice_ in range(slices):
        missing = [p for p in range(partitions) if (slice_, p) not in said]
        if missing:
            yield Hold(
                "progress_missing",
                f"slice {slice_} has said nothing in usage partitions {_list(missing)}",
            )
    for slice_, through_ms in cut_of(progress).through_ms.items():
        if through_ms < end_ms:
            yield Hold(
                "progress_behind",
                f"slice {slice_} is complete through {rfc3339(through_ms)}, "
                f"before the month's end {rfc3339(end_ms)}",
            )
    generations = sorted({one.generation for one in progress})
    if len(generations) > 1:
        yield Hold(
            "generations_differ", f"a rebuild is under way: generations {_list(generations)}"
        )


def _row_holds(
    progress: Sequence[Progress], rows: Iterable[RowVersion], month: str
) -> Iterable[Hold]:
    cut = cut_of(progress)
    generation = max((one.generation for one in progress), default=None)
    for row in sorted(rows):
        position = cut.positions.get(row.slice)
        if generation is not None and row.empty and row.generation < generation:
            # A rebuild leaves out what was empty before and is empty still.
            continue
        if generation is not None and row.generation != generation:
            yield Hold(
                "rows_of_another_generation",
                f"slice {row.slice} has rows of generation {row.generation} in {month}; "
                f"its progress is of generation {generation}",
            )
        elif position is not None and row.offset >= position:
            yield Hold(
                "rows_beyond_progress",
                f"slice {row.slice} has a row of {month} at offset {row.offset}; "
                f"its progress speaks of those before {position}",
            )


def _quality_holds(
    customer_id: str, progress: Sequence[Progress], unreadable: Mapping[str | None, int]
) -> Iterable[Hold]:
    newest: dict[int, Progress] = {}
    for one in progress:
        seen = newest.get(one.slice)
        if seen is None or (one.generation, one.revision) > (seen.generation, seen.revision):
            newest[one.slice] = one
    for slice_, one in sorted(newest.items()):
        if one.open_orphans:
            yield Hold(
                "open_orphans",
                f"slice {slice_} has {one.open_orphans} open connections of lost edges",
            )
        for owner, whose in ((customer_id, "of this customer"), ("", "of an unknown customer")):
            count = one.parked.get(owner, 0)
            if count:
                yield Hold("parked", f"slice {slice_} has {count} undecided parked records {whose}")
        if one.difference:
            yield Hold(
                "difference",
                f"{one.difference} events that edges say they delivered were not found "
                f"(slice {slice_})",
            )
    for customer, whose in ((customer_id, "of this customer"), (None, "of an unknown customer")):
        count = unreadable.get(customer, 0)
        if count:
            yield Hold("usage_unreadable", f"billing could not read {count} records {whose}")


def _list(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    return shown if len(numbers) <= 10 else f"{shown}, …"
