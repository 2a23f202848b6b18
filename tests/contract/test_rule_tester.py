"""What config's rule tester foretells of a version is what the edge decides once it is active."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from handoff_common.events import ServiceSnapshot
from handoff_common.instants import to_ms
from handoff_config import snapshots
from handoff_config.backends import Backend
from handoff_config.rule_tester import Refusal, outcome, request_of
from handoff_config.services import Domain, Enablement, Rule, Service, Version
from handoff_edge.decision import Handoff, decide
from handoff_edge.rulebook import RuleBook
from support.edge_events import ENVELOPE, NOW, customer, head

DOMAINS = ["Chat.example.com", "*.example.com", "a.b.example.com", "*.b.example.com", "x.test"]
HOSTS = [*(d.replace("*", "One") for d in DOMAINS), "example.com", "CHAT.Example.com.", "[::1]"]
PATHS = ["/", "/a", "/a/b", "/A", "/a%20b", "/%61", "//a", "/a;v=1", "/a+b"]
QUERIES = ["", "?", "?x", "?x=1", "?x=&x=2", "?y=1&x=a+b", "?x=a%20b", "?X=1", "?x=%C3%A9", "?x?=1"]
NAMES = ["X-One", "x-one", "Origin", "Upgrade", "Host", "Sec-WebSocket-Protocol"]
VALUES = ["1", " 1", "1\t", "", "é", "websocket", "v1, v2"]
PROTOCOLS = ["v1", "v2", "V1"]
BACKENDS = ["main", "other"]


def one_of(values: list[str], extra: list[str] | None = None) -> st.SearchStrategy[str]:
    return st.sampled_from([*values, *(extra or [])])


def maybe(values: list[str]) -> st.SearchStrategy[str | None]:
    return st.none() | st.none() | st.sampled_from(values)


CONDITIONS: list[st.SearchStrategy[dict[str, Any]]] = [
    st.fixed_dictionaries({"host": one_of(DOMAINS, ["CHAT.EXAMPLE.COM"])}),
    st.fixed_dictionaries({"path_prefix": one_of(PATHS)}),
    st.fixed_dictionaries({"path_pattern": one_of(["/*", "*b", "/a*b", "/a"])}),
    st.fixed_dictionaries({"header_name": one_of(NAMES), "header_value": maybe(VALUES)}),
    st.fixed_dictionaries(
        {"query_name": one_of(["x", "X", "y", "x?"]), "query_value": maybe(["1", "", "a b", "é"])}
    ),
    st.fixed_dictionaries({"subprotocol": one_of(PROTOCOLS)}),
]


@st.composite
def rules(draw: st.DrawFn, number: int) -> Rule:
    """One condition or two: with more of them hardly a rule would match."""
    conditions: dict[str, Any] = {}
    for _ in range(draw(st.integers(1, 2))):
        conditions |= draw(st.sampled_from(CONDITIONS).flatmap(lambda condition: condition))
    backend = draw(one_of(BACKENDS, ["gone"]))
    return Rule(f"rule-{number}", backend, priority=draw(st.integers(1, 3)), **conditions)


@st.composite
def services(draw: st.DrawFn) -> Service:
    names = draw(st.sets(st.sampled_from(DOMAINS), min_size=2))
    backends = draw(st.permutations(BACKENDS))[: draw(st.sampled_from([2, 2, 1, 0]))]
    made = [draw(rules(number)) for number in range(draw(st.integers(0, 4)))]
    version = Version(
        2,
        domains={name.lower(): Domain(name) for name in sorted(names)},
        backends={name: Backend(name, address=f"{name}.test") for name in backends},
        rules={rule.name: rule for rule in made},
    )
    return Service(
        "svc",
        "cus",
        "chat",
        versions={2: version},
        active_version=2,
        products={"websockets": Enablement(enabled=True, changed_ms=0)},
    )


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    names = [name for name in NAMES if name not in ("Host", "Upgrade")]
    return {
        "host": draw(one_of(HOSTS)) + draw(one_of(["", ":", ":443", ":8080"])),
        "target": draw(one_of(PATHS)) + draw(one_of(QUERIES)),
        "headers": draw(st.lists(st.tuples(one_of(names), one_of(VALUES)), max_size=3)),
        "subprotocols": draw(st.lists(st.sampled_from(PROTOCOLS), max_size=2)),
    }


@settings(max_examples=300)
@given(services(), requests())
def test_the_tester_and_the_edge_agree(service: Service, asked: dict[str, Any]) -> None:
    lines = list(asked["headers"])
    if asked["subprotocols"]:
        lines.append(("Sec-WebSocket-Protocol", ", ".join(asked["subprotocols"])))
    book = RuleBook()
    book.apply(ServiceSnapshot(**ENVELOPE, data=snapshots.of_service(service, 1)))
    book.apply(customer())
    sent = head(asked["host"], asked["target"], "".join(f"{n}: {v}\r\n" for n, v in lines))
    decided = decide(book, sent, to_ms(NOW))

    url = f"wss://{asked['host']}{asked['target']}"
    foretold = outcome(
        service.versions[2], request_of(url, asked["headers"], asked["subprotocols"])
    )
    last = foretold.tried[-1] if foretold.tried else None
    if isinstance(decided, Handoff):
        assert not isinstance(foretold.found, Refusal)
        assert (foretold.found.rule, foretold.found.backend) == (decided.rule, decided.backend)
        assert (last and last.rule) == decided.rule
    else:
        assert isinstance(foretold.found, Refusal)
        assert foretold.found.code == decided.code
        if decided.code == "no_rule":
            assert foretold.found.text == decided.text
    assert all(trial.failed is not None for trial in foretold.tried[:-1])
