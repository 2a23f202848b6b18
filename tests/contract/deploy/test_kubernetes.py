"""The Kubernetes form: both builds of `deploy/` are without a problem, allow exactly the arrows of
the architecture, and each of many faults put into them is found and named."""

import base64
import copy
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.kustomize import ROOT, Object, build, build_with
from support.manifest_links import references
from support.manifest_model import Manifests, Outside
from support.manifest_network import Arrow, arrows
from support.manifest_shape import OLDEST, quantity
from support.manifests import documented_secrets, problems

SERVICES = {"config": 8001, "metering": 8002, "billing": 8003}
CONSOLE = 8004
BUILDS = ("base", "overlays/dev")


def outside(folder: str) -> Outside:
    """What docs/operations.md asks a deployment of `deploy/base` to bring; dev brings it itself."""
    if folder != "base":
        return Outside()
    databases = {
        f"database of {service}": ({f"database-of-{service}": "true"}, 5432) for service in SERVICES
    }
    return Outside(
        pods={"kafka": ({"app.kubernetes.io/name": "kafka"}, 9092), **databases},
        addresses=frozenset({"kafka:9092"}),
        secrets=documented_secrets(),
    )


@pytest.mark.parametrize("folder", BUILDS)
def test_a_build_has_no_problem(folder: str) -> None:
    assert problems(build(folder), outside(folder)) == []


def test_exactly_the_documented_secrets_are_read() -> None:
    read = {
        (name, key)
        for _, kind, name, key in references(Manifests(build("base"), outside("base")))
        if kind == "Secret"
    }
    assert read == {(name, key) for name, keys in documented_secrets().items() for key in keys}


def test_the_docs_name_the_oldest_kubernetes() -> None:
    assert f"for Kubernetes {OLDEST} and newer" in (ROOT / "docs/operations.md").read_text()


# --- The arrows ---

ANYBODY = ("world", "private", "elsewhere")


def architecture(database: Callable[[str], str]) -> set[Arrow]:
    """docs/adr/0011-kubernetes.md as (from, to, port); database: its pod, by service."""
    allowed: set[Arrow] = {(client, "edge", 8080) for client in ANYBODY}
    allowed |= {(client, "gateway", 8000) for client in ANYBODY}
    allowed |= {("edge", "world", port) for port in (443, 9443)}
    allowed |= {(pod, "kafka", 9092) for pod in ("edge", "topics", *SERVICES)}
    allowed |= {("gateway", "console", CONSOLE), ("console", "gateway", 8005)}
    for service, port in SERVICES.items():
        allowed.add(("gateway", service, port))
        allowed |= {(pod, database(service), 5432) for pod in (service, f"migrate-{service}")}
    return allowed


def allowed_in(folder: str) -> set[Arrow]:
    """The arrows of a build, without those to DNS."""
    return {a for a in arrows(Manifests(build(folder), outside(folder))) if a[1] != "dns"}


def test_the_base_allows_exactly_the_arrows_of_the_architecture() -> None:
    assert allowed_in("base") == architecture(lambda service: f"database of {service}")


def test_dev_allows_origins_inside_the_cluster_besides() -> None:
    private = {("edge", "elsewhere", port) for port in (443, 5432)}
    assert allowed_in("overlays/dev") == architecture(lambda _: "postgres") | private


# --- The TLS port ---


def test_the_component_of_the_tls_port_opens_it_and_nothing_else(tmp_path: Path) -> None:
    found = build_with("base", "components/edge-tls", tmp_path.resolve())
    secrets = {**documented_secrets(), "edge-tls": frozenset({"tls.crt", "tls.key"})}
    around = replace(outside("base"), secrets=secrets)
    assert problems(found, around) == []
    manifests = Manifests(found, around)
    allowed = {arrow for arrow in arrows(manifests) if arrow[1] != "dns"}
    assert allowed - allowed_in("base") == {(client, "edge", 8443) for client in ANYBODY}
    assert allowed_in("base") <= allowed
    service = manifests.get("Service", "edge")
    assert service is not None
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert ports == {"clients": 80, "clients-tls": 443}
    [edge] = [workload for workload in manifests.workloads if workload.name == "edge"]
    [tls] = [volume for volume in edge.pod["volumes"] if volume["name"] == "tls"]
    assert tls["secret"] == {"secretName": "edge-tls", "defaultMode": 0o440}


# --- Seeded faults ---


class Faulty:
    """Good manifests to put a fault into."""

    def __init__(self, folder: str) -> None:
        self.objects = copy.deepcopy(build(folder))

    def object(self, kind: str, name: str) -> Object:
        """The one of this name, whatever hash follows it."""
        pattern = re.compile(rf"{name}(-[a-z0-9]{{10}})?")
        found = [
            o
            for o in self.objects
            if o["kind"] == kind and pattern.fullmatch(o["metadata"]["name"])
        ]
        assert len(found) == 1, (kind, name, found)
        return found[0]

    def pod(self, kind: str, name: str) -> Object:
        pod: Object = self.object(kind, name)["spec"]["template"]["spec"]
        return pod

    def container(self, kind: str, name: str) -> Object:
        container: Object = self.pod(kind, name)["containers"][0]
        return container


Fault = tuple[str, Callable[[Faulty], Any], str]
FAULTS: dict[str, Fault] = {}


def fault(named: str, folder: str = "base") -> Callable[[Callable[[Faulty], Any]], None]:
    """A way to break the build in `folder`; `named` (a pattern) is what must be said of it."""

    def keep(change: Callable[[Faulty], Any]) -> None:
        FAULTS[change.__name__] = (folder, change, named)

    return keep


@fault(r"Service/metering: targetPort http is no port of Deployment/metering")
def wrong_target_port(f: Faulty) -> None:
    f.object("Service", "metering")["spec"]["ports"][0]["targetPort"] = "http"


@fault(r"Deployment/billing: container billing: readinessProbe: port 'http' is not among .*api")
def wrong_probe_port(f: Faulty) -> None:
    f.container("Deployment", "billing")["readinessProbe"]["httpGet"]["port"] = "http"


@fault(r"Deployment/billing: container billing: has no livenessProbe")
def forgotten_probe(f: Faulty) -> None:
    del f.container("Deployment", "billing")["livenessProbe"]


@fault(
    r"StatefulSet/edge: container edge: listens on \['8080', '8081'\], its ports are \['8080', '9'"
)
def wrong_container_port(f: Faulty) -> None:
    f.container("StatefulSet", "edge")["ports"][1]["containerPort"] = 9


@fault(r"Deployment/config: container config: HANDOFF_DATABASE_URL: Secret config-database has no")
def missing_secret_key(f: Faulty) -> None:
    f.container("Deployment", "config")["env"][0]["valueFrom"]["secretKeyRef"]["key"] = "uri"


@fault(r"Secret config-database-\w+ has no key url; it has \['uri'\]", "overlays/dev")
def renamed_secret_key(f: Faulty) -> None:
    data = f.object("Secret", "config-database")["data"]
    data["uri"] = data.pop("url")


@fault(r"Job/migrate-billing: .* there is no Secret billing-db")
def missing_secret(f: Faulty) -> None:
    entry = f.container("Job", "migrate-billing")["env"][0]
    entry["valueFrom"]["secretKeyRef"]["name"] = "billing-db"


@fault(r"StatefulSet/edge: container edge: envFrom: there is no ConfigMap edge-settings-")
def missing_config_map(f: Faulty) -> None:
    f.objects.remove(f.object("ConfigMap", "edge-settings"))


@fault(r"ConfigMap/extra: nothing uses it")
def unused_config_map(f: Faulty) -> None:
    extra = copy.deepcopy(f.object("ConfigMap", "log"))
    extra["metadata"]["name"] = "extra"
    f.objects.append(extra)


@fault(r"Deployment/billing: spec.template.spec: .*'tolerationz' was unexpected")
def unknown_field(f: Faulty) -> None:
    f.pod("Deployment", "billing")["tolerationz"] = []


@fault(r"StatefulSet/edge: spec.replicas: 'two' is not of type 'integer'")
def wrong_type(f: Faulty) -> None:
    f.object("StatefulSet", "edge")["spec"]["replicas"] = "two"


@fault(r"StatefulSet/edge: spec: 'selector' is a required property")
def missing_field(f: Faulty) -> None:
    del f.object("StatefulSet", "edge")["spec"]["selector"]


@fault(r"Kubernetes [\d.]+ has no kind Deploiment in apps/v1")
def unknown_kind(f: Faulty) -> None:
    f.object("Deployment", "billing")["kind"] = "Deploiment"


@fault(r"Kubernetes [\d.]+ has no kind Deployment in apps/v1beta2")
def unknown_version(f: Faulty) -> None:
    f.object("Deployment", "billing")["apiVersion"] = "apps/v1beta2"


@fault(r"Deployment/billing: apiVersion: 'apps.example.com/v1' is not one of \['apps/v1'\]")
def unknown_group(f: Faulty) -> None:
    f.object("Deployment", "billing")["apiVersion"] = "apps.example.com/v1"


@fault(r"Deployment/metering: selector .* does not match its pods' labels")
def selector_mismatch(f: Faulty) -> None:
    labels = f.object("Deployment", "metering")["spec"]["selector"]["matchLabels"]
    labels["app.kubernetes.io/name"] = "meter"


@fault(r"Deployment/metering: selector takes the pods of Deployment/billing too")
def selector_too_wide(f: Faulty) -> None:
    selector = f.object("Deployment", "metering")["spec"]["selector"]
    selector["matchLabels"] = {"uses-log": "true"}


@fault(r"Service/gateway: selector .* matches no pod")
def service_without_pods(f: Faulty) -> None:
    f.object("Service", "gateway")["spec"]["selector"] = {"app.kubernetes.io/name": "gate"}


@fault(r"StatefulSet/edge: serviceName edge-nodes is no Service")
def wrong_service_name(f: Faulty) -> None:
    f.object("StatefulSet", "edge")["spec"]["serviceName"] = "edge-nodes"


@fault(r"StatefulSet/edge: Service edge is not headless")
def service_that_is_not_headless(f: Faulty) -> None:
    f.object("StatefulSet", "edge")["spec"]["serviceName"] = "edge"


@fault(r"PodDisruptionBudget/edge: selector matches no pod")
def budget_without_pods(f: Faulty) -> None:
    budget = f.object("PodDisruptionBudget", "edge")
    budget["spec"]["selector"]["matchLabels"] = {"app.kubernetes.io/name": "edges"}


@fault(r"PodDisruptionBudget/billing: lets no pod of Deployment/billing go")
def budget_that_blocks(f: Faulty) -> None:
    spec = f.object("PodDisruptionBudget", "billing")["spec"]
    del spec["maxUnavailable"]
    spec["minAvailable"] = 2


@fault(r"Deployment/gateway: has 2 pods and no PodDisruptionBudget")
def forgotten_budget(f: Faulty) -> None:
    f.objects.remove(f.object("PodDisruptionBudget", "gateway"))


@fault(r"HorizontalPodAutoscaler/metering: there is no Deployment meter to scale")
def scaler_without_target(f: Faulty) -> None:
    f.object("HorizontalPodAutoscaler", "metering")["spec"]["scaleTargetRef"]["name"] = "meter"


@fault(r"HorizontalPodAutoscaler/metering: Deployment/metering states replicas too")
def scaler_against_replicas(f: Faulty) -> None:
    f.object("Deployment", "metering")["spec"]["replicas"] = 2


@fault(r"NetworkPolicy/edge: podSelector .* matches no pod")
def policy_without_pods(f: Faulty) -> None:
    policy = f.object("NetworkPolicy", "edge")
    policy["spec"]["podSelector"]["matchLabels"] = {"app.kubernetes.io/name": "edges"}


@fault(r"NetworkPolicy/log: peer .* matches no pod")
def policy_without_peers(f: Faulty) -> None:
    rule = f.object("NetworkPolicy", "log")["spec"]["egress"][0]
    rule["to"][0]["podSelector"]["matchLabels"] = {"app.kubernetes.io/name": "broker"}


@fault(r"NetworkPolicy/edge: ::ffff:0:0/96 is not inside ::/0")
def policy_with_a_mapped_network(f: Faulty) -> None:
    rule = f.object("NetworkPolicy", "edge")["spec"]["egress"][0]
    rule["to"][1]["ipBlock"]["except"].append("::ffff:0:0/96")


@fault(r"NetworkPolicy: no policy takes the Egress of every pod")
def forgotten_default_deny(f: Faulty) -> None:
    f.objects.remove(f.object("NetworkPolicy", "default-deny"))
    f.objects.remove(f.object("NetworkPolicy", "dns"))


@fault(r"StatefulSet/edge: container edge: HANDOFF_EDGE_ADMIN_HOST is not given")
def forgotten_setting(f: Faulty) -> None:
    del f.object("ConfigMap", "edge-settings")["data"]["HANDOFF_EDGE_ADMIN_HOST"]


@fault(r"Deployment/metering: container metering: HANDOFF_LOG is not given")
def forgotten_log(f: Faulty) -> None:
    del f.container("Deployment", "metering")["envFrom"][0]


@fault(r"Deployment/billing: container billing: HANDOFF_DATABASE_URL is not given")
def forgotten_database(f: Faulty) -> None:
    del f.container("Deployment", "billing")["env"]


@fault(r"Deployment/billing: container billing: HANDOFF_TOPIC_REPLICATION is not given")
def forgotten_replication(f: Faulty) -> None:
    del f.object("ConfigMap", "log")["data"]["HANDOFF_TOPIC_REPLICATION"]


@fault(r"Job/topics: container topics: HANDOFF_TOPIC_PARTITIONS is not given")
def forgotten_partitions(f: Faulty) -> None:
    del f.object("ConfigMap", "topics-settings")["data"]["HANDOFF_TOPIC_PARTITIONS"]


@fault(r"Job/topics: .*HANDOFF_TOPIC_REPLICATION = '0': Input should be greater than")
def no_copies(f: Faulty) -> None:
    f.object("ConfigMap", "log")["data"]["HANDOFF_TOPIC_REPLICATION"] = "0"


@fault(r"HANDOFF_DRIAN_GRACE is no setting of handoff_edge; is it HANDOFF_DRAIN_GRACE\?")
def misspelt_setting(f: Faulty) -> None:
    data = f.object("ConfigMap", "edge-settings")["data"]
    data["HANDOFF_DRIAN_GRACE"] = data.pop("HANDOFF_DRAIN_GRACE")


@fault(r"Deployment/metering: container metering: HANDOFF_EDGE_PORT is no setting of")
def setting_of_another_service(f: Faulty) -> None:
    f.object("ConfigMap", "metering-settings")["data"]["HANDOFF_EDGE_PORT"] = "8080"


@fault(r"container edge: HANDOFF_REGION = 'moon': Input should be")
def wrong_value(f: Faulty) -> None:
    f.object("ConfigMap", "edge-settings")["data"]["HANDOFF_REGION"] = "moon"


@fault(r"container config: HANDOFF_CONFIG_HOST = 127.0.0.1 is reached by nobody")
def loopback_host(f: Faulty) -> None:
    f.object("ConfigMap", "config-settings")["data"]["HANDOFF_CONFIG_HOST"] = "127.0.0.1"


@fault(r"container edge: HANDOFF_REGION is set twice")
def setting_given_twice(f: Faulty) -> None:
    f.container("StatefulSet", "edge")["env"] = [{"name": "HANDOFF_REGION", "value": "usa"}]


@fault(r"container config: HANDOFF_LOG = kafka:9092: takes kafka://host:port")
def log_without_scheme(f: Faulty) -> None:
    f.object("ConfigMap", "log")["data"]["HANDOFF_LOG"] = "kafka:9092"


@fault(r"container edge: kafka:9094 is no port of a Service here", "overlays/dev")
def log_on_a_wrong_port(f: Faulty) -> None:
    f.object("ConfigMap", "log")["data"]["HANDOFF_LOG"] = "kafka://kafka:9094"


@fault(r"Deployment/billing: .* HANDOFF_DATABASE_URL is not from a Secret")
def password_in_the_open(f: Faulty) -> None:
    value = "postgresql+asyncpg://billing:x@postgres:5432/billing"
    entry = {"name": "HANDOFF_DATABASE_URL", "value": value}
    f.container("Deployment", "billing")["env"] = [entry]


@fault(r"Deployment/console: .* HANDOFF_CONSOLE_SECRET is not given")
def pods_with_a_key_each(f: Faulty) -> None:
    del f.container("Deployment", "console")["env"]


@fault(r"Deployment/console: .* HANDOFF_CONSOLE_SECRET is not from a Secret")
def key_in_the_open(f: Faulty) -> None:
    entry = {"name": "HANDOFF_CONSOLE_SECRET", "value": "x" * 32}
    f.container("Deployment", "console")["env"] = [entry]


@fault(r"Deployment/console: .* HANDOFF_CONSOLE_SECRET has 9 characters", "overlays/dev")
def short_key(f: Faulty) -> None:
    f.object("Secret", "console")["data"]["secret"] = base64.b64encode(b"too short").decode()


@fault(r"Deployment/console: .* HANDOFF_CONSOLE_API_URL is not given")
def console_without_apis(f: Faulty) -> None:
    del f.object("ConfigMap", "console-settings")["data"]["HANDOFF_CONSOLE_API_URL"]


@fault(r"Deployment/console: .* HANDOFF_CONSOLE_API_URL: gateway:8001 is no port of a Service here")
def console_to_a_wrong_port(f: Faulty) -> None:
    data = f.object("ConfigMap", "console-settings")["data"]
    data["HANDOFF_CONSOLE_API_URL"] = "http://gateway:8001"


@fault(r"has the database of handoff_\w+", "overlays/dev")
def shared_database(f: Faulty) -> None:
    secrets = [f.object("Secret", f"{name}-database") for name in ("config", "billing")]
    secrets[1]["data"] = secrets[0]["data"]


@fault(r"there is no program handoff_edges")
def unknown_program(f: Faulty) -> None:
    f.container("StatefulSet", "edge")["command"][2] = "handoff_edges"


@fault(r"Deployment/config: .* HANDOFF_DATA_DIR = /var/lib/handoff is on no volume that lasts")
def data_on_a_volume_that_does_not_last(f: Faulty) -> None:
    pod = f.pod("Deployment", "config")
    pod["volumes"] = [{"name": v["name"], "emptyDir": {}} for v in pod["volumes"]]


@fault(r"StatefulSet/edge: terminationGracePeriodSeconds 240 is less than the 564")
def drain_longer_than_the_pods_grace(f: Faulty) -> None:
    f.object("ConfigMap", "edge-settings")["data"]["HANDOFF_DRAIN_GRACE"] = "450"


@fault(r"StatefulSet/edge: container edge: no preStop sleep")
def forgotten_pre_stop(f: Faulty) -> None:
    del f.container("StatefulSet", "edge")["lifecycle"]


@fault(r"container edge: 4 journals of 8589934592 bytes do not fit")
def journals_larger_than_their_volume(f: Faulty) -> None:
    f.object("ConfigMap", "edge-settings")["data"]["HANDOFF_EDGE_WORKERS"] = "4"


@fault(r"Deployment/billing: container billing: requests memory 2Gi, over its limit of 512Mi")
def request_over_limit(f: Faulty) -> None:
    f.container("Deployment", "billing")["resources"]["requests"]["memory"] = "2Gi"


@fault(r"container metering: requests cpu 2500m, over its limit of 2")
def cpu_request_over_limit(f: Faulty) -> None:
    f.container("Deployment", "metering")["resources"]["requests"]["cpu"] = "2500m"


@fault(r"resources.limits.memory = '512MB' is not a quantity")
def wrong_quantity(f: Faulty) -> None:
    f.container("Deployment", "billing")["resources"]["limits"]["memory"] = "512MB"


@fault(r"resources.requests.memory = '128m' is less than 1Mi")
def memory_in_thousandths(f: Faulty) -> None:
    f.container("Deployment", "billing")["resources"]["requests"]["memory"] = "128m"


@fault(r"resources.limits.memory is missing")
def forgotten_limit(f: Faulty) -> None:
    del f.container("Deployment", "billing")["resources"]["limits"]["memory"]


@fault(r"StatefulSet/edge: claim journal: storage '20GB' is not a quantity")
def wrong_storage(f: Faulty) -> None:
    claim = f.object("StatefulSet", "edge")["spec"]["volumeClaimTemplates"][0]
    claim["spec"]["resources"]["requests"]["storage"] = "20GB"


@fault(r"Deployment/gateway: container gateway: mounts configuration, which is no volume")
def missing_volume(f: Faulty) -> None:
    del f.pod("Deployment", "gateway")["volumes"][0]


@fault(r"container edge: mounts journal, which is no volume of its pod")
def missing_claim_template(f: Faulty) -> None:
    del f.object("StatefulSet", "edge")["spec"]["volumeClaimTemplates"]


@fault(r"Deployment/config: volume data: there is no claim config-data")
def missing_claim(f: Faulty) -> None:
    f.objects.remove(f.object("PersistentVolumeClaim", "config-data"))


@fault(r"Deployment/config: volume tmp is mounted nowhere")
def forgotten_mount(f: Faulty) -> None:
    mounts = f.container("Deployment", "config")["volumeMounts"]
    mounts[:] = [m for m in mounts if m["name"] != "tmp"]


@fault(r"image handoff-edge:latest is not pinned to a version")
def floating_image(f: Faulty) -> None:
    f.container("StatefulSet", "edge")["image"] = "handoff-edge:latest"


@fault(r"image nginx is not pinned to a version")
def image_without_a_tag(f: Faulty) -> None:
    f.container("Deployment", "gateway")["image"] = "nginx"


@fault(r"image handoff-edge:0.0.9 is not this release")
def image_of_another_release(f: Faulty) -> None:
    f.container("StatefulSet", "edge")["image"] = "handoff-edge:0.0.9"


@fault(r"Deployment/config: may run as root")
def root(f: Faulty) -> None:
    f.pod("Deployment", "config")["securityContext"]["runAsNonRoot"] = False


@fault(r"container kafka: readOnlyRootFilesystem is not true", "overlays/dev")
def writable_image(f: Faulty) -> None:
    f.container("StatefulSet", "kafka")["securityContext"]["readOnlyRootFilesystem"] = False


@fault(r"container edge: does not drop all capabilities")
def capabilities(f: Faulty) -> None:
    security = f.container("StatefulSet", "edge")["securityContext"]
    security["capabilities"]["add"] = ["NET_ADMIN"]


@fault(r"Deployment/billing: container sidecar: .*")
def second_container_that_is_not_hardened(f: Faulty) -> None:
    sidecar = {"name": "sidecar", "image": "example/sidecar:1"}
    f.pod("Deployment", "billing")["containers"].append(sidecar)


@fault(r"Deployment/gateway: automountServiceAccountToken is not false")
def cluster_credentials(f: Faulty) -> None:
    del f.pod("Deployment", "gateway")["automountServiceAccountToken"]


@fault(r"Deployment/gateway: enableServiceLinks is not false")
def service_links(f: Faulty) -> None:
    del f.pod("Deployment", "gateway")["enableServiceLinks"]


@fault(r"Service/Edge_1: name 'Edge_1' is not a valid name")
def invalid_name(f: Faulty) -> None:
    f.object("Service", "edge")["metadata"]["name"] = "Edge_1"


@fault(r"container edge: port 'admin-and-metrics' is not a valid name")
def port_name_too_long(f: Faulty) -> None:
    f.container("StatefulSet", "edge")["ports"][1]["name"] = "admin-and-metrics"


@fault(r"Service/edge: is there twice")
def repeated_object(f: Faulty) -> None:
    f.objects.append(copy.deepcopy(f.object("Service", "edge")))


@fault(r"Service/edge: namespace default is not made here")
def another_namespace(f: Faulty) -> None:
    f.object("Service", "edge")["metadata"]["namespace"] = "default"


@fault(r"Deployment/billing: topologySpreadConstraints do not select its own pods")
def spread_of_other_pods(f: Faulty) -> None:
    constraint = f.pod("Deployment", "billing")["topologySpreadConstraints"][0]
    constraint["labelSelector"]["matchLabels"] = {"app.kubernetes.io/name": "metering"}


@fault(r"ConfigMap/gateway-\w+: services.conf: metering:8002 is no port of a Service here")
def gateway_to_a_port_that_is_not_there(f: Faulty) -> None:
    f.object("Service", "metering")["spec"]["ports"][0]["port"] = 80


@fault(r"ConfigMap/gateway-\w+: services.conf: console:8004 is no port of a Service here")
def gateway_without_the_web_interface(f: Faulty) -> None:
    f.objects.remove(f.object("Service", "console"))


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_fault_is_named(name: str) -> None:
    folder, change, named = FAULTS[name]
    faulty = Faulty(folder)
    change(faulty)
    found = problems(faulty.objects, outside(folder))
    assert any(re.search(named, problem) for problem in found), found


def test_an_arrow_too_many_is_seen() -> None:
    faulty = Faulty("base")
    policy = faulty.object("NetworkPolicy", "billing")
    policy["spec"]["ingress"][0]["from"].append(
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "config"}}}
    )
    egress = copy.deepcopy(faulty.object("NetworkPolicy", "config-database"))
    egress["metadata"]["name"] = "config-to-billing"
    egress["spec"]["egress"] = [{"ports": [{"protocol": "TCP", "port": 8003}]}]
    faulty.objects.append(egress)
    found = arrows(Manifests(faulty.objects, outside("base")))
    assert ("config", "billing", 8003) in found


def test_a_way_from_the_console_past_the_gateway_is_seen() -> None:
    faulty = Faulty("base")
    for policy, key, peers in (("console", "egress", "to"), ("config", "ingress", "from")):
        other = "config" if key == "egress" else "console"
        rule = {
            peers: [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": other}}}],
            "ports": [{"protocol": "TCP", "port": 8001}],
        }
        faulty.object("NetworkPolicy", policy)["spec"][key].append(rule)
    found = arrows(Manifests(faulty.objects, outside("base")))
    assert ("console", "config", 8001) in found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100m", "0.1"),
        ("2", "2"),
        (".5", "0.5"),
        ("1e3", "1000"),
        ("1E", "1000000000000000000"),
        ("1Ei", "1152921504606846976"),
        ("1Ki", "1024"),
        ("1k", "1000"),
        ("1.5Gi", "1610612736"),
        ("1K", None),
        ("512MB", None),
        ("1 Gi", None),
        ("", None),
        ("-1", None),
    ],
)
def test_quantities(text: str, value: str | None) -> None:
    found = quantity(text)
    assert (found is None) == (value is None)
    assert found is None or found == quantity(str(value))
