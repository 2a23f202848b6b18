"""The environment of our own containers against the settings that their programs read: every
variable is a setting, every value is one that it takes, and what a pod cannot do without is given.
"""

import base64
import difflib
import importlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from functools import cache

from handoff_common.errors import SettingError
from handoff_common.service import Service
from handoff_common.settings import Settings, load, variable
from handoff_console.wiring import SECRET_LENGTH
from handoff_edge.settings import EdgeSettings
from handoff_edge.wiring import stop_seconds
from support.kustomize import Object
from support.manifest_links import repeated
from support.manifest_model import Container, Manifests
from support.manifest_shape import quantity

FOREIGN = frozenset({"FORWARDED_ALLOW_IPS"})
"""Variables without our prefix that our containers may have: uvicorn's."""

GIVEN: Mapping[str, frozenset[str]] = {
    "handoff_edge": frozenset({"HANDOFF_REGION", "HANDOFF_POP"}),
    "handoff_common.log_kafka": frozenset({"HANDOFF_TOPIC_PARTITIONS"}),
    "handoff_console": frozenset({"HANDOFF_CONSOLE_SECRET", "HANDOFF_CONSOLE_API_URL"}),
}
"""Module → settings with a default that is wrong for a cluster: a region is what minutes are billed
by, and pods that each made a key would not take each other's cookies."""

ONLY_WITH: Mapping[str, str] = {"HANDOFF_EDGE_TLS_PORT": "HANDOFF_TLS_CERTIFICATES"}
"""Port → the setting without which nothing listens on it."""

NO_DATA = frozenset({"handoff_console"})
"""Modules that keep nothing in HANDOFF_DATA_DIR where the settings above are given."""

SECRETS = ("HANDOFF_DATABASE_URL", "HANDOFF_CONSOLE_SECRET")

_SECRET_SAMPLE = "postgresql+asyncpg://name:secret@postgres:5432/name"
_LOG = re.compile(r"^kafka://[a-z0-9.-]+:\d+(,[a-z0-9.-]+:\d+)*$")
_API = re.compile(r"^http://(?P<address>[a-z0-9.-]+:\d+)$")
_DATABASE = re.compile(r"^postgresql\+asyncpg://[^:@/]+:[^@/]+@(?P<address>[a-z0-9.-]+:\d+)/\w+$")
_EXIT_SECONDS = 15
"""For the HTTP server's last answers, the log's close and the end of the processes."""

JOURNAL_SHARE = 0.9
"""Of its volume that an edge's journals may fill: SQLite and the rule book need the rest."""


def module_of(container: Container) -> tuple[str, str] | None:
    """(module, verb) of `python -m module verb`; None for a program that is not ours."""
    match container.command:
        case ["python", "-m", module, verb] if module.startswith("handoff_"):
            return module, verb
    return None


@cache
def models(module: str) -> tuple[type[Settings], ...]:
    """The settings models that a program reads. Raises ImportError where there is none."""
    parts = [name for name in (module, f"{module}.settings", f"{module}.__main__") if _there(name)]
    if not parts:
        raise ImportError(module)
    found: dict[type[Settings], None] = {}
    for name in parts:
        for value in vars(importlib.import_module(name)).values():
            if isinstance(value, type) and issubclass(value, Settings) and value is not Settings:
                found[value] = None
    return tuple(found)


def _there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def known(module: str) -> dict[str, bool]:
    """Variable → whether it must be given, of all that a program reads."""
    return {
        variable(name): field.is_required()
        for model in models(module)
        for name, field in model.model_fields.items()
    }


def environment(manifests: Manifests, container: Container) -> dict[str, str]:
    """What the container gets, as the cluster would put it together. A value from a secret that is
    not made here is an example of one."""
    values: dict[str, str] = {}
    for source in container.spec.get("envFrom") or ():
        for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            found = manifests.get(kind, source[key]["name"]) if key in source else None
            values |= _data(found)
    for entry in container.spec.get("env") or ():
        source = entry.get("valueFrom") or {}
        if "value" in entry:
            values[entry["name"]] = entry["value"]
        elif "secretKeyRef" in source:
            found = manifests.get("Secret", source["secretKeyRef"]["name"])
            text = _data(found).get(source["secretKeyRef"]["key"], _SECRET_SAMPLE)
            values[entry["name"]] = text
        elif "configMapKeyRef" in source:
            found = manifests.get("ConfigMap", source["configMapKeyRef"]["name"])
            values[entry["name"]] = _data(found).get(source["configMapKeyRef"]["key"], "")
    return values


def _data(found: Object | None) -> dict[str, str]:
    data = dict((found or {}).get("data") or {})
    if found is not None and found["kind"] == "Secret":
        data = {key: base64.b64decode(text).decode() for key, text in data.items()}
    return data


def _names(manifests: Manifests, container: Container) -> list[str]:
    """Every variable as often as something sets it."""
    names = [entry["name"] for entry in container.spec.get("env") or ()]
    for source in container.spec.get("envFrom") or ():
        for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if key in source:
                names += _data(manifests.get(kind, source[key]["name"]))
    return names


def setting_problems(manifests: Manifests) -> Iterator[str]:
    databases: dict[str, str] = {}
    for container in manifests.containers:
        program = module_of(container)
        for name in repeated(_names(manifests, container)):
            yield f"{container.where}: {name} is set twice"
        if program is None:
            if str(container.spec["image"]).startswith("handoff-"):
                yield f"{container.where}: {container.command} is no `python -m` of ours"
            continue
        module = program[0]
        try:
            read = known(module)
        except ImportError:
            yield f"{container.where}: there is no program {module}"
            continue
        values = environment(manifests, container)
        yield from _unknown(container, module, read, values)
        yield from _missing(manifests, container, program, read, values)
        yield from _wrong(container, module, values)
        yield from _addresses(manifests, container, values)
        yield from _secrets(container, values)
        url = values.get("HANDOFF_DATABASE_URL", _SECRET_SAMPLE)
        if url != _SECRET_SAMPLE and databases.setdefault(url, module) != module:
            yield f"{container.where}: has the database of {databases[url]}"


def _unknown(
    container: Container, module: str, read: Mapping[str, bool], values: Mapping[str, str]
) -> Iterator[str]:
    for name in sorted(values.keys() - read.keys() - FOREIGN):
        near = difflib.get_close_matches(name, read, 1)
        hint = f"; is it {near[0]}?" if near else ""
        yield f"{container.where}: {name} is no setting of {module}{hint}"


def _missing(
    manifests: Manifests,
    container: Container,
    program: tuple[str, str],
    read: Mapping[str, bool],
    values: Mapping[str, str],
) -> Iterator[str]:
    module, verb = program
    needed = {name for name, required in read.items() if required} | GIVEN.get(module, frozenset())
    needed |= read.keys() & {"HANDOFF_LOG", "HANDOFF_DATABASE_URL", "HANDOFF_TOPIC_REPLICATION"}
    if verb == "serve":
        needed |= {name for name in read if name.endswith("_HOST")}
        if module not in NO_DATA:
            needed |= read.keys() & {"HANDOFF_DATA_DIR"}
    for name in sorted(needed - values.keys()):
        yield f"{container.where}: {name} is not given"
    if verb != "serve":
        return
    ports = {
        values.get(variable(name), str(field.default))
        for model in models(module)
        for name, field in model.model_fields.items()
        if name.endswith("_port")
        and ((needs := ONLY_WITH.get(variable(name))) is None or needs in values)
    }
    declared = {str(port.number) for port in container.ports}
    if ports != declared:
        yield f"{container.where}: listens on {sorted(ports)}, its ports are {sorted(declared)}"
    for name in sorted(n for n in read if n.endswith("_HOST") and values.get(n) == "127.0.0.1"):
        yield f"{container.where}: {name} = 127.0.0.1 is reached by nobody"
    if "HANDOFF_DATA_DIR" in values:
        yield from _data_folder(container, values["HANDOFF_DATA_DIR"])


def _data_folder(container: Container, folder: str) -> Iterator[str]:
    workload = container.workload
    lasting = {*workload.claims} | {
        v["name"] for v in workload.pod.get("volumes") or () if "persistentVolumeClaim" in v
    }
    paths = [m["mountPath"] for m in container.mounts if m["name"] in lasting]
    if not any(f"{folder}/".startswith(f"{path}/") for path in paths):
        yield f"{container.where}: HANDOFF_DATA_DIR = {folder} is on no volume that lasts"


def _wrong(container: Container, module: str, values: Mapping[str, str]) -> Iterator[str]:
    for model in models(module):
        try:
            load(model, values)
        except SettingError as error:
            for line in str(error).splitlines():
                if "(not set)" not in line:  # `_missing` names it.
                    yield f"{container.where}: {line}"


def _addresses(
    manifests: Manifests, container: Container, values: Mapping[str, str]
) -> Iterator[str]:
    """The log, the database and the APIs are where something listens."""
    log, url = values.get("HANDOFF_LOG"), values.get("HANDOFF_DATABASE_URL")
    brokers = []
    if log is not None and not _LOG.match(log):
        yield f"{container.where}: HANDOFF_LOG = {log}: takes kafka://host:port,…"
    elif log is not None:
        brokers = log.removeprefix("kafka://").split(",")
    if url is not None:
        parts = _DATABASE.match(url)
        if parts is None:
            yield f"{container.where}: HANDOFF_DATABASE_URL: takes {_SECRET_SAMPLE}"
        elif url != _SECRET_SAMPLE:
            brokers.append(parts["address"])
    for address in brokers:
        if not manifests.serves(address):
            yield f"{container.where}: {address} is no port of a Service here"
    if (apis := values.get("HANDOFF_CONSOLE_API_URL")) is not None:
        parts = _API.match(apis)
        if parts is None or not manifests.serves(parts["address"]):
            address = parts["address"] if parts else apis
            name = "HANDOFF_CONSOLE_API_URL"
            yield f"{container.where}: {name}: {address} is no port of a Service here"


def _secrets(container: Container, values: Mapping[str, str]) -> Iterator[str]:
    """What must not be read in a manifest comes from a Secret, and is long enough."""
    entries = {e["name"]: e for e in container.spec.get("env") or ()}
    for name in SECRETS:
        if name not in values:
            continue
        entry = entries.get(name) or {}
        if "secretKeyRef" not in (entry.get("valueFrom") or {}):
            yield f"{container.where}: {name} is not from a Secret"
    key = values.get("HANDOFF_CONSOLE_SECRET")
    if key is not None and len(key) < SECRET_LENGTH:
        yield (
            f"{container.where}: HANDOFF_CONSOLE_SECRET has {len(key)} characters, takes "
            f"{SECRET_LENGTH} or more"
        )


def stop_problems(manifests: Manifests) -> Iterator[str]:
    """The grace period is as long as preStop and the slowest stop together."""
    for container in manifests.containers:
        program = module_of(container)
        if program is None or program[1] != "serve":
            continue
        module = program[0]
        longest = Service("", _no_app).stop_seconds
        if module == "handoff_edge":
            values = environment(manifests, container)
            try:
                longest = stop_seconds(load(EdgeSettings, values))
            except SettingError:
                continue  # `setting_problems` names it.
        needed = container.pre_stop_seconds + longest + _EXIT_SECONDS
        given = container.workload.pod.get("terminationGracePeriodSeconds", 30)
        if container.pre_stop_seconds == 0:
            yield f"{container.where}: no preStop sleep: clients still come when it stops"
        if given < needed:
            yield (
                f"{container.workload.label}: terminationGracePeriodSeconds {given} is less than "
                f"the {needed:g} that a stop may take"
            )


async def _no_app(*_: object) -> None:
    """Only how long a service may take to stop is asked; nothing is served."""


def journal_problems(manifests: Manifests) -> Iterator[str]:
    """Journals are full before their volume is: the edge refuses handoffs, and loses nothing."""
    for container in manifests.containers:
        values = environment(manifests, container)
        if module_of(container) != ("handoff_edge", "serve"):
            continue
        claim = container.workload.claims.get("journal")
        try:
            each = int(values["HANDOFF_JOURNAL_MAX_BYTES"])
            workers = int(values["HANDOFF_EDGE_WORKERS"])
        except (KeyError, ValueError) as error:
            yield f"{container.where}: HANDOFF_JOURNAL_MAX_BYTES × HANDOFF_EDGE_WORKERS: {error!r}"
            continue
        size = quantity(claim["spec"]["resources"]["requests"]["storage"]) if claim else None
        if size is None:
            yield f"{container.where}: has no claim `journal`"
        elif each * workers > float(size) * JOURNAL_SHARE:
            yield (
                f"{container.where}: {workers} journals of {each} bytes do not fit on a volume of "
                f"{size} bytes"
            )
