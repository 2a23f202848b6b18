"""How the checks of `deploy/` see Kubernetes objects: workloads with their pods and containers, and
which labels a selector takes. It owns no rule about what is right."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from support.kustomize import Object

NAMESPACE_LABEL = "kubernetes.io/metadata.name"


def label(found: Object) -> str:
    """How a problem names its object: `Deployment/config`."""
    return f"{found.get('kind')}/{found.get('metadata', {}).get('name')}"


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels. None takes nothing, an empty one everything."""
    if selector is None:
        return False
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for term in selector.get("matchExpressions") or ():
        key, values = term["key"], term.get("values") or ()
        taken = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not taken[term["operator"]]:
            return False
    return True


class Port(NamedTuple):
    name: str | None
    number: int
    protocol: str


@dataclass(frozen=True)
class Container:
    """One container, and the workload that it is in."""

    workload: "Workload"
    spec: Object

    @property
    def where(self) -> str:
        return f"{self.workload.label}: container {self.spec['name']}"

    @property
    def ports(self) -> list[Port]:
        return [
            Port(p.get("name"), p["containerPort"], p.get("protocol", "TCP"))
            for p in self.spec.get("ports") or ()
        ]

    @property
    def mounts(self) -> list[Object]:
        return list(self.spec.get("volumeMounts") or ())

    @property
    def command(self) -> list[str]:
        return [*(self.spec.get("command") or ()), *(self.spec.get("args") or ())]

    @property
    def pre_stop_seconds(self) -> int:
        hook = (self.spec.get("lifecycle") or {}).get("preStop") or {}
        return int((hook.get("sleep") or {}).get("seconds", 0))


@dataclass(frozen=True)
class Workload:
    """Anything with a pod template."""

    object: Object

    @property
    def label(self) -> str:
        return label(self.object)

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def kind(self) -> str:
        return str(self.object["kind"])

    @property
    def spec(self) -> Object:
        spec: Object = self.object["spec"]
        return spec

    @property
    def pod(self) -> Object:
        pod: Object = self.spec["template"]["spec"]
        return pod

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.spec["template"].get("metadata", {}).get("labels") or {})

    @property
    def containers(self) -> list[Container]:
        found = [*(self.pod.get("initContainers") or ()), *self.pod["containers"]]
        return [Container(self, spec) for spec in found]

    @property
    def ports(self) -> list[Port]:
        return [port for container in self.containers for port in container.ports]

    @property
    def claims(self) -> dict[str, Object]:
        """Volume name → claim, of the claims that are made for each pod."""
        templates = self.spec.get("volumeClaimTemplates") or ()
        return {claim["metadata"]["name"]: claim for claim in templates}


@dataclass(frozen=True)
class Outside:
    """What the objects rely on and do not make.

    pods: name → labels of pods that somebody else runs in the namespace, and their one port.
    addresses: `host:port` that settings may name. secrets: name → keys.
    """

    pods: Mapping[str, tuple[Mapping[str, str], int]] = field(default_factory=dict)
    addresses: frozenset[str] = frozenset()
    secrets: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifests:
    """All objects of one build."""

    objects: list[Object]
    outside: Outside

    def of(self, kind: str) -> Iterator[Object]:
        return (found for found in self.objects if found["kind"] == kind)

    def get(self, kind: str, name: str) -> Object | None:
        return next((o for o in self.of(kind) if o["metadata"]["name"] == name), None)

    @property
    def workloads(self) -> list[Workload]:
        return [Workload(o) for o in self.objects if "template" in (o.get("spec") or {})]

    def workload(self, name: str) -> Workload:
        return next(w for w in self.workloads if w.name == name)

    @property
    def containers(self) -> Iterable[Container]:
        return (container for workload in self.workloads for container in workload.containers)

    def serves(self, address: str) -> bool:
        """Whether `host:port` is a port of a Service here, or of what is outside."""
        if address in self.outside.addresses:
            return True
        host, _, port = address.rpartition(":")
        service = self.get("Service", host)
        return service is not None and any(
            str(p["port"]) == port for p in service["spec"].get("ports") or ()
        )
