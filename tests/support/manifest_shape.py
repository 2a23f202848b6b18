"""What can be said of one Kubernetes object by itself: it has the shape of its schema, its names
and quantities are valid, its images are pinned, and its pods can do no more than they must."""

import json
import re
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any

import kubernetes_validate
import kubernetes_validate.utils as validation

from support.kustomize import ROOT, Object
from support.manifest_model import Container, Manifests, Workload, label

OLDEST = "1.30"
"""The oldest Kubernetes that docs/operations.md promises: the first where preStop can sleep."""

NEWEST: str = kubernetes_validate.latest_version()

# The package reads two megabytes of definitions from disk for each object.
validation.schema_contents = lru_cache(maxsize=None)(validation.schema_contents)

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"^(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*$")
_DNS_LABEL = re.compile(rf"^{_LABEL}$")
_SERVICE = re.compile(r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")
_PORT = re.compile(r"^(?=.{1,15}$)(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_DATA_KEY = re.compile(r"^(?!\.\.)[-._a-zA-Z0-9]{1,253}$")
_ENVIRONMENT = re.compile(r"^[A-Z_][A-Z0-9_]*$")
_QUALIFIED = re.compile(
    rf"^((?=[^/]{{1,253}}/){_LABEL}(\.{_LABEL})*/)?[A-Za-z0-9]([-_.A-Za-z0-9]{{0,61}}[A-Za-z0-9])?$"
)
_LABEL_VALUE = re.compile(r"^([A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?$")
_QUANTITY = re.compile(r"^(\d+(?:\.\d*)?|\.\d+)(m|[kMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?$")
_POWERS = {"m": Decimal("0.001"), "": Decimal(1)}
_POWERS |= {unit: Decimal(1000) ** n for n, unit in enumerate("kMGTPE", 1)}
_POWERS |= {f"{unit}i": Decimal(1024) ** n for n, unit in enumerate("KMGTPE", 1)}
_IMAGE = re.compile(
    r"^(?P<name>[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)*)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?$"
)
_MIB = 1024 * 1024


@lru_cache(maxsize=4096)
def _schema_problem(text: str, version: str) -> str | None:
    try:
        validation.validate(json.loads(text), version, strict=True)
    except validation.ValidationError as error:
        place = ".".join(str(part) for part in error.path) or "the object"
        return f"{place}: {error.message[:300]}"
    except validation.SchemaNotFoundError as error:
        return f"Kubernetes {version} has no kind {error.kind} in {error.api_version}"
    return None


def schema_problems(found: Object) -> Iterator[str]:
    """Against the strict schemas of the oldest and the newest Kubernetes."""
    if not isinstance(found.get("kind"), str) or not isinstance(found.get("apiVersion"), str):
        yield f"{label(found)}: kind or apiVersion is missing"
        return
    for version in (OLDEST, NEWEST):
        problem = _schema_problem(json.dumps(found, sort_keys=True), version)
        if problem is not None:
            yield f"{label(found)}: {problem}"
            return


def quantity(text: object) -> Decimal | None:
    """A quantity's value, or None where it is none."""
    parts = _QUANTITY.match(str(text))
    if parts is None:
        return None
    number, unit = parts[1], parts[2] or ""
    if unit[:1] in "eE" and len(unit) > 1 and unit != "Ei":
        return Decimal(f"{number}{unit}")
    return Decimal(number) * _POWERS[unit]


def _named(what: str, name: object, pattern: re.Pattern[str]) -> Iterator[str]:
    if not pattern.match(str(name)):
        yield f"{what} {name!r} is not a valid name"


def _labels(where: str, labels: dict[str, Any] | None) -> Iterator[str]:
    for key, value in (labels or {}).items():
        if not _QUALIFIED.match(key) or not _LABEL_VALUE.match(str(value)):
            yield f"{where}: {key}={value} is not a valid label"


def name_problems(found: Object) -> Iterator[str]:
    where, kind = label(found), found["kind"]
    pattern = {"Service": _SERVICE, "Namespace": _DNS_LABEL}.get(kind, _SUBDOMAIN)
    yield from _named(f"{where}: name", found["metadata"].get("name"), pattern)
    yield from _labels(where, found["metadata"].get("labels"))
    for key in (*(found.get("data") or ()), *(found.get("stringData") or ())):
        yield from _named(f"{where}: key", key, _DATA_KEY)
    if kind == "Service":
        for port in found["spec"].get("ports") or ():
            yield from _named(f"{where}: port", port.get("name"), _DNS_LABEL)


def pod_name_problems(workload: Workload) -> Iterator[str]:
    where = workload.label
    # A pod's own name, and its hash, have to fit behind it into a label.
    if len(workload.name) > 52:
        yield f"{where}: name is longer than 52 characters"
    yield from _labels(where, workload.labels)
    for volume in workload.pod.get("volumes") or ():
        yield from _named(f"{where}: volume", volume["name"], _DNS_LABEL)
    for container in workload.containers:
        yield from _named(f"{where}: container", container.spec["name"], _DNS_LABEL)
        for port in container.ports:
            yield from _named(f"{container.where}: port", port.name, _PORT)
        for variable in container.spec.get("env") or ():
            yield from _named(f"{container.where}: variable", variable["name"], _ENVIRONMENT)


def resource_problems(container: Container) -> Iterator[str]:
    resources = container.spec.get("resources") or {}
    for resource in ("cpu", "memory"):
        amounts = {}
        for bound in ("requests", "limits"):
            text = (resources.get(bound) or {}).get(resource)
            where = f"{container.where}: resources.{bound}.{resource}"
            if text is None:
                yield f"{where} is missing"
                continue
            amount = quantity(text)
            if amount is None or amount <= 0:
                yield f"{where} = {text!r} is not a quantity above 0"
            elif resource == "memory" and amount < _MIB:
                yield f"{where} = {text!r} is less than 1Mi"
            else:
                amounts[bound] = amount
        if len(amounts) == 2 and amounts["requests"] > amounts["limits"]:
            asked, most = (resources[bound][resource] for bound in ("requests", "limits"))
            yield f"{container.where}: requests {resource} {asked}, over its limit of {most}"


def storage_problems(manifests: Manifests) -> Iterator[str]:
    claims = [(label(claim), claim) for claim in manifests.of("PersistentVolumeClaim")]
    for workload in manifests.workloads:
        claims += [(f"{workload.label}: claim {n}", c) for n, c in workload.claims.items()]
        for volume in workload.pod.get("volumes") or ():
            size = (volume.get("emptyDir") or {}).get("sizeLimit")
            if size is not None and not quantity(size):
                name = volume["name"]
                yield f"{workload.label}: volume {name}: {size!r} is not a quantity above 0"
    for where, claim in claims:
        size = claim["spec"]["resources"]["requests"]["storage"]
        if not quantity(size):
            yield f"{where}: storage {size!r} is not a quantity above 0"


@cache
def version_of(service: str) -> str:
    """The version of the distribution in services/<service>."""
    project = tomllib.loads((ROOT / "services" / service / "pyproject.toml").read_text())
    return str(project["project"]["version"])


def image_problems(container: Container) -> Iterator[str]:
    image = str(container.spec.get("image"))
    parts = _IMAGE.match(image)
    if parts is None:
        yield f"{container.where}: {image!r} is not an image"
    elif parts["digest"] is None and parts["tag"] in (None, "latest"):
        yield f"{container.where}: image {image} is not pinned to a version"
    elif (name := parts["name"].rsplit("/")[-1]).startswith("handoff-"):
        ours = version_of(name.removeprefix("handoff-"))
        if parts["tag"] != ours:
            yield f"{container.where}: image {image} is not this release, {ours}"


def hardening_problems(workload: Workload) -> Iterator[str]:
    """What the `restricted` pod security standard asks, and some more."""
    pod = workload.pod
    for key in ("automountServiceAccountToken", "enableServiceLinks"):
        if pod.get(key) is not False:
            yield f"{workload.label}: {key} is not false"
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield f"{workload.label}: {key} is set"
    for volume in pod.get("volumes") or ():
        if "hostPath" in volume:
            yield f"{workload.label}: volume {volume['name']} is a path of the host"
    security = pod.get("securityContext") or {}
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        yield f"{workload.label}: may run as root"
    if (security.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield f"{workload.label}: seccompProfile is not RuntimeDefault"
    for container in workload.containers:
        own = container.spec.get("securityContext") or {}
        if own.get("runAsUser") == 0 or own.get("runAsNonRoot") is False:
            yield f"{container.where}: may run as root"
        if own.get("privileged"):
            yield f"{container.where}: is privileged"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{container.where}: allowPrivilegeEscalation is not false"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{container.where}: readOnlyRootFilesystem is not true"
        capabilities = own.get("capabilities") or {}
        if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
            yield f"{container.where}: does not drop all capabilities"
