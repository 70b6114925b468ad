"""Which way packets go, beyond this host. Data only."""

from __future__ import annotations

from netlab.frames import Column, Kind, Schema

_TEXT = Kind.TEXT
_CATEGORY = Kind.CATEGORY
_INTEGER = Kind.INTEGER
_REAL = Kind.REAL
_FLAG = Kind.FLAG
_TIME = Kind.TIME

HOPS = Schema(
    "hops",
    (
        Column("trace", _TEXT, "id of the call that made the row: tells repetitions by the same flow apart"),
        Column("host", _TEXT, "name of the host that probed"),
        Column("netns", _INTEGER, "inode of the network namespace it probed from"),
        Column("source_address", _TEXT, "source address of the probe"),
        Column("gateway", _TEXT, "next hop the probes left for; missing where the target is on the link"),
        Column("interface", _TEXT, "interface they left by"),
        Column("target", _TEXT, "what was asked for"),
        Column("target_address", _TEXT, "the address that was probed"),
        Column("run", _INTEGER, "repetition of the whole trace, from 0"),
        Column("flow", _INTEGER, "flow id: probes of one flow share addresses, ports and flow label"),
        Column("ttl", _INTEGER, "TTL (hop limit) the probe left with"),
        Column("attempt", _INTEGER, "repetition of this TTL within the run, from 0"),
        Column("address", _TEXT, "who answered; missing when nobody did"),
        Column("name", _TEXT, "the answering address's name, when looked up"),
        Column("rtt_ms", _REAL, "from sending the probe to receiving the answer", "ms"),
        Column("reply", _CATEGORY, "time-exceeded, port-unreachable, syn-ack, rst …; missing = no answer"),
        Column("reached", _FLAG, "the answer came from the destination itself, judged by its type"),
        Column("sent_at", _TIME, "when the probe was sent"),
        Column("protocol", _CATEGORY, "udp, tcp, tcp-sack or icmp"),
        Column("family", _INTEGER, "4 or 6"),
        Column("source_port", _INTEGER, "source port of the probe; icmp has none"),
        Column("port", _INTEGER, "destination port of the probe; icmp has none"),
        Column("method", _CATEGORY, "how it was probed: raw or unprivileged"),
        Column("error", _TEXT, "why this target could not be probed; such a row has no probe"),
        Column("reply_ttl", _INTEGER, "TTL of the answer when it arrived"),
        Column(
            "return_hops", _INTEGER, "how many hops away the answer started, if with a TTL of 64, 128 or 255"
        ),
        Column("dscp", _INTEGER, "service class that the probe left with"),
        Column("ecn", _INTEGER, "ECN bits that the probe left with"),
        Column("quoted_ttl", _INTEGER, "TTL of the probe where it ended; this and the next four as quoted"),
        Column("quoted_dscp", _INTEGER, "its service class there"),
        Column("quoted_ecn", _INTEGER, "its ECN bits there"),
        Column(
            "rewritten",
            _TEXT,
            "what of it had changed: source, source port, identifier, checksum, id, flow label; or nothing",
        ),
        Column("mpls", _TEXT, "labels it arrived under, outermost first, as L=label,E=class,S=last,T=TTL/…"),
        Column("reply_id", _INTEGER, "IPv4 identification of the answer; some routers count with it"),
        Column(
            "clock",
            _CATEGORY,
            "kernel: transmit and receive timestamps; kernel-receive: the latter; user: the process's own",
        ),
        Column(
            "asn", _INTEGER, "number of the AS that announces the address, when looked up in a local file"
        ),
        Column("as_name", _TEXT, "that AS's name"),
    ),
)

PATH_MTU = Schema(
    "path_mtu",
    (
        Column("trace", _TEXT, "id of the call that made the row"),
        Column("host", _TEXT, "name of the host that probed"),
        Column("netns", _INTEGER, "inode of the network namespace it probed from"),
        Column("source_address", _TEXT, "source address of the probes"),
        Column("target", _TEXT, "what was asked for"),
        Column("target_address", _TEXT, "the address that was probed"),
        Column("family", _INTEGER, "4 or 6"),
        Column("protocol", _CATEGORY, "udp or icmp"),
        Column("mtu_bytes", _INTEGER, "largest packet, with its IP header, that passes", "bytes"),
        Column("ttl", _INTEGER, "hop before the limit, 0 for this host; missing where that cannot be told"),
        Column("address", _TEXT, "that hop's address, or who told the limit"),
        Column("told", _CATEGORY, "fragmentation-needed, packet-too-big; silent (a hole); interface (own)"),
        Column("at", _TIME, "when the way was tried"),
    ),
)

PATH_METRICS = Schema(
    "path_metrics",
    (
        Column("metric", _CATEGORY, "name of the gauge: datadog.network_path.path.hops …"),
        Column("value", _REAL, "its value"),
        Column("unit", _CATEGORY, "seconds, hops or paths"),
        Column("tags", _TEXT, "its tags, separated by commas"),
        Column("trace", _TEXT, "trace as in hops"),
        Column("target", _TEXT, "what was asked for"),
        Column("at", _TIME, "when the first probe was sent"),
    ),
)

HOP_STATS = Schema(
    "hop_stats",
    (
        Column("target", _TEXT, "what was asked for"),
        Column("ttl", _INTEGER, "TTL (hop limit) the probes left with"),
        Column("address", _TEXT, "who answered most often; missing when nobody did"),
        Column("name", _TEXT, "that address's name, when looked up"),
        Column("addresses", _INTEGER, "how many different addresses answered"),
        Column("probes", _INTEGER, "how many were sent"),
        Column("answers", _INTEGER, "how many of them were answered"),
        Column("loss", _REAL, "share of probes without an answer, from 0 to 1"),
        Column("loss_low", _REAL, "lower end of its 95 % interval (Wilson)"),
        Column("loss_high", _REAL, "upper end of its 95 % interval"),
        Column("last_ms", _REAL, "round-trip time of the latest answer", "ms"),
        Column("min_ms", _REAL, "smallest round-trip time", "ms"),
        Column("mean_ms", _REAL, "mean round-trip time", "ms"),
        Column("p50_ms", _REAL, "median round-trip time", "ms"),
        Column("p95_ms", _REAL, "95 % of the answers came within this time", "ms"),
        Column("p99_ms", _REAL, "99 % of the answers came within this time", "ms"),
        Column("max_ms", _REAL, "largest round-trip time", "ms"),
        Column("jitter_ms", _REAL, "mean difference between consecutive round-trip times", "ms"),
        Column("first_at", _TIME, "when the first probe was sent"),
        Column("last_at", _TIME, "when the last probe was sent"),
    ),
)

PATH_RUNS = Schema(
    "path_runs",
    (
        Column("target", _TEXT, "what was asked for"),
        Column("flow", _INTEGER, "flow id as in hops"),
        Column("run", _INTEGER, "run as in hops; of several traces of the target, counted through them"),
        Column("at", _TIME, "when the run's first probe was sent"),
        Column("path", _TEXT, "the path's id: a hash of its hops"),
        Column("hops", _TEXT, "the path's addresses by TTL; * where it is not known, or each packet differs"),
        Column("end_ttl", _INTEGER, "the last TTL that was probed on the path"),
        Column("reached", _FLAG, "the destination answered in this run"),
    ),
)

PATH_CHANGES = Schema(
    "path_changes",
    (
        Column("target", _TEXT, "what was asked for"),
        Column("flow", _INTEGER, "flow id as in hops"),
        Column("at", _TIME, "when the first run on the new path began"),
        Column("last_at", _TIME, "when the last probe on the old path was sent"),
        Column("run", _INTEGER, "the first run on the new path"),
        Column(
            "kind",
            _CATEGORY,
            "route, return (to an earlier path), remap (by a load balancer), unknown (of a single flow)",
        ),
        Column("first_ttl", _INTEGER, "the first TTL that has another hop"),
        Column("last_ttl", _INTEGER, "the last TTL that has another hop"),
        Column("before", _TEXT, "the old path's id"),
        Column("after", _TEXT, "the new path's id"),
        Column("hops_before", _TEXT, "the old path's addresses"),
        Column("hops_after", _TEXT, "the new path's addresses"),
    ),
)

VERDICTS = Schema(
    "verdicts",
    (
        Column("target", _TEXT, "what was asked for"),
        Column("ttl", _INTEGER, "TTL (hop limit) the probes left with"),
        Column("address", _TEXT, "who answered most often; missing when nobody did"),
        Column(
            "verdict",
            _CATEGORY,
            "ok, earlier-loss, rate-limited, path-loss, forward-loss, return-loss, mtu-hole, "
            "silent-by-policy, path-changed, unreached, not-enough-data",
        ),
        Column("why", _TEXT, "the verdict's reason in words"),
        Column("probes", _INTEGER, "how many were sent"),
        Column("answers", _INTEGER, "how many of them were answered"),
        Column("loss", _REAL, "share of probes without an answer, from 0 to 1"),
        Column("loss_low", _REAL, "lower end of its 95 % interval (Wilson)"),
        Column("loss_high", _REAL, "upper end of its 95 % interval"),
        Column("later_ttl", _INTEGER, "the later hop that lost least at the same time"),
        Column("later_loss", _REAL, "that hop's loss then"),
        Column("end_loss", _REAL, "the destination's loss; missing when it was never reached"),
        Column("longest_loss", _INTEGER, "most probes lost in a row"),
        Column("spacing_s", _REAL, "median time between consecutive answers' probes", "s"),
        Column("bucket_rate", _REAL, "answers that the fitted token bucket allows", "1/s"),
        Column("bucket_burst", _INTEGER, "answers at once that it allows"),
        Column("bucket_misfit", _REAL, "share of the foretold outcomes that came out otherwise"),
        Column(
            "bucket_evidence",
            _REAL,
            "natural logarithm of how much likelier the bucket makes the outcomes than random loss does",
        ),
        Column("span_s", _REAL, "from the first probe that counts to the last", "s"),
        Column("mtu_bytes", _INTEGER, "largest packet that passes an MTU hole behind the hop", "bytes"),
    ),
)

COMPARISON = Schema(
    "comparison",
    (
        Column("target", _TEXT, "what was asked for"),
        Column("address", _TEXT, "the hop; missing where nothing answered on either side"),
        Column("change", _CATEGORY, "same (TTL), moved, appeared or vanished"),
        Column("ttl_before", _INTEGER, "TTL at which it answered most"),
        Column("ttl_after", _INTEGER, "TTL at which it answered most"),
        Column("rtt_before_ms", _REAL, "median round-trip time", "ms"),
        Column("rtt_after_ms", _REAL, "median round-trip time", "ms"),
        Column("rtt_shift_ms", _REAL, "difference of the medians", "ms"),
        Column("rtt_p", _REAL, "p-value of the Mann-Whitney test that neither side's times are longer"),
        Column("rtt_changed", _FLAG, "the shift is significant, and not below 0.1 ms"),
        Column("loss_before", _REAL, "share of its TTL's probes without an answer, from 0 to 1"),
        Column("loss_after", _REAL, "share of its TTL's probes without an answer, from 0 to 1"),
        Column("loss_p", _REAL, "p-value of Fisher's exact test that both sides lose alike"),
        Column("loss_changed", _FLAG, "the difference is significant"),
        Column("probes_before", _INTEGER, "probes that its TTL got"),
        Column("probes_after", _INTEGER, "probes that its TTL got"),
    ),
)
