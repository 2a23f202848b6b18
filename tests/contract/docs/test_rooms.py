"""Every module of a service is known to the import rules: as core, or as what the core may not
import."""

import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NO_CODE = {"__init__", "__pycache__", "books", "errors", "migrations", "py"}


@pytest.mark.parametrize("service", ["billing", "metering", "config", "edge"])
def test_every_module_is_core_or_shell(service: str) -> None:
    rules = configparser.ConfigParser()
    rules.read(ROOT / ".importlinter")
    rule = rules[f"importlinter:contract:{service}-core-inward"]
    prefix = f"handoff_{service}."
    named = f"{rule['source_modules']} {rule['forbidden_modules']}".split()
    listed = {name.removeprefix(prefix) for name in named if name.startswith(prefix)}
    folder = ROOT / "services" / service / "src" / f"handoff_{service}"
    modules = {path.name.partition(".")[0] for path in folder.iterdir()} - NO_CODE
    assert modules == listed
