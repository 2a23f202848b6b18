"""What NetworkPolicies allow, as arrows: each pair of pods, and the world outside, is asked as a
cluster would decide it, egress of the one and ingress of the other."""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from support.kustomize import Object
from support.manifest_model import NAMESPACE_LABEL, Manifests, label, matches

Arrow = tuple[str, str, int]
"""From, to, port."""


class Place(NamedTuple):
    """One end of a connection. name: how arrows call it. namespace: its labels; None for what is no
    pod. ours: in our namespace."""

    name: str
    labels: Mapping[str, str]
    namespace: Mapping[str, str] | None
    ours: bool
    address: str
    ports: tuple[tuple[int, str], ...]


WORLD = Place("world", {}, None, False, "203.0.113.9", ((443, "TCP"), (9443, "TCP")))
PRIVATE = Place("private", {}, None, False, "192.168.7.7", ((443, "TCP"),))
DNS = Place(
    "dns", {"k8s-app": "kube-dns"}, {NAMESPACE_LABEL: "kube-system"}, False, "10.96.0.10",
    ((53, "UDP"), (53, "TCP")),
)  # fmt: skip
ELSEWHERE = Place(
    "elsewhere", {"app.kubernetes.io/name": "gateway", "uses-log": "true"},
    {NAMESPACE_LABEL: "elsewhere"}, False, "10.1.9.9", ((443, "TCP"), (5432, "TCP")),
)  # fmt: skip
"""A pod of another namespace that bears our labels: they must not help it."""


@dataclass(frozen=True)
class _Policies:
    objects: list[Object]

    def allow(self, direction: str, pod: Place, other: Place, port: tuple[int, str]) -> bool:
        """Whether the policies on `pod` let `other` through. What no policy takes is open."""
        taken = [
            policy["spec"]
            for policy in self.objects
            if pod.ours
            and matches(policy["spec"]["podSelector"], pod.labels)
            and direction in _types(policy["spec"])
        ]
        if not taken:
            return True
        key, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
        return any(
            _ports(rule.get("ports"), port) and _peers(rule.get(peers), other)
            for spec in taken
            for rule in spec.get(key) or ()
        )


def _types(spec: Object) -> list[str]:
    return spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]


def _ports(allowed: list[Object] | None, port: tuple[int, str]) -> bool:
    if not allowed:
        return True
    number, protocol = port
    for entry in allowed:
        if entry.get("protocol", "TCP") != protocol:
            continue
        if "port" not in entry:
            return True
        if int(entry["port"]) <= number <= int(entry.get("endPort") or entry["port"]):
            return True
    return False


def _peers(allowed: list[Object] | None, other: Place) -> bool:
    if not allowed:
        return True
    return any(_peer(entry, other) for entry in allowed)


def _peer(entry: Object, other: Place) -> bool:
    if "ipBlock" in entry:
        block, address = entry["ipBlock"], ipaddress.ip_address(other.address)
        excepted = [ipaddress.ip_network(part) for part in block.get("except") or ()]
        return address in ipaddress.ip_network(block["cidr"]) and not any(
            address in network for network in excepted
        )
    if other.namespace is None:
        return False
    if "namespaceSelector" in entry:
        if not matches(entry["namespaceSelector"], other.namespace):
            return False
    elif not other.ours:
        return False
    return "podSelector" not in entry or matches(entry["podSelector"], other.labels)


def _pods(manifests: Manifests) -> list[Place]:
    namespace = next(manifests.of("Namespace"))["metadata"]
    labels = {NAMESPACE_LABEL: namespace["name"], **(namespace.get("labels") or {})}
    pods = [
        Place(
            w.name,
            w.labels,
            labels,
            True,
            "10.1.0.1",
            tuple((p.number, p.protocol) for p in w.ports),
        )
        for w in manifests.workloads
    ]
    return pods + [
        Place(name, given, labels, True, "10.1.0.2", ((port, "TCP"),))
        for name, (given, port) in manifests.outside.pods.items()
    ]


def arrows(manifests: Manifests) -> set[Arrow]:
    """Every connection that the policies allow."""
    policies = _Policies(list(manifests.of("NetworkPolicy")))
    pods = _pods(manifests)
    # Somebody else runs these, with policies of their own that let us in.
    foreign = set(manifests.outside.pods)
    own = {w.name for w in manifests.workloads}
    found = set()
    for source in (*pods, WORLD, PRIVATE, ELSEWHERE):
        for target in (*pods, WORLD, PRIVATE, DNS, ELSEWHERE):
            if source is target or source.name in foreign or not {source.name, target.name} & own:
                continue
            if target.name in foreign and source.name not in own:
                continue
            for port in target.ports:
                if policies.allow("Egress", source, target, port) and (
                    target.name in foreign or policies.allow("Ingress", target, source, port)
                ):
                    found.add((source.name, target.name, port[0]))
    return found


def policy_problems(manifests: Manifests) -> Iterator[str]:
    pods = _pods(manifests)
    for policy in manifests.of("NetworkPolicy"):
        spec, where = policy["spec"], label(policy)
        if not any(matches(spec["podSelector"], pod.labels) for pod in pods):
            yield f"{where}: podSelector {spec['podSelector']} matches no pod"
        for rule in (*(spec.get("ingress") or ()), *(spec.get("egress") or ())):
            for peer in (*(rule.get("from") or ()), *(rule.get("to") or ())):
                if "ipBlock" in peer:
                    yield from _block(where, peer["ipBlock"])
                elif "namespaceSelector" not in peer and not any(
                    matches(peer["podSelector"], pod.labels) for pod in pods
                ):
                    yield f"{where}: peer {peer['podSelector']} matches no pod"
    denied = [p["spec"] for p in manifests.of("NetworkPolicy") if p["spec"]["podSelector"] == {}]
    for direction in ("Ingress", "Egress"):
        if not any(direction in _types(spec) for spec in denied):
            yield f"NetworkPolicy: no policy takes the {direction} of every pod"


def _block(where: str, block: Object) -> Iterator[str]:
    try:
        whole = ipaddress.ip_network(block["cidr"])
        parts = [ipaddress.ip_network(part) for part in block.get("except") or ()]
    except ValueError as error:
        yield f"{where}: {error}"
        return
    for part in parts:
        # The cluster reads a mapped network as IPv4, and refuses it inside an IPv6 one.
        mapped = isinstance(part, ipaddress.IPv6Network) and part.network_address.ipv4_mapped
        if part.version != whole.version or mapped or not whole.supernet_of(part):  # type: ignore[arg-type]
            yield f"{where}: {part} is not inside {whole}"
