"""How states look in answers; `schemas` describes the same for OpenAPI. Pure.

Clients are strict about types: integers and booleans are never text, and null stands only where
`schemas` says so; otherwise a field is left out.
"""

from typing import Any

from msgspec import to_builtins

from handoff_common.access import ALLOWED, Permission, Principal
from handoff_common.events import Limits
from handoff_common.instants import rfc3339
from handoff_config import backends, history, products, rule_tester, service_commands
from handoff_config.contracts import Contract, Customer, Token, User, entitlement
from handoff_config.services import (
    Director,
    Domain,
    Rule,
    Service,
    Version,
    in_matching_order,
)

View = dict[str, Any]


def stamps(created_ms: int, updated_ms: int, deleted_ms: int | None = None) -> View:
    return {
        "created_at": rfc3339(created_ms),
        "updated_at": rfc3339(updated_ms),
        "deleted_at": None if deleted_ms is None else rfc3339(deleted_ms),
    }


# --- Services ----------------------------------------------------------------------------------


def service(state: Service) -> View:
    return {
        "id": state.service_id,
        "name": state.name,
        "customer_id": state.customer_id,
        "type": state.type,
        "comment": state.comment,
        "publish_key": "",
        "paused": False,
        "versions": [version(state, v) for v in state.versions.values()],
        "environments": [],
        **stamps(state.created_ms, state.updated_ms, state.deleted_ms),
    }


def listed(state: Service) -> View:
    number = state.active_version
    return {**service(state), "version": newest(state) if number is None else number}


def newest(state: Service) -> int:
    return max(state.versions)


def version(state: Service, found: Version) -> View:
    active = state.active_version == found.number
    return {
        "number": found.number,
        "service_id": state.service_id,
        "comment": found.comment,
        "active": active,
        "locked": found.locked,
        "deployed": active,
        "staging": False,
        "testing": False,
        "environments": [],
        **stamps(found.created_ms, found.updated_ms),
    }


def detail(state: Service, number: int, *, secrets: bool) -> View:
    shown = state.versions[number]
    active = state.active
    return {
        **service(state),
        "active_version": (
            None if active is None else version_detail(state, active, secrets=secrets)
        ),
        "version": version_detail(state, shown, secrets=secrets),
    }


def version_detail(state: Service, found: Version, *, secrets: bool) -> View:
    return {
        **version(state, found),
        "domains": [domain(state, found, d) for d in found.domains.values()],
        "backends": [backend(state, found, b, secrets=secrets) for b in found.backends.values()],
        "directors": [director(state, found, d, secrets=secrets) for d in found.directors.values()],
        "websocket_rules": [rule(state, found, r) for r in in_matching_order(found.rules.values())],
    }


def validity(verdict: service_commands.Verdict) -> View:
    said = [*verdict.errors, *(f"warning: {text}" for text in verdict.warnings)]
    return {
        "status": "error" if verdict.errors else "ok",
        "msg": "; ".join(said) or None,
        "errors": verdict.errors,
        "warnings": verdict.warnings,
    }


# --- Parts of a version ------------------------------------------------------------------------


def _of(state: Service, found: Version, part: Domain | backends.Backend | Director | Rule) -> View:
    return {
        "service_id": state.service_id,
        "version": found.number,
        **stamps(part.created_ms, part.updated_ms),
    }


def domain(state: Service, found: Version, part: Domain) -> View:
    return {"name": part.name, "comment": part.comment, **_of(state, found, part)}


def sees_secrets(principal: Principal) -> bool:
    """Keys of backends are for those who may write them."""
    return Permission.WRITE_CONFIG in ALLOWED[principal.role]


def backend(state: Service, found: Version, part: backends.Backend, *, secrets: bool) -> View:
    return {
        **backends.shown(part, secrets=secrets),
        "locked": found.locked,
        **_of(state, found, part),
    }


def director(state: Service, found: Version, part: Director, *, secrets: bool) -> View:
    members = [found.backends[name] for name in part.backends if name in found.backends]
    return {
        "name": part.name,
        "type": part.type,
        "quorum": part.quorum,
        "retries": part.retries,
        "capacity": part.capacity,
        "shield": part.shield,
        "comment": part.comment,
        "backends": [backend(state, found, b, secrets=secrets) for b in members],
        **_of(state, found, part),
    }


def link(state: Service, found: Version, part: Director, name: str) -> View:
    return {"director": part.name, "backend_name": name, **_of(state, found, part)}


def rule(state: Service, found: Version, part: Rule) -> View:
    return {
        "name": part.name,
        "priority": part.priority,
        "backend": part.backend,
        "host": part.host,
        "path_prefix": part.path_prefix,
        "path_pattern": part.path_pattern,
        "header_name": part.header_name,
        "header_value": part.header_value,
        "query_name": part.query_name,
        "query_value": part.query_value,
        "subprotocol": part.subprotocol,
        "comment": part.comment,
        **_of(state, found, part),
    }


# --- Products and limits -------------------------------------------------------------------------


def product(name: str, service_id: str, path: str) -> View:
    return {
        "product": {"id": name, "object": "product"},
        "service": {"id": service_id, "object": "service"},
        "_links": {"self": path},
    }


def product_services(name: str, customer_id: str | None, ids: list[str], path: str) -> View:
    customer = (
        {} if customer_id is None else {"customer": {"id": customer_id, "object": "customer"}}
    )
    return {
        "product": {"id": name, "object": "product"},
        **customer,
        "services": ids,
        "_links": {"self": path},
    }


def check(
    state: Service,
    customer: Customer | None,
    number: int | None,
    at_ms: int,
    *,
    may_toggle: bool,
    contact: str,
) -> View:
    lacking = entitlement(customer, products.WEBSOCKETS, at_ms).lacking
    looked_at = None if number is None else state.versions[number]
    found = products.violations(looked_at, ngwaf=state.enabled(products.NGWAF))
    return {
        "service_id": state.service_id,
        "version": number,
        "entitled": lacking is None,
        "entitlement": lacking,
        "contact": None if lacking is None else contact,
        "enabled": state.enabled(products.WEBSOCKETS),
        "may_toggle": may_toggle,
        "compatible": not found,
        "violations": [to_builtins(violation) for violation in found],
    }


def match(state: Service, looked_at: Version, outcome: rule_tester.Outcome) -> View:
    found = outcome.found
    taken: View = {"rule": None, "backend": None, "refusal": None}
    if isinstance(found, rule_tester.Refusal):
        taken["refusal"] = found._asdict()
    else:
        taken |= {"rule": found.rule, "backend": found.backend.name}
    return {
        "service_id": state.service_id,
        "version": looked_at.number,
        "domain": {"name": outcome.domain, "claimed": outcome.domain is not None},
        **taken,
        "tried": [
            {"rule": trial.rule, "matched": trial.failed is None, "failed": trial.failed}
            for trial in outcome.tried
        ],
    }


def limits(service_id: str, found: Limits) -> View:
    return {"service_id": service_id, **to_builtins(found)}


# --- Customers, users, tokens ------------------------------------------------------------------


def contract(found: Contract) -> View:
    return {
        "id": found.contract_id,
        "contract_id": found.contract_id,
        "product": found.product,
        "starts_at": rfc3339(found.starts_ms),
        "ends_at": None if found.ends_ms is None else rfc3339(found.ends_ms),
        "created_at": rfc3339(found.created_ms),
    }


def customer(state: Customer) -> View:
    return {
        "id": state.customer_id,
        "customer_id": state.customer_id,
        "name": state.name,
        "account_type": state.account_type,
        "billing_email": state.billing_email,
        "suspended": state.suspended,
        "contracts": [contract(c) for c in state.contracts.values()],
        "created_at": rfc3339(state.created_ms),
        "updated_at": rfc3339(state.updated_ms),
    }


def classic_customer(state: Customer) -> View:
    return {
        "id": state.customer_id,
        "name": state.name,
        "account_type": state.account_type,
        "billing_network_type": "public",
        **stamps(state.created_ms, state.updated_ms, state.deleted_ms),
    }


_FLAGS = {
    "limit_services": False,
    "locked": False,
    "require_new_password": False,
    "two_factor_auth_enabled": False,
    "two_factor_setup_required": False,
}


def user(customer_id: str, found: User) -> View:
    return {
        "id": found.user_id,
        "user_id": found.user_id,
        "login": found.login,
        "name": found.name,
        "role": found.role,
        "customer_id": customer_id,
        **_FLAGS,
        "password_set_at": (
            None if found.password_set_ms is None else rfc3339(found.password_set_ms)
        ),
        **stamps(found.created_ms, found.updated_ms),
    }


def operator(principal: Principal) -> View:
    """An operator is nobody's user: what `/current_user` says of one."""
    return {
        "id": principal.token_id,
        "user_id": principal.token_id,
        "login": principal.login,
        "name": "Operator",
        "role": "operator",
        **_FLAGS,
        "password_set_at": None,
        "created_at": None,
        "updated_at": None,
        "deleted_at": None,
    }


def token(customer_id: str | None, found: Token) -> View:
    shown: View = {
        "id": found.token_id,
        "token_id": found.token_id,
        "name": found.name,
        "scope": found.scope,
        "services": [],
        "session": found.session,
        "created_at": rfc3339(found.created_ms),
    }
    if found.user_id is not None:
        shown["user_id"] = found.user_id
    if customer_id is not None:
        shown["customer_id"] = customer_id
    if found.expires_ms is not None:
        shown["expires_at"] = rfc3339(found.expires_ms)
    if found.revoked_ms is not None:
        shown["deleted_at"] = rfc3339(found.revoked_ms)
    return shown


def session(state: Customer, found: Token, text: str) -> View:
    """What signing in answers. text: the token's, shown this once."""
    user = state.users[found.user_id or ""]
    return {
        "access_token": text,
        "token_id": found.token_id,
        "expires_at": rfc3339(found.expires_ms or 0),
        "user": {
            "id": user.user_id,
            "login": user.login,
            "name": user.name,
            "role": user.role,
        },
        "customer": {"id": state.customer_id, "name": state.name},
    }


# --- History -----------------------------------------------------------------------------------


def entry(row: Any, change: history.Change, *, to_operator: bool) -> View:
    """A row of `events`. From where an operator acted is for operators only."""
    _, _, identifier = row.stream.partition("/")
    by_operator = row.actor_user_id is None
    return {
        "revision": row.revision,
        "at": rfc3339(row.at_ms),
        "type": row.type,
        **to_builtins(change),
        "service_id": identifier if row.stream.startswith("service/") else None,
        "customer_id": row.customer_id,
        "actor": {
            "token_id": row.actor_token_id,
            "user_id": row.actor_user_id,
            "login": row.actor_login,
        },
        "ip": row.ip if to_operator or not by_operator else "",
        "request_id": row.request_id,
    }
