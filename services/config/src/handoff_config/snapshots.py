"""What other services are told: a service, a customer or a token as one whole, with its revision.

Pure. Only what others act on is in a snapshot; the events and the state stay here.
"""

from handoff_common.events import (
    AccessData,
    BackendSnapshot,
    ContractSnapshot,
    CustomerData,
    NameValue,
    RuleSnapshot,
    ServiceData,
)
from handoff_common.instants import from_ms
from handoff_config.contracts import Customer, Operators
from handoff_config.services import Enablement, Rule, Service, Version, in_matching_order


def of_service(service: Service, revision: int) -> ServiceData:
    """The service as its active version has it, for edges, metering and billing."""
    version = service.active
    websockets = service.products.get("websockets", Enablement())
    return ServiceData(
        revision=revision,
        service_id=service.service_id,
        customer_id=service.customer_id,
        name=service.name,
        active_version=service.active_version,
        websockets_enabled=websockets.enabled,
        websockets_changed_at=(
            None if websockets.changed_ms is None else from_ms(websockets.changed_ms)
        ),
        keep_open=websockets.keep_open,
        ngwaf_enabled=service.enabled("ngwaf"),
        domains=() if version is None else tuple(sorted(version.domains)),
        backends=() if version is None else backends_of(version),
        rules=() if version is None else rules_of(version),
        limits=service.limits,
        created_at=from_ms(service.created_ms),
        deleted_at=None if service.deleted_ms is None else from_ms(service.deleted_ms),
    )


def backends_of(version: Version) -> tuple[BackendSnapshot, ...]:
    return tuple(
        BackendSnapshot(
            name=b.name,
            address=b.address,
            port=b.port,
            use_ssl=b.use_ssl,
            override_host=b.override_host,
        )
        for b in version.backends.values()
    )


def rules_of(version: Version) -> tuple[RuleSnapshot, ...]:
    """In the order in which they are tried."""
    return tuple(_rule_snapshot(r) for r in in_matching_order(version.rules.values()))


def _rule_snapshot(rule: Rule) -> RuleSnapshot:
    return RuleSnapshot(
        name=rule.name,
        host=None if rule.host is None else rule.host.lower(),
        path_prefix=rule.path_prefix,
        path_pattern=rule.path_pattern,
        header=_name_value(rule.header_name, rule.header_value),
        query=_name_value(rule.query_name, rule.query_value),
        subprotocol=rule.subprotocol,
        backend=rule.backend,
    )


def _name_value(name: str | None, value: str | None) -> NameValue | None:
    return None if name is None else NameValue(name=name, value=value)


def of_customer(customer: Customer, revision: int) -> CustomerData:
    return CustomerData(
        revision=revision,
        customer_id=customer.customer_id,
        name=customer.name,
        account_type=customer.account_type,
        billing_email=customer.billing_email,
        suspended=customer.suspended,
        contracts=tuple(
            ContractSnapshot(
                contract_id=c.contract_id,
                product=c.product,
                starts_at=from_ms(c.starts_ms),
                ends_at=None if c.ends_ms is None else from_ms(c.ends_ms),
            )
            for c in customer.contracts.values()
        ),
        created_at=from_ms(customer.created_ms),
        deleted_at=None if customer.deleted_ms is None else from_ms(customer.deleted_ms),
    )


def of_customer_tokens(customer: Customer, revision: int) -> dict[str, AccessData]:
    """Token id → what every service is told of it. A token whose user is gone has no role left to
    speak of; it is revoked, and told with the least one."""
    told = {}
    for token in customer.tokens.values():
        user = customer.users.get(token.user_id or "")
        told[token.token_id] = AccessData(
            revision=revision,
            token_id=token.token_id,
            token_sha256=token.sha256,
            user_id=token.user_id,
            customer_id=customer.customer_id,
            login=user.login if user else "",
            role=user.role if user else "user",
            scope=token.scope,
            created_at=from_ms(token.created_ms),
            expires_at=None if token.expires_ms is None else from_ms(token.expires_ms),
            revoked_at=None if token.revoked_ms is None else from_ms(token.revoked_ms),
        )
    return told


def of_operator_tokens(operators: Operators, revision: int) -> dict[str, AccessData]:
    """Token id → what every service is told of it."""
    return {
        token.token_id: AccessData(
            revision=revision,
            token_id=token.token_id,
            token_sha256=token.sha256,
            login="operator",
            role="operator",
            scope=token.scope,
            created_at=from_ms(token.created_ms),
            expires_at=None if token.expires_ms is None else from_ms(token.expires_ms),
            revoked_at=None if token.revoked_ms is None else from_ms(token.revoked_ms),
        )
        for token in operators.tokens.values()
    }
