"""Export of the JSON Schemas: one file per event type, so that a change shows in a diff.

python -m handoff_common.schemas FOLDER           write them
python -m handoff_common.schemas --check FOLDER   exit 1 when a file is missing, stale or left over
"""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from handoff_common.topics import TOPICS


def schemas() -> dict[str, str]:
    """Event type → its JSON Schema as text."""
    found: dict[str, str] = {}
    for topic in TOPICS.values():
        for event in getattr(topic.events, "__args__", (topic.events,)):
            schema: dict[str, Any] = msgspec.json.schema(event)
            schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
            tag = event.__struct_config__.tag
            found[tag] = json.dumps(schema, indent=2, sort_keys=True) + "\n"
    return found


def main(arguments: list[str]) -> int:
    check = arguments[:1] == ["--check"]
    folder = Path(arguments[-1])
    wanted = {f"{tag}.json": text for tag, text in schemas().items()}
    present = {path.name: path.read_text() for path in folder.glob("*.json")}
    if check:
        wrong = sorted(n for n in wanted.keys() | present.keys() if wanted.get(n) != present.get(n))
        for name in wrong:
            sys.stderr.write(f"{folder / name}: not what events.py says; run `make schemas`\n")
        return 1 if wrong else 0
    folder.mkdir(parents=True, exist_ok=True)
    for name in present.keys() - wanted.keys():
        (folder / name).unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
