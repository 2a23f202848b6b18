"""docker-compose.yml and the Dockerfile, held without Docker."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder

from handoff_billing.settings import BillingProcess, BillingSettings
from handoff_common.log_kafka.__main__ import TopicSettings
from handoff_common.settings import Settings, documented, load
from handoff_config.settings import ConfigProcess, ConfigSettings
from handoff_console.settings import ConsoleProcess, ConsoleSettings
from handoff_edge.settings import EdgeSettings
from handoff_edge.wiring import stop_seconds
from handoff_metering.settings import MeteringProcess, MeteringSettings

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text()
ADDRESSES = (ROOT / "deploy/gateway/compose.conf").read_text()
GATEWAY = (ROOT / "deploy/gateway/nginx.conf").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

JOBS = {"topics", "migrate-config", "migrate-metering", "migrate-billing"}
MODELS: dict[str, tuple[type[Settings], ...]] = {
    "topics": (TopicSettings,),
    "edge": (EdgeSettings,),
    "config": (ConfigSettings, ConfigProcess),
    "metering": (MeteringSettings, MeteringProcess),
    "billing": (BillingSettings, BillingProcess),
    "console": (ConsoleSettings, ConsoleProcess),
    "migrate-config": (ConfigSettings, ConfigProcess),
    "migrate-metering": (MeteringSettings, MeteringProcess),
    "migrate-billing": (BillingSettings, BillingProcess),
}
"""What reads the environment of each container of ours."""

OURS = ("edge", "config", "metering", "billing", "console")
"""Services with an image of their own."""

each_service = pytest.mark.parametrize("name", sorted(SERVICES))


def interpolated(text: str) -> str:
    """The text as Compose takes it where no variable is set: `${NAME:-default}` is the default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def environment(name: str) -> dict[str, str]:
    given = SERVICES[name].get("environment", {})
    return {key: interpolated(str(value)) for key, value in given.items()}


def seconds(duration: str) -> float:
    number, unit = re.fullmatch(r"(\d+)([sm])", duration).groups()  # type: ignore[union-attr]
    return float(number) * {"s": 1, "m": 60}[unit]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_each_variable_is_a_setting_of_its_service(name: str) -> None:
    settings = {variable for model in MODELS[name] for variable, _, _ in documented(model)}
    ours = {key for key in environment(name) if key.startswith("HANDOFF_")}
    assert ours
    assert ours <= settings


@pytest.mark.parametrize("name", sorted(MODELS))
def test_each_service_takes_its_values(name: str) -> None:
    for model in MODELS[name]:
        load(model, environment(name))


def test_no_other_container_has_our_variables() -> None:
    for name in set(SERVICES) - set(MODELS):
        assert not [key for key in environment(name) if key.startswith("HANDOFF_")]


def test_each_service_has_a_database_of_its_own() -> None:
    databases = {}
    for name in ("config", "metering", "billing"):
        url = environment(name)["HANDOFF_DATABASE_URL"]
        assert url == environment(f"migrate-{name}")["HANDOFF_DATABASE_URL"]
        databases[name] = url
        password = environment("postgres")[f"{name.upper()}_DATABASE_PASSWORD"]
        assert url == f"postgresql+asyncpg://{name}:{password}@postgres:5432/{name}"
    assert len(set(databases.values())) == 3
    assert not {"HANDOFF_DATABASE_URL", "POSTGRES_PASSWORD"} & set(environment("edge"))


@each_service
def test_it_runs_with_as_little_as_it_needs(name: str) -> None:
    service = SERVICES[name]
    user, _, group = service["user"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["logging"]["options"]["max-size"]
    assert "container_name" not in service, "two projects must be able to run at once"


@each_service
def test_it_is_restarted_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert service["init"] is True
    if name in JOBS:
        assert service["restart"] == "no"
        return
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["stop_grace_period"]


@each_service
def test_its_image_is_pinned_or_ours(name: str) -> None:
    image = SERVICES[name]["image"]
    if image.startswith("handoff-"):
        assert image.endswith(":${IMAGE_TAG:-dev}")
        built = {s["image"] for s in SERVICES.values() if "build" in s}
        assert image in built
    else:
        assert re.search(r":\d+\.\d+(\.\d+)?[\w.-]*$", image), "a version, not a moving name"


def test_the_broker_is_the_one_that_the_tests_run() -> None:
    pom = (ROOT / "tests/support/kafka/pom.xml").read_text()
    found = re.search(r"<artifactId>kafka_2.13</artifactId>\s*<version>([\d.]+)</version>", pom)
    assert found
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{found[1]}"


@each_service
def test_it_is_published_on_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{PUBLISH_[A-Z_]+:-\d+\}:\d+", port)


def test_what_is_published() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"edge", "gateway"}


@each_service
def test_it_waits_for_what_it_needs(name: str) -> None:
    for other, wait in SERVICES[name].get("depends_on", {}).items():
        wanted = "service_completed_successfully" if other in JOBS else "service_healthy"
        assert wait == {"condition": wanted}


def test_who_waits_for_whom() -> None:
    waits = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    for service in ("config", "metering", "billing"):
        assert waits[service] == {"topics", f"migrate-{service}"}
        assert waits[f"migrate-{service}"] == {"postgres"}
    assert waits["topics"] == {"kafka"}
    # No API stands before the edge: it works while they are away.
    assert waits["edge"] == {"topics"}
    # The web interface holds nobody back, and has a page for APIs that are away.
    assert waits["gateway"] == {"config", "metering", "billing"}
    assert waits["console"] == set()


def test_networks_allow_the_arrows_of_the_architecture_only() -> None:
    on: dict[str, set[str]] = {name: set() for name in COMPOSE["networks"]}
    for name, service in SERVICES.items():
        for network in service["networks"]:
            on[network].add(name)
    apis = {"config", "metering", "billing"}
    assert on["log"] == {"kafka", "topics", "edge"} | apis
    assert on["database"] == {"postgres"} | apis | {f"migrate-{name}" for name in apis}
    assert on["apis"] == {"gateway"} | apis
    assert on["pages"] == {"gateway", "console"}
    assert on["origins"] == {"edge", "origin"}
    assert on["front"] == {"gateway"}
    for network in ("log", "database", "apis", "pages"):
        assert COMPOSE["networks"][network] == {"internal": True}


def test_what_must_outlive_a_container_has_a_volume() -> None:
    kept = {
        "kafka": environment("kafka")["KAFKA_LOG_DIRS"],
        "postgres": "/var/lib/postgresql/data",
        "edge": environment("edge")["HANDOFF_DATA_DIR"],
        "config": environment("config")["HANDOFF_DATA_DIR"],
        "console": environment("console")["HANDOFF_DATA_DIR"],
    }
    for name, folder in kept.items():
        assert f"{name}:{folder}" in SERVICES[name]["volumes"]
    assert set(COMPOSE["volumes"]) == set(kept)


def test_mounted_files_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                source, _, mode = volume.split(":")
                assert (ROOT / source).exists()
                assert mode == "ro"


def test_the_web_interface_calls_the_gateway() -> None:
    gateway = environment("console")["HANDOFF_CONSOLE_API_URL"]
    listened = re.findall(r"listen (\d+);", GATEWAY)
    own = re.search(r"(\d+) +\$http_x_forwarded_for;", GATEWAY)
    assert own and own[1] in listened
    assert gateway == f"http://gateway:{own[1]}"
    published = [port.rpartition(":")[2] for port in SERVICES["gateway"]["ports"]]
    assert own[1] not in published, "anybody could say for whom he asks"
    assert "HANDOFF_DATABASE_URL" not in environment("console")
    assert "HANDOFF_LOG" not in environment("console")


def test_the_gateway_may_end_its_streams() -> None:
    waits = re.search(r"worker_shutdown_timeout (\w+);", GATEWAY)
    assert waits
    assert seconds(SERVICES["gateway"]["stop_grace_period"]) > seconds(waits[1])


def test_the_edge_may_drain() -> None:
    edge = load(EdgeSettings, environment("edge"))
    assert seconds(SERVICES["edge"]["stop_grace_period"]) >= stop_seconds(edge)


def test_health_checks_ask_the_ports_that_are_served() -> None:
    asked = {
        "edge": ("HANDOFF_EDGE_ADMIN_PORT", "HANDOFF_EDGE_ADMIN_HOST"),
        "config": ("HANDOFF_CONFIG_PORT", "HANDOFF_CONFIG_HOST"),
        "metering": ("HANDOFF_METERING_PORT", "HANDOFF_METERING_HOST"),
        "billing": ("HANDOFF_BILLING_PORT", "HANDOFF_BILLING_HOST"),
        "console": ("HANDOFF_CONSOLE_PORT", "HANDOFF_CONSOLE_HOST"),
    }
    for name, (port, host) in asked.items():
        given = environment(name)
        assert SERVICES[name]["healthcheck"]["test"] == ["CMD", "answers", given[port], "/readyz"]
        assert given[host] == "0.0.0.0"
        if name != "edge":
            assert f" {name}:{given[port]};" in ADDRESSES


# --- The images ---


def test_images_are_built_for_what_compose_builds() -> None:
    targets = set(re.findall(r"^FROM \S+ AS ([a-z-]+)$", DOCKERFILE, re.MULTILINE))
    for service in SERVICES.values():
        if "build" in service:
            assert service["build"]["target"] in targets
            assert (ROOT / service["build"]["dockerfile"]).exists()


def test_images_are_built_from_pinned_parts_as_nobody() -> None:
    assert not DOCKERFILE.startswith("# syntax=")
    outer = {n for n in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) if ":" in n}
    assert outer == {"python:3.11-slim-bookworm"}
    installs = re.findall(r"pip[^\n&]* install [^\n]*", DOCKERFILE)
    assert installs
    for line in installs:
        assert "--require-hashes" in line or "--no-deps" in line
    user = re.search(r"^USER (\d+:\d+)$", DOCKERFILE, re.MULTILINE)
    assert user
    assert user[1] == SERVICES["edge"]["user"]


def test_an_image_holds_no_other_service() -> None:
    for name in OURS:
        stage = DOCKERFILE.split(f"FROM build AS build-{name}\n")[1].split("\nFROM ")[0]
        assert set(re.findall(r"services/(\w+)", stage)) == {name}


@pytest.mark.parametrize(
    "distribution",
    [
        "libs/common",
        "libs/relay",
        "libs/client",
        *(f"services/{name}" for name in OURS),
    ],
)
def test_a_distribution_declares_what_it_imports(distribution: str) -> None:
    """An image holds what is declared, so what is not declared is missing there."""
    declared = set(_declared(distribution))
    if "handoff-common" in declared:
        declared |= set(_declared("libs/common"))
    undeclared = {
        f"{module} in {path.relative_to(ROOT)}"
        for path in sorted((ROOT / distribution / "src").rglob("*.py"))
        for module in _imported(path)
        if not declared & _distributions(module)
    }
    assert not undeclared


def test_the_console_brings_its_templates_and_files() -> None:
    """What a wheel is made of, by the tool that makes it: a page without its files is no page."""
    folder = ROOT / "services/console"
    packed = {
        Path(part.distribution_path) for part in WheelBuilder(str(folder)).recurse_included_files()
    }
    source = folder / "src"
    written = {
        path.relative_to(source)
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == written
    assert {path.parts[1] for path in written} > {"templates", "static"}


def _declared(distribution: str) -> Iterator[str]:
    project = tomllib.loads((ROOT / distribution / "pyproject.toml").read_text())["project"]
    yield project["name"]
    for requirement in project["dependencies"]:
        yield _canonical(re.split(r"[\[;<>=! ]", requirement, maxsplit=1)[0])


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        for name in names:
            module = name.partition(".")[0]
            if module not in sys.stdlib_module_names:
                yield module


_BY_MODULE = packages_distributions()


def _distributions(module: str) -> set[str]:
    if module.startswith("handoff_"):
        return {_canonical(module)}
    return {_canonical(name) for name in _BY_MODULE.get(module, [module])}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
