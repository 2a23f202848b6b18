"""Golden examples of every event type are decoded for ever.

A file, once committed, is never changed: it is what producers of that version have written. A new
optional field gets a further example beside the old one.
"""

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from handoff_common import codec, schemas
from handoff_common.errors import Unreadable
from handoff_common.topics import CONNECTIONS, TOPICS

FOLDER = Path(__file__).parent / "golden"
EXAMPLES = sorted(FOLDER.glob("*.json"))


def topic_of(tag: str) -> str:
    for topic in TOPICS.values():
        for event in getattr(topic.events, "__args__", (topic.events,)):
            if event.__struct_config__.tag == tag:
                return topic.name
    raise AssertionError(f"no topic has {tag}")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_golden_example_decodes_to_what_it_says(path: Path) -> None:
    raw = path.read_bytes()
    written = json.loads(raw)
    event = codec.decode(topic_of(written["type"]), raw)
    again = json.loads(codec.encode(event))
    for name, value in written.items():
        if name != "data":
            assert again[name] == value
    for name, value in written["data"].items():
        assert again["data"][name] == value, name


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_golden_example_fits_its_exported_schema(path: Path) -> None:
    written = json.loads(path.read_bytes())
    schema = json.loads(schemas.schemas()[written["type"]])
    jsonschema.validate(written, schema)


def test_every_event_type_has_a_golden_example() -> None:
    shown = {json.loads(path.read_bytes())["type"] for path in EXAMPLES}
    assert shown == set(schemas.schemas())


def test_unknown_fields_are_ignored() -> None:
    written = json.loads((FOLDER / "connection.bytes.v1.json").read_bytes())
    written["data"]["added_later"] = {"deep": [1]}
    assert codec.decode(CONNECTIONS.name, json.dumps(written).encode()).data.seq == 1


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"type": "handoff.connection.teleported.v1"}, "unknown_type"),
        ({"type": "handoff.edge.watermark.v1"}, "unknown_type"),
        ({"data": {"customer_id": "c"}}, "malformed"),
        ({"specversion": "2.0"}, "malformed"),
    ],
)
def test_what_cannot_be_read_says_why(change: dict[str, object], kind: str) -> None:
    written = json.loads((FOLDER / "connection.bytes.v1.json").read_bytes()) | change
    with pytest.raises(Unreadable) as caught:
        codec.decode(CONNECTIONS.name, json.dumps(written).encode())
    assert caught.value.kind == kind


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[]", b'{"type": 7}'])
def test_garbage_is_malformed_or_unknown(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        codec.decode(CONNECTIONS.name, raw)


def test_an_unreadable_record_still_tells_whose_it_is() -> None:
    written = json.loads((FOLDER / "connection.bytes.v1.json").read_bytes())
    written["data"]["elapsed_ms"] = -1
    with pytest.raises(Unreadable) as caught:
        codec.decode(CONNECTIONS.name, json.dumps(written).encode())
    assert caught.value.customer_id == written["data"]["customer_id"]


def test_counters_beyond_63_bits_are_refused() -> None:
    written = json.loads((FOLDER / "connection.bytes.v1.json").read_bytes())
    written["data"]["req_body_bytes"] = 2**63
    with pytest.raises(Unreadable):
        codec.decode(CONNECTIONS.name, json.dumps(written).encode())
    assert msgspec.json.decode(b"9223372036854775807") == 2**63 - 1
