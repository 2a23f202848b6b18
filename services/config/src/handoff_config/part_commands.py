"""What may be done to the domains, backends, directors and rules of a draft: state in, events out.

Pure. A part that is not there is answered 404, a taken name 409, a locked version 422. Saving what
is there already is no event.
"""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from handoff_common.errors import ApiError, FieldError, not_found
from handoff_config import backends, errors, fields
from handoff_config.service_commands import Events, Values, draft
from handoff_config.services import (
    BackendDeleted,
    BackendSaved,
    Director,
    DirectorDeleted,
    DirectorSaved,
    Domain,
    DomainDeleted,
    DomainSaved,
    Rule,
    RuleDeleted,
    RuleSaved,
    Service,
    Version,
)

MAX_PARTS = 250
"""Domains, backends, directors or rules of one version: an active one is one record of the log."""


def _room(parts: Mapping[str, object], what: str) -> None:
    if len(parts) >= MAX_PARTS:
        raise ApiError(
            422,
            "too_many",
            "Too many objects",
            f"the version has {len(parts)} of kind {what}; allowed: {MAX_PARTS}",
        )


def _named(parts: Mapping[str, Any], key: str, what: str, name: str) -> Any:
    part = parts.get(key)
    if part is None:
        raise not_found(what, name)
    return part


def domain_of(version: Version, name: str) -> Domain:
    found: Domain = _named(version.domains, name.lower(), "domain", name)
    return found


def backend_of(version: Version, name: str) -> backends.Backend:
    found: backends.Backend = _named(version.backends, name, "backend", name)
    return found


def director_of(version: Version, name: str) -> Director:
    found: Director = _named(version.directors, name, "director", name)
    return found


def rule_of(version: Version, name: str) -> Rule:
    found: Rule = _named(version.rules, name, "websocket-rule", name)
    return found


def save_domain(service: Service, number: int, was: str | None, values: Values) -> Events:
    """Create (`was` None) or update a domain."""
    version = draft(service, number)
    current = None if was is None else domain_of(version, was)
    name = values.get("name") or "" if current is None or "name" in values else current.name
    comment = values.get("comment", current.comment if current else "") or ""
    fields.require([fields.domain("name", name), fields.text("comment", comment)])
    _refuse_duplicate(version.domains, "domain", was and was.lower(), name.lower())
    saved = replace(current or Domain(name), name=name, comment=comment)
    return (
        () if saved == current else (DomainSaved(number, saved, current.name if current else None),)
    )


def delete_domain(service: Service, number: int, name: str) -> Events:
    return (DomainDeleted(number, domain_of(draft(service, number), name).name),)


def save_backend(service: Service, number: int, was: str | None, values: Values) -> Events:
    version = draft(service, number)
    current = None if was is None else backend_of(version, was)
    saved = backends.merged(current, values)
    _refuse_duplicate(version.backends, "backend", was, saved.name)
    return () if saved == current else (BackendSaved(number, saved, was),)


def delete_backend(service: Service, number: int, name: str) -> Events:
    return (BackendDeleted(number, backend_of(draft(service, number), name).name),)


_DIRECTOR_DEFAULTS = {"type": 1, "quorum": 75, "retries": 5, "capacity": 100}


def save_director(service: Service, number: int, was: str | None, values: Values) -> Events:
    version = draft(service, number)
    current = None if was is None else director_of(version, was)
    name = values.get("name") or "" if current is None or "name" in values else current.name
    base = current or Director(name)
    given: dict[str, Any] = {
        key: default if values[key] is None else values[key]
        for key, default in _DIRECTOR_DEFAULTS.items()
        if key in values
    }
    given["shield"] = values.get("shield", base.shield) or None
    given["comment"] = values.get("comment", base.comment) or ""
    saved = replace(base, name=name, **given)
    fields.require(
        [
            fields.name("name", saved.name),
            fields.one_of("type", saved.type, (1, 3, 4)),
            fields.number("quorum", saved.quorum, 0, 100),
            fields.number("retries", saved.retries, 0, 255),
            fields.number("capacity", saved.capacity, 0, fields.INT32),
            fields.text("shield", saved.shield or "", longest=fields.MAX_NAME),
            fields.text("comment", saved.comment),
        ]
    )
    _refuse_duplicate(version.directors, "director", was, saved.name)
    return () if saved == current else (DirectorSaved(number, saved, was),)


def delete_director(service: Service, number: int, name: str) -> Events:
    return (DirectorDeleted(number, director_of(draft(service, number), name).name),)


def link(service: Service, number: int, director: str, backend: str) -> Events:
    """Make the backend a member of the director; linked already is no event."""
    version = draft(service, number)
    current = director_of(version, director)
    backend_of(version, backend)
    if backend in current.backends:
        return ()
    saved = replace(current, backends=(*current.backends, backend))
    return (DirectorSaved(number, saved, director),)


def linked(version: Version, director: str, backend: str) -> Director:
    current = director_of(version, director)
    if backend not in current.backends:
        raise not_found(f"backend in director {director!r}", backend)
    return current


def unlink(service: Service, number: int, director: str, backend: str) -> Events:
    current = linked(draft(service, number), director, backend)
    saved = replace(current, backends=tuple(b for b in current.backends if b != backend))
    return (DirectorSaved(number, saved, director),)


_RULE_TEXTS = (
    "host",
    "path_prefix",
    "path_pattern",
    "header_name",
    "header_value",
    "query_name",
    "query_value",
    "subprotocol",
)


def save_rule(service: Service, number: int, was: str | None, values: Values) -> Events:
    version = draft(service, number)
    current = None if was is None else rule_of(version, was)
    name = values.get("name") or "" if current is None or "name" in values else current.name
    backend = (
        values.get("backend") or "" if current is None or "backend" in values else current.backend
    )
    given: dict[str, Any] = {k: values[k] or None for k in _RULE_TEXTS if k in values}
    if "comment" in values:
        given["comment"] = values["comment"] or ""
    if "priority" in values:
        given["priority"] = 100 if values["priority"] is None else values["priority"]
    saved = replace(current or Rule(name, backend), name=name, backend=backend, **given)
    fields.require(_rule_problems(saved))
    _refuse_duplicate(version.rules, "websocket-rule", was, saved.name)
    return () if saved == current else (RuleSaved(number, saved, was),)


def _rule_problems(rule: Rule) -> list[FieldError | None]:
    problems = [
        fields.name("name", rule.name),
        fields.name("backend", rule.backend),
        fields.number("priority", rule.priority, 0, 1_000_000),
        fields.text("comment", rule.comment),
    ]
    if rule.host is not None:
        problems.append(fields.domain("host", rule.host))
    for key in ("path_prefix", "path_pattern"):
        value = getattr(rule, key)
        if value is None:
            continue
        problems.append(fields.text(key, value))
        if not value.startswith("/") and not (key == "path_pattern" and value.startswith("*")):
            problems.append(fields.refused(key, value, "a path, which begins with '/'"))
    if rule.path_prefix is not None and rule.path_pattern is not None:
        problems.append(
            FieldError("path_pattern", "is given beside path_prefix; allowed: one of them")
        )
    if rule.header_name is not None:
        problems.append(fields.header_name("header_name", rule.header_name))
    if rule.subprotocol is not None:
        problems.append(fields.header_name("subprotocol", rule.subprotocol))
    for kind in ("header", "query"):
        value = getattr(rule, f"{kind}_value")
        if value is not None:
            problems.append(fields.text(f"{kind}_value", value))
            if getattr(rule, f"{kind}_name") is None:
                problems.append(
                    FieldError(f"{kind}_name", f"is missing; allowed: the name for {kind}_value")
                )
    if rule.query_name is not None:
        problems.append(fields.text("query_name", rule.query_name, longest=fields.MAX_NAME))
    return problems


def delete_rule(service: Service, number: int, name: str) -> Events:
    return (RuleDeleted(number, rule_of(draft(service, number), name).name),)


def _refuse_duplicate(parts: Mapping[str, object], what: str, was: str | None, key: str) -> None:
    if key != was and key in parts:
        raise errors.duplicate(what, key)
    if was is None:
        _room(parts, what)
