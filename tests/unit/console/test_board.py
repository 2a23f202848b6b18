"""What viewers of a live page are told, however late they come."""

from hypothesis import given
from hypothesis import strategies as st

from handoff_console.board import Board, View

PARTS = st.dictionaries(st.sampled_from(["totals", "status"]), st.sampled_from("abc"), max_size=2)
ROWS = st.lists(
    st.tuples(st.sampled_from(["r1", "r2", "r3", "r4"]), st.sampled_from("xyz")),
    unique_by=lambda row: row[0],
    max_size=4,
)


class Page:
    """What a browser makes of the events, as static/live.js does."""

    def __init__(self) -> None:
        self.seen = 0
        self.parts: dict[str, str] = {}
        self.rows: dict[str, str] = {}

    def hear(self, board: Board) -> None:
        for event in board.since(self.seen):
            if event.name != "rows":
                self.parts[event.name] = event.html
                continue
            order = None
            for line in event.html.splitlines():
                if line.startswith("<tr data-order"):
                    order = line.split('"')[1].split()
                    continue
                row_id, _, html = line.partition("=")
                self.rows[row_id] = html
            if order is not None:
                self.rows = {row_id: self.rows[row_id] for row_id in order}
        self.seen = board.version


@given(st.lists(st.tuples(PARTS, ROWS, st.booleans()), max_size=12))
def test_a_viewer_who_misses_any_versions_sees_what_a_steady_one_sees(
    views: list[tuple[dict[str, str], list[tuple[str, str]], bool]],
) -> None:
    board, steady, sleepy = Board(), Page(), Page()
    parts: dict[str, str] = {}
    for changed, rows, awake in views:
        parts |= changed
        board.put(View(changed, [(row_id, f"{row_id}={html}") for row_id, html in rows]))
        steady.hear(board)
        if awake:
            sleepy.hear(board)
        assert (steady.parts, list(steady.rows.items())) == (parts, rows)
    sleepy.hear(board)
    late = Page()
    late.hear(board)
    for page in (sleepy, late):
        assert (page.parts, list(page.rows.items())) == (
            steady.parts,
            list(steady.rows.items()),
        )


def test_nothing_is_told_where_nothing_changed() -> None:
    board = Board()
    view = View({"totals": "1"}, [("r1", "<tr></tr>")])
    assert board.put(view)
    version = board.version
    assert not board.put(view)
    assert board.version == version and board.since(version) == []


def test_only_the_rows_that_changed_are_told() -> None:
    board = Board()
    board.put(View({}, [("r1", "one"), ("r2", "two")]))
    version = board.version
    board.put(View({}, [("r1", "one"), ("r2", "2")]))
    assert [event.html for event in board.since(version)] == ["2"]
