"""What requests and name queries tell. Data only."""

from __future__ import annotations

from netlab.frames import Column, Schema
from netlab.schemas.kinds import CATEGORY, INTEGER, REAL, TEXT, TIME

REQUESTS = Schema(
    "requests",
    (
        Column("protocol", CATEGORY, "http, http2, grpc, kafka, postgres, redis, tls"),
        Column("operation", TEXT, "HTTP method; gRPC method; SQL command; Kafka API; Redis command"),
        Column("resource", TEXT, "path, table, topic or prefix of the key, masked unless told otherwise"),
        Column("host", TEXT, "the server as the request names it (Host, :authority)"),
        Column(
            "status", TEXT, "the answer's code: HTTP status, grpc-status, SQLSTATE, Kafka's error code, or OK"
        ),
        Column(
            "error",
            TEXT,
            "the failure by name; missing when the request went well, and without an answer unless a reset "
            "of its stream, or the server's last word on the connection, says why; `incomplete`: the "
            "connection ended in the middle of the answer; `GOAWAY`: a server of HTTP/2 that ends the "
            "connection has not taken the request, which clients send again on another one",
        ),
        Column(
            "outcome", CATEGORY, "answered, pending, unanswered (the connection ended) or missed (unseen)"
        ),
        Column("requested_at", TIME, "first byte of the request at this host"),
        Column("latency_ms", REAL, "from the request's first byte to the answer's first byte", "ms"),
        Column("duration_ms", REAL, "from the request's first byte to the answer's last byte", "ms"),
        Column("request_bytes", INTEGER, "the request's whole message", "bytes"),
        Column("response_bytes", INTEGER, "the answer's whole message", "bytes"),
        Column("version", TEXT, "of the protocol as spoken, such as HTTP/1.1; of a Kafka API its number"),
        Column("stream", INTEGER, "HTTP/2's stream; Kafka's correlation id"),
        Column("partition", INTEGER, "Kafka: the partition, where the request names one"),
        Column("records", INTEGER, "records, rows or keys that the request is about"),
        Column("seen", CATEGORY, "wire: read from packets; tls: read from the TLS library before encryption"),
        Column("direction", CATEGORY, "outgoing: the client is here; incoming: the server is"),
        Column("local_address", TEXT, "this end's address as the socket sees it"),
        Column("local_port", INTEGER, "this end's port"),
        Column("remote_address", TEXT, "the peer's address as the socket sees it"),
        Column("remote_port", INTEGER, "the peer's port"),
        Column("pid", INTEGER, "owning process, as numbered in the root pid namespace"),
        Column("process", TEXT, "the owner's command name"),
        Column("container", TEXT, "id of the owner's container, or its name"),
        Column("netns", INTEGER, "inode of the network namespace"),
        Column("cookie", INTEGER, "the socket's cookie, as in connections()"),
    ),
    host_column="on_host",  # `host` is the server's
)

TLS = Schema(
    "tls",
    (
        Column("tls_version", CATEGORY, "the version agreed on: TLS 1.3"),
        Column("tls_cipher", TEXT, "the cipher suite agreed on, by its name at IANA"),
        Column("tls_server_name", TEXT, "the name that the client asks for (SNI)"),
        Column(
            "tls_alpn",
            TEXT,
            "the protocol agreed on (ALPN); TLS 1.3 encrypts it: what the client offers, if that is one",
        ),
        Column(
            "tls_certificate_expires_at",
            TIME,
            "when the server's certificate ends; missing with TLS 1.3, which encrypts it, when a session is "
            "resumed, and behind the year 2262 (9999 says that it has no end)",
        ),
        Column("tls_ja4", TEXT, "JA4 fingerprint of the client"),
        Column("protocol_stack", TEXT, "the layers, the outermost first: tls, tls+http2"),
        Column(
            "status",
            TEXT,
            "OK, or the number of the fatal alert that ended the handshake; missing where it is encrypted, "
            "and where TLS 1.3 hides whether a server took leave or refused a client that had left",
        ),
        Column(
            "error",
            TEXT,
            "the alert by name; encrypted_alert where TLS 1.3 hides why a side refused, such as for the "
            "other's certificate, or none; of a server: where an alert is all that it said; missing when the "
            "handshake went well or has no answer",
        ),
        Column(
            "outcome", CATEGORY, "answered, pending, unanswered (the connection ended) or missed (unseen)"
        ),
        Column("requested_at", TIME, "the first byte of the client's hello at this host"),
        Column("latency_ms", REAL, "from the client's hello to the server's", "ms"),
        Column(
            "duration_ms",
            REAL,
            "from the client's hello to the server's end of the handshake, or to the alert; TLS 1.3: to the "
            "server's hello",
            "ms",
        ),
        *REQUESTS.columns[[column.name for column in REQUESTS.columns].index("direction") :],
    ),
)

REQUEST_STATS = Schema(
    "request_stats",
    (
        Column("protocol", CATEGORY, "the columns of requests that tell the groups; these three by default"),
        Column("operation", TEXT, "as in requests"),
        Column("resource", TEXT, "as in requests"),
        Column("requests", INTEGER, "requests of the group"),
        Column("answered", INTEGER, "of these: have an answer, whatever it says"),
        Column("unanswered", INTEGER, "of these: the connection ended before an answer came"),
        Column("missed", INTEGER, "of these: bytes were not seen where the answer may have been"),
        Column("pending", INTEGER, "of these: not answered yet"),
        Column("errors", INTEGER, "of these: failures by name, answers and streams that were reset"),
        Column(
            "statuses",
            TEXT,
            "how often each answer was a failure, HTTP's by status, others by `error`; missing without any: "
            "`404: 3, DEADLINE_EXCEEDED: 1`",
        ),
        Column("request_bytes", INTEGER, "all requests whose size is known", "bytes"),
        Column("response_bytes", INTEGER, "all answers whose size is known", "bytes"),
        Column(
            "p50_ms", REAL, "half of the latencies are no longer; within 1 % of one that was measured", "ms"
        ),
        Column("p90_ms", REAL, "nine of ten are no longer", "ms"),
        Column("p99_ms", REAL, "99 of 100 are no longer", "ms"),
        Column("max_ms", REAL, "the longest, exactly", "ms"),
        Column("first_at", TIME, "the first request"),
        Column("last_at", TIME, "the last request"),
    ),
)

_MEASURES = ("request_bytes", "response_bytes", "p50_ms", "p90_ms", "p99_ms", "max_ms", "first_at", "last_at")

PROTOCOL_STATS = Schema(
    "protocol_stats",
    (
        Column("protocol", CATEGORY, "http, http2, grpc, kafka, postgres, redis, tls, dns"),
        Column("operation", TEXT, "as in requests; of DNS the type that was asked for"),
        Column("resource", TEXT, "as in requests; of TLS the server name, of DNS the name asked for"),
        Column(
            "status_class",
            CATEGORY,
            "of HTTP 1xx to 5xx; of the rest ok or error, or unknown where the answer's status is; without "
            "an answer what became of it: unanswered, missed (not all bytes were seen) or pending",
        ),
        Column("requests", INTEGER, "requests, handshakes or lookups of the group"),
        Column("errors", INTEGER, "of these: failures by name, answers and streams that were reset"),
        Column("statuses", TEXT, "how often each answer was a failure, as in request_stats"),
        *(column for column in REQUEST_STATS.columns if column.name in _MEASURES),
    ),
)

DNS = Schema(
    "dns",
    (
        Column("name", TEXT, "the name asked for, lower case, as in a zone file without the last dot"),
        Column("type", CATEGORY, "A, AAAA, PTR, ...; TYPE123 where the type has no name; CH TXT of a class"),
        Column(
            "rcode",
            CATEGORY,
            "NOERROR, NXDOMAIN, ...; timeout: no answer came; pending: it may still come; closed: the TCP "
            "connection ended first; unreachable: an ICMP error told the asker that nobody listens (if its "
            "socket is connected or has IP_RECVERR); missed: no answer was seen, nor were all packets",
        ),
        Column(
            "answers",
            TEXT,
            "the records of the type asked for, in their order, `; ` between; `...`: there are more",
        ),
        Column("latency_ms", REAL, "from the first query to the answer that ended the wait", "ms"),
        Column("answer_ms", REAL, "from the last query to this server to its answer", "ms"),
        Column("retries", INTEGER, "queries sent again before the answer, to any server"),
        Column("server_address", TEXT, "who answered; without an answer who was asked last"),
        Column("silent_servers", TEXT, "who was asked before and did not answer, one space between"),
        Column(
            "conversations",
            TEXT,
            "who asked whom in a lookup that took several sockets, such as 192.0.2.1#4001>192.0.2.53#53, one "
            "space between; missing where it took one",
        ),
        Column("transport", CATEGORY, "udp, tcp, tls, or udp+tcp: truncated, and asked again over TCP"),
        Column("ttl_s", INTEGER, "the smallest time to live among the answers and the CNAMEs to them", "s"),
        Column("cname", TEXT, "the names passed on the way to the answers, one space between"),
        Column("service", CATEGORY, "dns, mdns, llmnr"),
        Column("truncated", CATEGORY, "yes or no: an answer had the TC bit"),
        Column(
            "edns_bytes", INTEGER, "the UDP size that the query offers by EDNS; missing without EDNS", "bytes"
        ),
        Column("answer_bytes", INTEGER, "size of the answer's message", "bytes"),
        Column("asked_at", TIME, "the first query"),
        Column("server_port", INTEGER, "the server's port"),
        Column("direction", CATEGORY, "outgoing: the asker is here; incoming: the server is"),
        Column("local_address", TEXT, "this end's address as the socket sees it"),
        Column("local_port", INTEGER, "this end's port"),
        Column("remote_address", TEXT, "the other end's address"),
        Column("remote_port", INTEGER, "the other end's port"),
        Column("pid", INTEGER, "owning process, as numbered in the root pid namespace"),
        Column("process", TEXT, "the owner's command name"),
        Column("container", TEXT, "id of the owner's container, or its name"),
        Column("netns", INTEGER, "inode of the network namespace"),
        Column("cookie", INTEGER, "the socket's cookie, as in connections()"),
    ),
)

DNS_STATS = Schema(
    "dns_stats",
    (
        Column("server_address", TEXT, "who was asked"),
        Column("name", TEXT, "the name asked for"),
        Column("type", CATEGORY, "A, AAAA, PTR, ..."),
        Column("process", TEXT, "command name of the process on this host"),
        Column("container", TEXT, "its container"),
        Column("direction", CATEGORY, "outgoing: the asker is here; incoming: the server is"),
        Column("service", CATEGORY, "dns, mdns, llmnr"),
        Column("transport", CATEGORY, "udp, tcp, tls, udp+tcp"),
        Column("netns", INTEGER, "inode of the network namespace"),
        Column("lookups", INTEGER, "how many there were"),
        Column("noerror", INTEGER, "answered NOERROR, with records or without"),
        Column("nxdomain", INTEGER, "answered that there is no such name"),
        Column("servfail", INTEGER, "answered that the server failed"),
        Column("refused", INTEGER, "answered that the server will not"),
        Column("other", INTEGER, "answered with any other code"),
        Column(
            "timeouts",
            INTEGER,
            "not answered by anybody: not in time, before the TCP connection ended, or nobody listens",
        ),
        Column("pending", INTEGER, "not answered yet, or nobody can tell because packets were missed"),
        Column("retries", INTEGER, "queries sent again before the answer, to any server"),
        Column("passed_over", INTEGER, "lookups that this server left unanswered and another took over"),
        Column("p50_ms", REAL, "median of answer_ms: what the server took", "ms"),
        Column("p95_ms", REAL, "95 % of the answers took no longer", "ms"),
        Column("p99_ms", REAL, "99 % of the answers took no longer", "ms"),
        Column("max_ms", REAL, "the slowest answer", "ms"),
        Column("wait_p50_ms", REAL, "median of latency_ms: what the asker waited, retries included", "ms"),
        Column("wait_p99_ms", REAL, "99 % of those answered waited no longer", "ms"),
        Column("wait_max_ms", REAL, "the longest wait that had an answer", "ms"),
    ),
)

NAMES = Schema(
    "names",
    (
        Column("address", TEXT, "the address that answers gave"),
        Column("name", TEXT, "the name that was asked for"),
        Column("cname", TEXT, "the names passed on the way from it to the address, one space between"),
        Column("ttl_s", INTEGER, "time to live in the last of the answers", "s"),
        Column("first_at", TIME, "when it was first seen"),
        Column("last_at", TIME, "when it was last seen"),
        Column("until", TIME, "when its time to live ends, a minute after it was seen at the earliest"),
        Column("answers", INTEGER, "how many answers gave it"),
        Column("pid", INTEGER, "the process that asked last"),
        Column("process", TEXT, "its command name"),
        Column("netns", INTEGER, "inode of the network namespace it asked in"),
    ),
)
