"""The table of a node's counts: what several workers put in, each of them reads."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from handoff_edge import counts_table
from handoff_edge.counts_table import KEY_BYTES, SERVICES, SIZE, CountsTable
from handoff_edge.limits import Counts

WORKERS = 4
NAMES = [bytes([n + 1]) * KEY_BYTES for n in range(3)]


def key(number: int) -> bytes:
    return (number + 1).to_bytes(KEY_BYTES, "big")


def test_what_one_worker_puts_in_another_reads() -> None:
    buffer = bytearray(SIZE)
    one, other = (CountsTable(memoryview(buffer), row, lambda _: True) for row in (0, 1))
    one.enter()
    other.enter()
    column = one.column(key(7), 0)
    assert column is not None
    assert other.column(key(7), 0) == column
    assert one.is_at(key(7), column) and not one.is_at(key(8), column)
    one.put(column, 5)
    other.put(column, 2)
    other.begin(column, 10)
    assert one.counts(column, 1009) == Counts(open=7, recent=1)
    assert one.counts(column, 1010) == Counts(open=7, recent=0)
    one.put(column, 0)
    assert other.open(column) == 2
    other.enter()
    assert one.open(column) == 0, "a worker that starts has nothing"


def test_a_key_that_lies_across_two_is_not_found() -> None:
    table = CountsTable(memoryview(bytearray(SIZE)), 0, lambda _: True)
    first, second = b"\1" * 8 + b"\2" * 8, b"\3" * 8 + b"\4" * 8
    assert table.column(first, 0) == 0
    assert table.column(second, 0) == 1
    assert table.column(b"\2" * 8 + b"\3" * 8, 0) == 2


def test_a_full_table_gives_columns_of_idle_services_again() -> None:
    gone: set[int] = set()
    buffer = bytearray(SIZE)
    table = CountsTable(memoryview(buffer), 0, lambda row: row not in gone)
    other = CountsTable(memoryview(buffer), 1, lambda row: row not in gone)
    table.enter()
    other.enter()
    for number in range(SERVICES):
        column = table.column(key(number), 0)
        assert column == number
        (other if number == 5 else table).put(column, 1)
    assert table.column(key(SERVICES), 10_000) is None
    table.put(3, 0)
    assert table.column(key(SERVICES), 10_500) is None, "it has just looked"
    table.begin(3, 10_990)
    assert table.column(key(SERVICES), 11_000) is None, "it still counts for the last second"
    assert table.column(key(SERVICES), 12_000) == 3
    assert not table.is_at(key(3), 3)
    assert table.recent(3, 12_000) == 0
    table.put(3, 1)
    gone.add(1)
    assert table.column(key(SERVICES + 1), 14_000) == 5, "its worker is gone"
    assert table.open(5) == 0


class Workers(RuleBasedStateMachine):
    """Several workers that come, go and die, against plain dictionaries."""

    @initialize()
    def begin(self) -> None:
        self.now = 5_000
        self.buffer = bytearray(SIZE)
        self.alive: set[int] = set()
        self.tables: dict[int, CountsTable] = {}
        self.open: dict[tuple[int, int], int] = {}
        self.begun: list[tuple[int, int]] = []

    @rule(row=st.integers(0, WORKERS - 1))
    def starts(self, row: int) -> None:
        if row in self.alive:
            return
        table = CountsTable(memoryview(self.buffer), row, self.alive.__contains__)
        table.enter()
        self.alive.add(row)
        self.tables[row] = table

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def dies(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.alive)))
        self.alive.discard(row)
        self.open = {at: count for at, count in self.open.items() if at[0] != row}

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), name=st.integers(0, len(NAMES) - 1))
    def opens(self, data: st.DataObject, name: int) -> None:
        row = data.draw(st.sampled_from(sorted(self.alive)))
        table = self.tables[row]
        column = table.column(NAMES[name], self.now)
        assert column is not None
        self.open[row, name] = self.open.get((row, name), 0) + 1
        table.begin(column, self.now)
        table.put(column, self.open[row, name])
        self.begun.append((self.now, name))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def closes(self, data: st.DataObject) -> None:
        row, name = data.draw(st.sampled_from(sorted(self.open)))
        left = self.open[row, name] - 1
        if left:
            self.open[row, name] = left
        else:
            del self.open[row, name]
        column = self.tables[row].column(NAMES[name], self.now)
        assert column is not None
        self.tables[row].put(column, left)

    @rule(ms=st.integers(0, 1500))
    def waits(self, ms: int) -> None:
        self.now += ms

    @invariant()
    def everyone_counts_the_same(self) -> None:
        for row in self.alive:
            table = self.tables[row]
            for name, text in enumerate(NAMES):
                column = table.column(text, self.now)
                assert column is not None
                there = sum(n for (_, service), n in self.open.items() if service == name)
                assert table.open(column) >= there, "the dead may be counted, nobody is missed"
                table.void(column)
                recent = [at for at, service in self.begun if service == name]
                assert table.counts(column, self.now) == Counts(
                    there, sum(1 for at in recent if at > self.now - 1000)
                )


Workers.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestWorkers = Workers.TestCase


@settings(max_examples=200)
@given(st.lists(st.integers(0, 2500), max_size=30))
def test_recent_ones_are_those_of_exactly_one_second(waits: list[int]) -> None:
    table = CountsTable(memoryview(bytearray(SIZE)), 0, lambda _: True)
    column = table.column(key(1), 0)
    assert column is not None
    now = 0
    begun: list[int] = []
    for wait in waits:
        now += wait
        assert table.recent(column, now) == sum(1 for at in begun if at > now - 1000)
        table.begin(column, now)
        begun.append(now)


def test_the_buffer_can_be_let_go() -> None:
    buffer = bytearray(SIZE)
    table = CountsTable(memoryview(buffer), 0, lambda _: True)
    table.release()
    buffer.clear()
    assert counts_table.ROWS >= 64
