"""What one Kubernetes object says of another: selectors and labels, port names, ConfigMaps, Secrets
and their keys, volumes and mounts, what budgets and autoscalers are for. A schema sees none of it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from support.kustomize import Object
from support.manifest_model import Container, Manifests, Workload, label, matches


def repeated(values: Iterable[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]


def identity_problems(manifests: Manifests) -> Iterator[str]:
    for name in repeated(label(found) for found in manifests.objects):
        yield f"{name}: is there twice"
    namespaces = {found["metadata"]["name"] for found in manifests.of("Namespace")}
    for found in manifests.objects:
        namespace = found["metadata"].get("namespace")
        if found["kind"] != "Namespace" and namespace not in namespaces:
            yield f"{label(found)}: namespace {namespace} is not made here"
        if found["kind"] in ("Pod", "CronJob", "DaemonSet", "ReplicaSet"):
            yield f"{label(found)}: the checks do not know pods of this kind"


def selector_problems(manifests: Manifests) -> Iterator[str]:
    """A workload's selector takes its own pods and no others."""
    for workload in manifests.workloads:
        selector = workload.spec.get("selector")
        if workload.kind != "Job" and not matches(selector, workload.labels):
            yield f"{workload.label}: selector {selector} does not match its pods' labels"
        for other in manifests.workloads:
            if other.object is not workload.object and matches(selector, other.labels):
                yield f"{workload.label}: selector takes the pods of {other.label} too"
        for constraint in workload.pod.get("topologySpreadConstraints") or ():
            if not matches(constraint.get("labelSelector"), workload.labels):
                yield f"{workload.label}: topologySpreadConstraints do not select its own pods"


def service_problems(manifests: Manifests) -> Iterator[str]:
    for service in manifests.of("Service"):
        where, spec = label(service), service["spec"]
        selector = spec.get("selector") or {}
        by_label = {"matchLabels": selector} if selector else None
        taken = [w for w in manifests.workloads if matches(by_label, w.labels)]
        if not taken:
            yield f"{where}: selector {selector} matches no pod"
        for workload in taken:
            for port in spec.get("ports") or ():
                target = port.get("targetPort", port["port"])
                there = {p.number for p in workload.ports} | {p.name for p in workload.ports}
                if target not in there:
                    yield f"{where}: targetPort {target} is no port of {workload.label}"
        for key in ("name", "port"):
            for value in repeated(port.get(key) for port in spec.get("ports") or ()):
                yield f"{where}: two ports have the {key} {value}"
    for workload in manifests.workloads:
        if workload.kind == "StatefulSet":
            name = workload.spec.get("serviceName")
            governing = manifests.get("Service", str(name))
            if governing is None:
                yield f"{workload.label}: serviceName {name} is no Service"
            elif governing["spec"].get("clusterIP") != "None":
                yield f"{workload.label}: Service {name} is not headless"
            elif not matches(
                {"matchLabels": governing["spec"].get("selector") or {}}, workload.labels
            ):
                yield f"{workload.label}: Service {name} does not select its pods"


def _hooks(container: Container) -> Iterator[tuple[str, Object]]:
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        if name in container.spec:
            yield name, container.spec[name]
    for name, hook in (container.spec.get("lifecycle") or {}).items():
        yield f"lifecycle.{name}", hook


def probe_problems(workload: Workload) -> Iterator[str]:
    for container in workload.containers:
        ports = {p.name for p in container.ports} | {p.number for p in container.ports}
        for number in repeated(p.number for p in container.ports):
            yield f"{container.where}: port {number} is there twice"
        for name in repeated(p.name for p in workload.ports):
            yield f"{container.where}: port name {name} is there twice"
        for name, hook in _hooks(container):
            for action in ("httpGet", "tcpSocket"):
                if action in hook and hook[action]["port"] not in ports:
                    yield (
                        f"{container.where}: {name}: port {hook[action]['port']!r} is not among "
                        f"its ports {sorted(map(str, ports))}"
                    )
    if workload.kind != "Job":
        for container in workload.containers:
            for name in ("startupProbe", "livenessProbe", "readinessProbe"):
                if name not in container.spec:
                    yield f"{container.where}: has no {name}"


def keys_of(manifests: Manifests, kind: str, name: str) -> frozenset[str] | None:
    """Keys of a ConfigMap or Secret; None where there is none of that name."""
    found = manifests.get(kind, name)
    if found is not None:
        return frozenset((*(found.get("data") or ()), *(found.get("stringData") or ())))
    return manifests.outside.secrets.get(name) if kind == "Secret" else None


Reference = tuple[str, str, str, str | None]
"""Where, kind, name, key (None: all of it)."""


def references(manifests: Manifests) -> Iterator[Reference]:
    """Every mention of a ConfigMap or a Secret."""
    for workload in manifests.workloads:
        for volume in workload.pod.get("volumes") or ():
            where = f"{workload.label}: volume {volume['name']}"
            for kind, key, field in (
                ("ConfigMap", "configMap", "name"),
                ("Secret", "secret", "secretName"),
            ):
                if key in volume:
                    source = volume[key]
                    yield where, kind, str(source.get(field)), None
                    for item in source.get("items") or ():
                        yield where, kind, str(source.get(field)), item["key"]
        for secret in workload.pod.get("imagePullSecrets") or ():
            yield workload.label, "Secret", secret["name"], None
        for container in workload.containers:
            for source in container.spec.get("envFrom") or ():
                for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                    if key in source:
                        yield f"{container.where}: envFrom", kind, source[key]["name"], None
            for variable in container.spec.get("env") or ():
                source = variable.get("valueFrom") or {}
                where = f"{container.where}: {variable['name']}"
                for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
                    if key in source:
                        yield where, kind, source[key]["name"], source[key]["key"]


def reference_problems(manifests: Manifests) -> Iterator[str]:
    used = set()
    for where, kind, name, key in references(manifests):
        used.add((kind, name))
        keys = keys_of(manifests, kind, name)
        if keys is None:
            yield f"{where}: there is no {kind} {name}"
        elif key is not None and key not in keys:
            yield f"{where}: {kind} {name} has no key {key}; it has {sorted(keys)}"
    for kind in ("ConfigMap", "Secret"):
        for found in manifests.of(kind):
            if (kind, found["metadata"]["name"]) not in used:
                yield f"{label(found)}: nothing uses it"


def volume_problems(manifests: Manifests) -> Iterator[str]:
    claimed = set()
    for workload in manifests.workloads:
        volumes = {v["name"]: v for v in workload.pod.get("volumes") or ()}
        for name in repeated(
            [*workload.claims, *(v["name"] for v in workload.pod.get("volumes") or ())]
        ):
            yield f"{workload.label}: volume {name} is there twice"
        mounted = set()
        for container in workload.containers:
            for path in repeated(m["mountPath"] for m in container.mounts):
                yield f"{container.where}: {path} is mounted twice"
            for mount in container.mounts:
                name = mount["name"]
                mounted.add(name)
                if name not in volumes and name not in workload.claims:
                    yield f"{container.where}: mounts {name}, which is no volume of its pod"
        for name in sorted({*volumes, *workload.claims} - mounted):
            yield f"{workload.label}: volume {name} is mounted nowhere"
        for volume in volumes.values():
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            claimed.add(claim)
            if claim is not None and manifests.get("PersistentVolumeClaim", claim) is None:
                yield f"{workload.label}: volume {volume['name']}: there is no claim {claim}"
    for found in manifests.of("PersistentVolumeClaim"):
        if found["metadata"]["name"] not in claimed:
            yield f"{label(found)}: nothing uses it"


def _replicas(workload: Workload, scaled: dict[str, int]) -> int:
    return scaled.get(workload.label) or int(workload.spec.get("replicas", 1))


def scale_problems(manifests: Manifests) -> Iterator[str]:
    """Budgets and autoscalers have targets, and a budget always lets one pod go."""
    scaled: dict[str, int] = {}
    for scaler in manifests.of("HorizontalPodAutoscaler"):
        spec, where = scaler["spec"], label(scaler)
        target = spec["scaleTargetRef"]
        found = manifests.get(target["kind"], target["name"])
        if found is None or found["apiVersion"] != target.get("apiVersion"):
            yield f"{where}: there is no {target['kind']} {target['name']} to scale"
            continue
        least = spec.get("minReplicas", 1)
        scaled[label(found)] = least
        if least > spec["maxReplicas"]:
            yield f"{where}: minReplicas is over maxReplicas"
        if "replicas" in found["spec"]:
            yield f"{where}: {label(found)} states replicas too: each apply would undo the scaling"
    budgeted = set()
    for budget in manifests.of("PodDisruptionBudget"):
        spec, where = budget["spec"], label(budget)
        taken = [w for w in manifests.workloads if matches(spec.get("selector"), w.labels)]
        if not taken:
            yield f"{where}: selector matches no pod"
        for workload in taken:
            budgeted.add(workload.label)
            replicas = _replicas(workload, scaled)
            least = spec.get("minAvailable")
            if spec.get("maxUnavailable") in (0, "0%") or (
                isinstance(least, int) and least >= replicas
            ):
                yield f"{where}: lets no pod of {workload.label} go, so no node can be drained"
    for workload in manifests.workloads:
        replicas = _replicas(workload, scaled)
        if workload.kind != "Job" and replicas > 1 and workload.label not in budgeted:
            yield f"{workload.label}: has {replicas} pods and no PodDisruptionBudget"
