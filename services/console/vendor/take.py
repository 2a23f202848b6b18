"""Copies what is served, and what tests check it with, out of the npm packages that
`package-lock.json` pins: `make vendor`. `files.json` keeps each file's SHA-256, which a test holds.

    python take.py            # after `npm ci --ignore-scripts` in this folder
"""

import hashlib
import json
import shutil
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SERVED = HERE.parent / "src/handoff_console/static/vendor"
TESTED = ROOT / "tests/support/vendor"
FILES = {
    "htmx.org/dist/htmx.min.js": SERVED / "htmx.min.js",
    "htmx-ext-sse/dist/sse.min.js": SERVED / "htmx-sse.min.js",
    "uplot/dist/uPlot.iife.min.js": SERVED / "uplot.min.js",
    "uplot/dist/uPlot.min.css": SERVED / "uplot.min.css",
    "htmx.org/LICENSE": SERVED / "htmx.LICENSE",
    "uplot/LICENSE": SERVED / "uplot.LICENSE",
    "axe-core/axe.min.js": TESTED / "axe.min.js",
    "axe-core/LICENSE": TESTED / "axe.LICENSE",
}


def main() -> None:
    taken = {}
    for source, target in FILES.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE / "node_modules" / source, target)
        taken[str(target.relative_to(ROOT))] = hashlib.sha256(target.read_bytes()).hexdigest()
    (HERE / "files.json").write_text(json.dumps(taken, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
