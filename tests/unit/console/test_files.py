"""What is served of others is what was taken from npm; templates have no inline script or style."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from handoff_console.app import templates
from handoff_console.static_files import FOLDER, Files

ROOT = Path(__file__).parents[3]
TEMPLATES = sorted((ROOT / "services/console/src/handoff_console/templates").glob("*.html"))


def test_vendored_files_are_those_that_were_taken() -> None:
    taken = json.loads((ROOT / "services/console/vendor/files.json").read_text())
    for name, digest in taken.items():
        assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == digest, name
    served = {str(path.relative_to(ROOT)) for path in (FOLDER / "vendor").iterdir()}
    assert served <= taken.keys()


def test_the_lock_names_no_registry() -> None:
    lock = json.loads((ROOT / "services/console/vendor/package-lock.json").read_text())
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert packages
    for name, one in packages.items():
        assert "resolved" not in one and one["integrity"].startswith("sha512-"), name


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_templates_compile_and_have_nothing_inline(path: Path) -> None:
    templates(Files()).get_template(path.name)
    text = path.read_text()
    assert not re.search(r"\sstyle\s*=", text)
    assert not re.search(r"\son[a-z]+\s*=\s*[\"']", text)
    for script in re.findall(r"<script[^>]*>", text):
        assert "src=" in script, script
    assert "|safe" not in text.replace(" ", ""), "everything is escaped"


def test_every_form_that_writes_has_the_token() -> None:
    for path in TEMPLATES:
        for form in re.findall(r"<form\b[^>]*method=\"post\".*?</form>", path.read_text(), re.S):
            assert "p.csrf()" in form, f"{path.name}: {form[:80]}"
