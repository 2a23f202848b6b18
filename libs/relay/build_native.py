"""Builds the native relay with cargo, where there is one; and is the hook by which `pip` does so.

`python build_native.py` puts the extension beside the Python sources; `check` and `test` run
cargo's own checks, and `miri` those tests that need no system under Rust's interpreter. Without
cargo it says so, and the relay is the Python one.

`native/Cargo.pins` is a Cargo.lock without the addresses of registries: versions and hashes. The
lock itself is made of it here, with the address that this machine's cargo uses.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_HERE = Path(__file__).parent
_CRATE = _HERE / "native"
_EXTENSION = _HERE / "src" / "handoff_relay" / "_native.abi3.so"
_OLDEST = (1, 85)
"""The cargo that the crate needs."""
_PURE = ("frames", "pace", "wheel")


class BuildHook(BuildHookInterface[Any]):
    """What hatchling calls for a wheel, and for an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if build():
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["artifacts"].append("src/handoff_relay/_native.abi3.so")
            build_data["pure_python"] = False
            build_data["tag"] = f"cp311-abi3-{platform}"


def build() -> bool:
    """Make the extension as new as its sources. False, with the reason said, where that cannot be;
    then there is none. HANDOFF_RELAY_NATIVE=0 asks for that, and 1 makes it an error."""
    wanted = os.environ.get("HANDOFF_RELAY_NATIVE", "")
    reason = "HANDOFF_RELAY_NATIVE is 0" if wanted == "0" else _unable()
    if not reason:
        lock()
        if not (_CRATE / "target" / "release").exists():
            print("building the native relay, for a minute or so …", file=sys.stderr)
        # Nothing of Python's is linked: an extension for the stable interface of 3.11 and later.
        _cargo("build", "--quiet", "--release", "--locked", "--features", "extension-module")
        _replace(_CRATE / "target" / "release" / "libhandoff_relay_native.so", _EXTENSION)
        return True
    _EXTENSION.unlink(missing_ok=True)
    text = f"the native relay is not built: {reason}. The Python relay works in its place."
    if wanted == "1":
        sys.exit(text)
    print(text, file=sys.stderr)
    return False


def check() -> None:
    """Formatting and lints."""
    if reason := _unable():
        print(f"the native relay is not checked: {reason}", file=sys.stderr)
        return
    lock()
    _cargo("fmt", "--check")
    _cargo("clippy", "--quiet", "--locked", "--all-targets", "--", "--deny", "warnings")


def test() -> None:
    """The crate's own tests."""
    if reason := _unable():
        print(f"the native relay is not tested: {reason}", file=sys.stderr)
        return
    lock()
    _cargo("test", "--quiet", "--locked")


def miri() -> None:
    """What computes and asks the system for nothing, under Miri, where a toolchain has it."""
    if reason := _unable() or _without_miri():
        print(f"the native relay is not run under Miri: {reason}", file=sys.stderr)
        return
    lock()
    os.environ |= {"MIRIFLAGS": "-Zmiri-disable-isolation", "CARGO_TARGET_DIR": "target/miri"}
    _cargo("+nightly", "miri", "test", "--quiet", "--locked", "--lib", "--", *_PURE)


def lock() -> None:
    """Write Cargo.lock, if it is not the one that the pins give."""
    pins = (_CRATE / "Cargo.pins").read_text()
    path = _CRATE / "Cargo.lock"
    if path.exists() and _without_sources(path.read_text()) == pins:
        return
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        shutil.copy(_CRATE / "Cargo.toml", scratch)
        (scratch / "src").mkdir()
        (scratch / "src" / "lib.rs").touch()
        _cargo("generate-lockfile", "--quiet", folder=scratch)
        made = (scratch / "Cargo.lock").read_text()
    source = re.search(r"^source = .*$", made, re.MULTILINE)
    assert source is not None, "the crate has dependencies"
    path.write_text(pins.replace("\nchecksum = ", f"\n{source[0]}\nchecksum = "))


def pin() -> None:
    """Write the pins from Cargo.lock, after `cargo update`."""
    text = (_CRATE / "Cargo.lock").read_text()
    (_CRATE / "Cargo.pins").write_text(_without_sources(text))


def _without_sources(text: str) -> str:
    return re.sub(r"^source = .*\n", "", text, flags=re.MULTILINE)


def _unable() -> str:
    """Why it cannot be built here."""
    if sys.platform != "linux":
        return f"it is for Linux, and this is {sys.platform}"
    cargo = _find_cargo()
    if cargo is None:
        return "there is no cargo on this machine"
    said = subprocess.run([cargo, "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"cargo (\d+)\.(\d+)", said.stdout)
    if said.returncode or not found:
        return f"cargo does not run ({said.stderr.strip() or said.returncode})"
    if (int(found[1]), int(found[2])) < _OLDEST:
        return f"it needs cargo {'.'.join(map(str, _OLDEST))}, and this is {found[0]}"
    return "" if shutil.which("cc") else "there is no C compiler (cc) to link with"


def _without_miri() -> str:
    cargo = _find_cargo()
    assert cargo is not None
    command = [cargo, "+nightly", "miri", "--version"]
    said = subprocess.run(command, capture_output=True, check=False)
    return "there is no nightly toolchain with miri and rust-src" if said.returncode else ""


def _find_cargo() -> str | None:
    home = os.environ.get("CARGO_HOME") or Path.home() / ".cargo"
    return shutil.which("cargo") or shutil.which("cargo", path=str(Path(home) / "bin"))


def _cargo(*arguments: str, folder: Path = _CRATE) -> None:
    cargo = _find_cargo()
    assert cargo is not None
    # With the rustc that lies beside it, if it is in no path.
    path = os.pathsep.join((os.environ.get("PATH", ""), str(Path(cargo).parent)))
    subprocess.run(
        [cargo, *arguments],
        cwd=folder,
        env=os.environ | {"PATH": path, "PYO3_PYTHON": sys.executable},
        check=True,
    )


def _replace(built: Path, extension: Path) -> None:
    """At once: a process that has the old one mapped keeps it."""
    if extension.exists() and extension.read_bytes() == built.read_bytes():
        return
    scratch = extension.with_suffix(".new")
    shutil.copy(built, scratch)
    scratch.replace(extension)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [] | ["build"]:
            build()
        case ["check"]:
            check()
        case ["test"]:
            test()
        case ["miri"]:
            miri()
        case ["pin"]:
            pin()
        case other:
            sys.exit(f"{' '.join(other)!r}: takes build, check, test, miri or pin")
