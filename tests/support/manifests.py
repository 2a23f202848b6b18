"""Every problem of a build of `deploy/`, in words that name the object and what is wrong.

The checks themselves are in `manifest_shape` (one object), `manifest_links` (one object of
another), `manifest_settings` (environment and settings) and `manifest_network` (policies).
"""

import re
from collections.abc import Iterator

from support.kustomize import ROOT, Object
from support.manifest_links import (
    identity_problems,
    probe_problems,
    reference_problems,
    scale_problems,
    selector_problems,
    service_problems,
    volume_problems,
)
from support.manifest_model import Manifests, Outside, label
from support.manifest_network import policy_problems
from support.manifest_settings import journal_problems, setting_problems, stop_problems
from support.manifest_shape import (
    hardening_problems,
    image_problems,
    name_problems,
    pod_name_problems,
    resource_problems,
    schema_problems,
    storage_problems,
)

_UPSTREAM = re.compile(r"\bserver ([a-z0-9-]+:\d+);")
_SECRET_ROW = re.compile(r"^\| `(?P<name>[a-z0-9-]+)` \| `(?P<key>[a-z0-9-]+)` \|", re.MULTILINE)


def documented_secrets() -> dict[str, frozenset[str]]:
    """Secret → keys, from the table of docs/operations.md: what a deployment has to make."""
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text.split("### Secrets", 1)[1].split("\n#", 1)[0]
    found: dict[str, frozenset[str]] = {}
    for row in _SECRET_ROW.finditer(section):
        found[row["name"]] = found.get(row["name"], frozenset()) | {row["key"]}
    return found


def gateway_problems(manifests: Manifests) -> Iterator[str]:
    """What the gateway passes on to is a Service with that port."""
    for found in manifests.of("ConfigMap"):
        text = (found.get("data") or {}).get("services.conf")
        if text is not None:
            for address in _UPSTREAM.findall(text):
                if not manifests.serves(address):
                    yield f"{label(found)}: services.conf: {address} is no port of a Service here"


def problems(objects: list[Object], outside: Outside) -> list[str]:
    """All that is wrong. Where an object has not the shape of its schema, only that is said: the
    other checks read it as if it had."""
    manifests = Manifests(objects, outside)
    shape = [text for found in objects for text in schema_problems(found)]
    if shape:
        return shape
    return list(_cross_checks(manifests))


def _cross_checks(manifests: Manifests) -> Iterator[str]:
    for found in manifests.objects:
        yield from name_problems(found)
    for workload in manifests.workloads:
        yield from pod_name_problems(workload)
        yield from hardening_problems(workload)
        yield from probe_problems(workload)
        for container in workload.containers:
            yield from resource_problems(container)
            yield from image_problems(container)
    for check in (
        identity_problems,
        storage_problems,
        selector_problems,
        service_problems,
        reference_problems,
        volume_problems,
        scale_problems,
        policy_problems,
        setting_problems,
        stop_problems,
        journal_problems,
        gateway_problems,
    ):
        yield from check(manifests)
