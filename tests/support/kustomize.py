"""Builds a folder of `deploy/` into Kubernetes objects, by the program that install-kustomize.sh
chose. It owns no judgement of them; see `manifests`."""

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / ".cache" / "bin" / "kustomize"

Object = dict[str, Any]
"""One Kubernetes object, as it would be sent to the cluster."""


@cache
def text(folder: str) -> str:
    """What `deploy/<folder>` builds to, as YAML. Raises RuntimeError with kustomize's own words."""
    if not PROGRAM.exists():
        raise RuntimeError("there is no kustomize yet; tests/support/install-kustomize.sh gets one")
    done = subprocess.run(
        [PROGRAM, "build", ROOT / "deploy" / folder],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"deploy/{folder} does not build: {done.stderr.strip()}")
    return done.stdout


def build_with(folder: str, component: str, scratch: Path) -> list[Object]:
    """The objects of an overlay in the empty folder `scratch` that adds `deploy/<component>` to
    `deploy/<folder>`."""
    # Kustomize takes no absolute paths.
    there = {name: os.path.relpath(ROOT / "deploy" / name, scratch) for name in (folder, component)}
    overlay = {"resources": [there[folder]], "components": [there[component]]}
    (scratch / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    done = subprocess.run(
        [PROGRAM, "build", scratch], capture_output=True, text=True, timeout=60, check=True
    )
    return [found for found in yaml.safe_load_all(done.stdout) if found is not None]


def build(folder: str) -> list[Object]:
    """The objects of `deploy/<folder>`, the caller's own to change."""
    return [found for found in yaml.safe_load_all(text(folder)) if found is not None]
