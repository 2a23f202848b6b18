"""Prints the part of requirements.lock that distributions of this repository need, hashes and all.

needed.py libs/common
needed.py services/edge libs/relay --without libs/common
needed.py --only websockets

An image so holds what its service declares and what that needs in turn, and not what another
service, the command line or the build needs. Run in an environment in which the whole lock is
installed: what a package needs is read from its metadata there.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = "handoff-"


def declared(distribution: Path) -> list[Requirement]:
    project = tomllib.loads((distribution / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in project["dependencies"]]


def closure(wanted: Iterable[Requirement]) -> set[str]:
    """Names of all that these need here, themselves included, ours left out."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    pending = [(r, "") for r in wanted]
    while pending:
        requirement, extra = pending.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name.startswith(OURS):
            continue
        found.add(name)
        for wanted_extra in ("", *requirement.extras):
            if (name, wanted_extra) not in seen:
                seen.add((name, wanted_extra))
                pending += [(Requirement(line), wanted_extra) for line in requires(name) or ()]
    return found


def entries(lock: str) -> dict[str, str]:
    """Name → its entry of the lock: the line that pins it and the lines of its hashes."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=[a-zA-Z0-9])", lock.strip()):
        if pinned := re.match(r"([A-Za-z0-9._-]+)(\[[^]]*\])?==", entry):
            found[canonicalize_name(pinned[1])] = entry
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("distributions", nargs="*", type=Path)
    parser.add_argument("--without", nargs="*", type=Path, default=[])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--lock", type=Path, default=Path("requirements.lock"))
    given = parser.parse_args(arguments)
    wanted = [r for path in given.distributions for r in declared(path)]
    wanted += [Requirement(name) for name in given.only]
    present = closure(r for path in given.without for r in declared(path))
    locked = entries(given.lock.read_text())
    names = sorted(closure(wanted) - present)
    if missing := [name for name in names if name not in locked]:
        sys.stderr.write(f"{given.lock} does not pin {', '.join(missing)}\n")
        return 1
    sys.stdout.write("".join(f"{locked[name]}\n" for name in names))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
