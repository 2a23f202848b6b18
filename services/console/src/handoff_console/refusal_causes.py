"""Why handoffs are refused, and what to do about it: the edge's codes in words. Pure.

The texts are those of the table in docs/edge.md, which a test holds this against.
"""

from typing import NamedTuple


class Cause(NamedTuple):
    """status: of the answer that the client got, 0 where it got none of ours. why: of the refusal.
    advice: what to do."""

    status: int
    why: str
    advice: str


CAUSES: dict[str, Cause] = {
    "bad_request_line": Cause(
        400,
        "The request line is not METHOD SP target SP HTTP/1.1.",
        "Send GET /path HTTP/1.1; a client library does.",
    ),
    "bad_target": Cause(
        400,
        "The target is no path of visible ASCII characters without #.",
        "Percent-encode the path and the query, and leave the fragment out.",
    ),
    "absolute_form": Cause(
        400,
        "The target is a whole URL.",
        "Send only path and query; a client that thinks it talks to a proxy does not.",
    ),
    "http_1_0": Cause(
        400,
        "HTTP/1.0 has no upgrade.",
        "Make whatever stands before the edge speak HTTP/1.1 (nginx: proxy_http_version 1.1).",
    ),
    "bad_http_version": Cause(
        400,
        "Another version than HTTP/1.1.",
        "Speak HTTP/1.1; WebSockets over HTTP/2 end before the edge.",
    ),
    "bare_lf": Cause(
        400,
        "A line ends with LF alone.",
        "End each line with CR LF.",
    ),
    "bare_cr": Cause(
        400,
        "A line holds a CR without LF.",
        "Take the CR out of the header's value.",
    ),
    "bad_header": Cause(
        400,
        "A header line without a name, or with a control character; or a quote in "
        "Sec-WebSocket-Extensions that is not closed.",
        "Look for the header that the client or a proxy builds by hand.",
    ),
    "folded_header": Cause(
        400,
        "A header line begins with white space.",
        "Put the header's value on one line.",
    ),
    "missing_host": Cause(
        400,
        "No Host.",
        "Send Host with the service's domain.",
    ),
    "duplicate_host": Cause(
        400,
        "More than one Host.",
        "Look for the proxy that adds a Host beside the client's.",
    ),
    "bad_host": Cause(
        400,
        "Host is no name or address with an optional port up to 65535.",
        "Send the domain alone, with a port at most.",
    ),
    "bad_method": Cause(
        400,
        "An upgrade needs GET.",
        "Open WebSockets with GET.",
    ),
    "content_length": Cause(
        400,
        "An upgrade request must not have Content-Length.",
        "Send the upgrade without a body.",
    ),
    "transfer_encoding": Cause(
        400,
        "An upgrade request must not have Transfer-Encoding.",
        "Send the upgrade without a body.",
    ),
    "bad_key": Cause(
        400,
        "Sec-WebSocket-Key is not once there, or not 16 bytes in base64.",
        "Use a WebSocket client library; a proxy may also have dropped the header.",
    ),
    "proxy_header_missing": Cause(
        400,
        "It comes from a network of HANDOFF_PROXY_PROTOCOL_FROM, and does not begin with a "
        "PROXY protocol header.",
        "Have the load balancer send the PROXY protocol, or take it off that setting.",
    ),
    "proxy_header_malformed": Cause(
        400,
        "Such a header is wrong, or longer than 107 bytes (v1) or 4,096 (v2).",
        "Look at the load balancer's version of the PROXY protocol, and at what else speaks "
        "from its network.",
    ),
    "proxy_header_unexpected": Cause(
        400,
        "A PROXY protocol header from a network that is not in HANDOFF_PROXY_PROTOCOL_FROM, "
        "or a second one.",
        "Name the load balancer's network there, or have it send no header (or one only).",
    ),
    "head_timeout": Cause(
        408,
        "The head was not whole within HANDOFF_HEAD_TIMEOUT.",
        "Look at the client's network; connections opened ahead of their request end so, too.",
    ),
    "not_an_upgrade": Cause(
        426,
        "No Connection: Upgrade with Upgrade: websocket.",
        "Open it as a WebSocket (wss://), and let proxies before the edge pass Upgrade "
        "and Connection on.",
    ),
    "bad_websocket_version": Cause(
        426,
        "Another Sec-WebSocket-Version than 13.",
        "Use a client that speaks version 13 (RFC 6455).",
    ),
    "head_too_large": Cause(
        431,
        "A head longer than 16 KiB, or of more than 200 header lines.",
        "Send fewer or smaller cookies and headers.",
    ),
    "unknown_domain": Cause(
        421,
        "No active service has the host's domain.",
        "Add the domain to a service and activate that version, or correct the name that "
        "clients use.",
    ),
    "tls_name_mismatch": Cause(
        421,
        "The name asked for in TLS is another customer's domain than Host.",
        "Open a connection of its own to each domain; a client that shares one between names "
        "does not.",
    ),
    "not_enabled": Cause(
        403,
        "WebSockets are not enabled for the service.",
        "Enable WebSockets: PUT /enabled-products/v1/websockets/services/{service_id}.",
    ),
    "no_contract": Cause(
        403,
        "The customer has no contract for WebSockets in force.",
        "Ask sales for a contract, or for the one that has ended to be renewed.",
    ),
    "trial_account": Cause(
        403,
        "A trial account has no WebSockets.",
        "Ask sales for a paid account.",
    ),
    "suspended": Cause(
        403,
        "The customer's account is suspended.",
        "Ask whoever runs the deployment why.",
    ),
    "over_budget": Cause(
        503,
        "A hard cap of the customer is reached.",
        "Raise the budget, or wait for the next month.",
    ),
    "no_rule": Cause(
        404,
        "No rule matches, or none says which of several backends.",
        "Add a rule that matches what clients ask for, or leave one backend and no rules; "
        "GET /service/{service_id}/version/{version}/websocket-rule lists them.",
    ),
    "too_many_connections": Cause(
        429,
        "The service's limit of open connections; with Retry-After.",
        "Raise max_connections of the service's limits, or close connections that are not used.",
    ),
    "too_many_new": Cause(
        429,
        "The service's limit of new connections per second; with Retry-After.",
        "Have clients reconnect with back-off and jitter, or raise max_new_per_second.",
    ),
    "draining": Cause(
        503,
        "The edge is about to stop.",
        "Connect again: another edge takes it.",
    ),
    "busy": Cause(
        503,
        "HANDOFF_MAX_HANDSHAKES are under way, or so many of this service that the rest is kept "
        "for others; the edge is out of descriptors, or the workers of the node cannot count "
        "together.",
        "Connect again with back-off; an operator adds edges where it stays so.",
    ),
    "no_configuration": Cause(
        503,
        "The edge has never seen a configuration.",
        "Wait: the edge has just started; an operator looks at its log where it stays so.",
    ),
    "journal_unavailable": Cause(
        503,
        "What was accepted could not be made durable: full, or the disk fails.",
        "An operator looks at the edge's disk, and at Kafka.",
    ),
    "internal": Cause(
        500,
        "A fault of ours; the log has it.",
        "Tell an operator when it was; the edge's log has the error.",
    ),
    "origin_lookup_busy": Cause(
        503,
        "Too many look-ups of the service's names (4), or of its customer's (8), are under way.",
        "Use a backend whose name resolves quickly, or its address.",
    ),
    "origin_lookup_failed": Cause(
        502,
        "The backend's name has no address.",
        "Correct the backend's address, or the DNS of its name.",
    ),
    "origin_unreachable": Cause(
        502,
        "No address of the backend takes a connection.",
        "See that the origin listens on the backend's port and lets the edges in.",
    ),
    "origin_address_refused": Cause(
        502,
        "Every address is private, local or an edge's own; see HANDOFF_ALLOW_PRIVATE_ORIGINS.",
        "Give the backend a public address; an operator decides about private ones.",
    ),
    "origin_tls_self_signed": Cause(
        502,
        "The origin's certificate is self-signed.",
        "Give the origin a certificate of a public CA.",
    ),
    "origin_tls_untrusted": Cause(
        502,
        "It is signed by no public CA, nor by HANDOFF_EXTRA_CA.",
        "Have the origin send its whole chain, or get a certificate of a public CA.",
    ),
    "origin_tls_expired": Cause(
        502,
        "It is not valid now.",
        "Renew the origin's certificate, and look at its clock.",
    ),
    "origin_tls_name": Cause(
        502,
        "It is for another name than the backend's address.",
        "Use the name that the certificate is for as the backend's address.",
    ),
    "origin_tls_failed": Cause(
        502,
        "The TLS handshake failed otherwise.",
        "Look at the origin's TLS versions and ciphers; a plain port behind use_ssl ends so, too.",
    ),
    "origin_closed": Cause(
        502,
        "The origin closed before its answer was whole.",
        "Look at the origin's log: it took the connection and hung up.",
    ),
    "origin_invalid_answer": Cause(
        502,
        "The answer is no HTTP/1.1, or a line of its head ends with LF alone.",
        "See that the port speaks HTTP/1.1, and TLS only with use_ssl.",
    ),
    "origin_answer_too_large": Cause(
        502,
        "The heads of the answer are longer than 64 KiB, or one has more than 200 header lines.",
        "Have the origin answer with fewer headers.",
    ),
    "origin_bad_framing": Cause(
        502,
        "Where the answer ends cannot be told for certain.",
        "Have the origin send one Content-Length or Transfer-Encoding: chunked, not both.",
    ),
    "origin_bad_upgrade": Cause(
        502,
        "The 101 is not HTTP/1.1 with Connection: Upgrade, Upgrade: websocket.",
        "Look at what stands before the origin: it answers 101 without passing the "
        "upgrade headers on.",
    ),
    "origin_bad_accept": Cause(
        502,
        "Sec-WebSocket-Accept does not answer the client's key.",
        "Look for a proxy before the origin that changes Sec-WebSocket-Key.",
    ),
    "origin_bad_subprotocol": Cause(
        502,
        "A subprotocol that was not offered.",
        "Have the origin choose one of the subprotocols offered, or none.",
    ),
    "origin_bad_extension": Cause(
        502,
        "An extension that was not offered.",
        "Have the origin agree only to extensions offered.",
    ),
    "origin_timeout": Cause(
        504,
        "No connection within HANDOFF_CONNECT_TIMEOUT.",
        "See that a firewall lets the edges in, and that the origin accepts in time.",
    ),
    "origin_tls_timeout": Cause(
        504,
        "No TLS within HANDOFF_CONNECT_TIMEOUT.",
        "See that the port speaks TLS, and that the origin is not overloaded.",
    ),
    "origin_answer_timeout": Cause(
        504,
        "No whole answer head within HANDOFF_ANSWER_TIMEOUT.",
        "Have the origin answer the upgrade first and do its slow work afterwards.",
    ),
    "tls_failed": Cause(
        0,
        "The TLS handshake with the client failed; the log says why.",
        "See that the client speaks TLS 1.2 or newer to that port and trusts its certificate; "
        "the operator, that one for its name is served.",
    ),
    "tls_timeout": Cause(
        0,
        "The TLS handshake was not done within HANDOFF_HEAD_TIMEOUT.",
        "Look at the client's network; connections opened ahead of their use end so, too.",
    ),
    "head_incomplete": Cause(
        0,
        "The client went before its head was whole.",
        "Nothing, where it is health checks or port scans; else look at the client's network.",
    ),
    "too_many_heads": Cause(
        0,
        "HANDOFF_MAX_HEADS or HANDOFF_MAX_HEADS_PER_NETWORK: the connection was closed unread.",
        "An operator looks for a network that floods the edge, or raises the bound.",
    ),
    "client_gone": Cause(
        0,
        "The client went while the handshake was under way.",
        "Look at the client's own time-out: it is shorter than the origin's answer took.",
    ),
    "never_established": Cause(
        0,
        "The origin agreed, and the 101 could not be written: nothing is owed.",
        "As for client_gone; the connection is listed, and costs nothing.",
    ),
    "origin_declined": Cause(
        0,
        "The origin answered something else than 101, which was passed on unchanged.",
        "Look at the origin's log: the status and the body were the origin's own.",
    ),
}


def cause(code: str) -> Cause:
    """A code that this release does not know has no words; docs/edge.md of a later one does."""
    return CAUSES.get(code, Cause(0, "", "See docs/edge.md of the release that runs."))
