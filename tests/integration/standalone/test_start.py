"""What stops the embedded system from starting is said in one line that names what to change."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from handoff_common.errors import SettingError
from handoff_common.settings import load
from handoff_edge.settings import EdgeSettings
from handoff_standalone.settings import check_names, shown_here


def run(data: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """`handoff up` that must end by itself."""
    given = {k: v for k, v in os.environ.items() if not k.startswith("HANDOFF_")}
    given |= {"HANDOFF_DATA_DIR": str(data), "HANDOFF_EDGE_HOST": "127.0.0.1"}
    given |= {"HANDOFF_API_PORT": "0", "HANDOFF_EDGE_PORT": "0", "HANDOFF_EDGE_ADMIN_PORT": "0"}
    return subprocess.run(
        [sys.executable, "-m", "handoff_standalone", "up"],
        env=given | environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def said(process: subprocess.CompletedProcess[str]) -> list[str]:
    """What it told a person: the lines that are no log lines."""
    return [line for line in process.stderr.splitlines() if not line.startswith("{")]


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("name", ["API", "EDGE", "EDGE_ADMIN"])
def test_a_port_that_is_taken_is_named(tmp_path: Path, taken: int, name: str) -> None:
    process = run(tmp_path, **{f"HANDOFF_{name}_PORT": str(taken)})
    assert process.returncode == 2
    [line] = said(process)
    assert line.startswith(f"HANDOFF_{name}_PORT = {taken}, ") and "free port" in line


def test_a_host_that_is_none_is_named(tmp_path: Path) -> None:
    process = run(tmp_path, HANDOFF_API_HOST="nope.invalid")
    assert process.returncode == 2
    [line] = said(process)
    assert line.startswith("HANDOFF_API_HOST = 'nope.invalid': ")


@pytest.mark.parametrize("where", ["a file", "/proc/x"])
def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, where: str) -> None:
    if where == "a file":
        (tmp_path / "a file").write_text("")
        where = str(tmp_path / "a file")
    process = run(tmp_path, HANDOFF_DATA_DIR=where)
    assert process.returncode == 2
    [line] = said(process)
    assert line.startswith(f"HANDOFF_DATA_DIR = '{where}': ") and "takes a folder" in line


@pytest.mark.parametrize(
    ("service", "way_out"),
    [("config", "backup"), ("billing", "backup"), ("metering", "`handoff rebuild`")],
)
def test_a_damaged_database_is_named(tmp_path: Path, service: str, way_out: str) -> None:
    (tmp_path / f"{service}.db").write_bytes(b"this is no database" * 300)
    process = run(tmp_path)
    assert process.returncode == 1
    [line] = said(process)
    assert f"{tmp_path}/{service}.db: file is not a database" in line and way_out in line


def test_names_without_effect_are_refused_and_not_shown() -> None:
    check_names({"HANDOFF_TOKEN": "x", "HANDOFF_API_URL": "http://x", "HANDOFF_POP": "a"})
    with pytest.raises(SettingError) as caught:
        check_names(
            {
                "HANDOFF_LOG": "kafka://x",
                "HANDOFF_DATABASE_URL": "postgresql://me:secret@x/y",
                "HANDOFF_CONFIG_PORT": "1",
                "HANDOFF_EGDE_PORT": "1",
            }
        )
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines] == [
        "HANDOFF_CONFIG_PORT",
        "HANDOFF_DATABASE_URL",
        "HANDOFF_LOG",
        "HANDOFF_EGDE_PORT:",
    ]
    assert "secret" not in str(caught.value)
    assert all("HANDOFF_DATA_DIR" in line for line in lines[:3]) and "misspelt" in lines[3]
    shown = shown_here(load(EdgeSettings, {}))
    assert "HANDOFF_EDGE_PORT" in shown and "HANDOFF_LOG" not in shown
