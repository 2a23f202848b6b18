"""The causes of refusals are those of the documentation, word for word."""

import re
from pathlib import Path

from handoff_console.refusal_causes import CAUSES, cause

TABLE = Path(__file__).parents[3] / "docs" / "edge.md"
ROW = re.compile(r"^\| `([a-z0-9_]+)` \| (?:(\d{3}) \| )?([^|]+) \| ([^|]+) \|$", re.M)
REFUSALS = TABLE.read_text().partition("\n# ")[0]


def plain(text: str) -> str:
    """Without the marks of code, as a sentence."""
    text = text.replace("`", "").rstrip(".")
    return f"{text[0].upper()}{text[1:]}."


def test_every_cause_of_the_table_is_explained_as_there() -> None:
    documented = {
        code: (int(status or 0), plain(why), plain(advice))
        for code, status, why, advice in ROW.findall(REFUSALS)
    }
    assert len(documented) > 60
    assert {code: tuple(found) for code, found in CAUSES.items()} == documented


def test_a_code_of_a_later_release_has_advice() -> None:
    assert cause("melted").advice
