"""Every module of a service is known to the import rules: as core, or as what the core may not
import."""

import configparser
import re
import tomllib
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


DISTRIBUTIONS = sorted(
    path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("*/*/pyproject.toml")
)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_every_distribution_is_installed_typed_and_ruled(distribution: str) -> None:
    """Where one is forgotten, nothing fails until somebody misses it."""
    made = (ROOT / "Makefile").read_text()
    installed = next(line for line in made.splitlines() if line.startswith("DISTRIBUTIONS"))
    assert distribution in installed.split()
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert f"{distribution}/src" in tools["mypy"]["mypy_path"].split(":")
    rules = configparser.ConfigParser()
    rules.read(ROOT / ".importlinter")
    package = f"handoff_{Path(distribution).name}"
    assert package in rules["importlinter"]["root_packages"].split()
    assert (ROOT / distribution / "src" / package / "py.typed").exists()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_distribution_declares_those_of_ours_that_it_imports(distribution: str) -> None:
    project = tomllib.loads((ROOT / distribution / "pyproject.toml").read_text())["project"]
    declared = {line for line in project["dependencies"] if line.startswith("handoff-")}
    imported = {
        f"handoff-{name}"
        for path in (ROOT / distribution / "src").rglob("*.py")
        for name in re.findall(r"^\s*(?:from|import) handoff_(\w+)", path.read_text(), re.MULTILINE)
    }
    assert imported - {project["name"]} <= declared
