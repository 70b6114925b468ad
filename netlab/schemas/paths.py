"""Which way packets go, beyond this host. Data only."""

from __future__ import annotations

from netlab.frames import Column, Schema
from netlab.schemas.kinds import CATEGORY, FLAG, INTEGER, REAL, TEXT, TIME

HOPS = Schema(
    "hops",
    (
        Column("target", TEXT, "what was asked for"),
        Column("run", INTEGER, "repetition of the whole trace, from 0"),
        Column("flow", INTEGER, "flow id: probes of one flow share addresses, ports and flow label"),
        Column("ttl", INTEGER, "TTL (hop limit) the probe left with"),
        Column("attempt", INTEGER, "repetition of this TTL within the run, from 0"),
        Column("address", TEXT, "who answered; missing when nobody did"),
        Column("name", TEXT, "the answering address's name, when looked up"),
        Column("rtt_ms", REAL, "from sending the probe to receiving the answer", "ms"),
        Column("reply", CATEGORY, "time-exceeded, port-unreachable, syn-ack, rst …; missing = no answer"),
        Column("reached", FLAG, "the answer came from the destination itself, judged by its type"),
        Column("target_address", TEXT, "the address that was probed"),
        Column("family", INTEGER, "4 or 6"),
        Column("source_port", INTEGER, "source port of the probe; icmp has none"),
        Column("method", CATEGORY, "how it was probed: raw or unprivileged"),
        Column("reply_ttl", INTEGER, "TTL of the answer when it arrived"),
        Column(
            "return_hops", INTEGER, "how many hops away the answer started, if with a TTL of 64, 128 or 255"
        ),
        Column("dscp", INTEGER, "service class that the probe left with"),
        Column("ecn", INTEGER, "ECN bits that the probe left with"),
        Column("quoted_ttl", INTEGER, "TTL of the probe where it ended; this and the next four as quoted"),
        Column("quoted_dscp", INTEGER, "its service class there"),
        Column("quoted_ecn", INTEGER, "its ECN bits there"),
        Column(
            "rewritten",
            TEXT,
            "what of it had changed: source, source port, identifier, checksum, id, flow label; or nothing",
        ),
        Column("mpls", TEXT, "labels it arrived under, outermost first, as L=label,E=class,S=last,T=TTL/…"),
        Column("reply_id", INTEGER, "IPv4 identification of the answer; some routers count with it"),
        Column(
            "clock",
            CATEGORY,
            "kernel: transmit and receive timestamps; kernel-receive: the latter; user: the process's own",
        ),
        Column("asn", INTEGER, "number of the AS that announces the address, when looked up in a local file"),
        Column("as_name", TEXT, "that AS's name"),
        Column("trace", TEXT, "id of the call that made the row: tells repetitions by the same flow apart"),
        Column("host", TEXT, "name of the host that probed"),
        Column("netns", INTEGER, "inode of the network namespace it probed from"),
        Column("source_address", TEXT, "source address of the probe"),
        Column("gateway", TEXT, "next hop the probes left for; missing where the target is on the link"),
        Column("interface", TEXT, "interface they left by"),
        Column("protocol", CATEGORY, "udp, tcp, tcp-sack or icmp"),
        Column("port", INTEGER, "destination port of the probe; icmp has none"),
        Column("sent_at", TIME, "when the probe was sent"),
        Column("error", TEXT, "why this target could not be probed; such a row has no probe"),
    ),
)

PATH_MTU = Schema(
    "path_mtu",
    (
        Column("trace", TEXT, "id of the call that made the row"),
        Column("host", TEXT, "name of the host that probed"),
        Column("netns", INTEGER, "inode of the network namespace it probed from"),
        Column("source_address", TEXT, "source address of the probes"),
        Column("target", TEXT, "what was asked for"),
        Column("target_address", TEXT, "the address that was probed"),
        Column("family", INTEGER, "4 or 6"),
        Column("protocol", CATEGORY, "udp or icmp"),
        Column("mtu_bytes", INTEGER, "largest packet, with its IP header, that passes", "bytes"),
        Column("ttl", INTEGER, "hop before the limit, 0 for this host; missing where that cannot be told"),
        Column("address", TEXT, "that hop's address, or who told the limit"),
        Column("told", CATEGORY, "fragmentation-needed, packet-too-big; silent (a hole); interface (own)"),
        Column("at", TIME, "when the way was tried"),
    ),
)

PATH_METRICS = Schema(
    "path_metrics",
    (
        Column("metric", CATEGORY, "name of the gauge: datadog.network_path.path.hops …"),
        Column("value", REAL, "its value"),
        Column("unit", CATEGORY, "seconds, hops or paths"),
        Column("tags", TEXT, "its tags, separated by commas"),
        Column("trace", TEXT, "trace as in hops"),
        Column("target", TEXT, "what was asked for"),
        Column("at", TIME, "when the first probe was sent"),
    ),
)

HOP_STATS = Schema(
    "hop_stats",
    (
        Column("target", TEXT, "what was asked for"),
        Column("ttl", INTEGER, "TTL (hop limit) the probes left with"),
        Column("address", TEXT, "who answered most often; missing when nobody did"),
        Column("name", TEXT, "that address's name, when looked up"),
        Column("addresses", INTEGER, "how many different addresses answered"),
        Column("probes", INTEGER, "how many were sent"),
        Column("answers", INTEGER, "how many of them were answered, at the end not counting rejections"),
        Column("loss", REAL, "share of probes without an answer, at the end also of rejected ones: 0 to 1"),
        Column("loss_low", REAL, "lower end of its 95 % interval (Wilson)"),
        Column("loss_high", REAL, "upper end of its 95 % interval"),
        Column("last_ms", REAL, "round-trip time of the latest answer", "ms"),
        Column("min_ms", REAL, "smallest round-trip time", "ms"),
        Column("mean_ms", REAL, "mean round-trip time", "ms"),
        Column("p50_ms", REAL, "median round-trip time", "ms"),
        Column("p95_ms", REAL, "95 % of the answers came within this time", "ms"),
        Column("p99_ms", REAL, "99 % of the answers came within this time", "ms"),
        Column("max_ms", REAL, "largest round-trip time", "ms"),
        Column("jitter_ms", REAL, "mean difference between consecutive round-trip times", "ms"),
        Column("first_at", TIME, "when the first probe was sent"),
        Column("last_at", TIME, "when the last probe was sent"),
    ),
)

PATH_RUNS = Schema(
    "path_runs",
    (
        Column("target", TEXT, "what was asked for"),
        Column("flow", INTEGER, "flow id as in hops; of several flows with one id, counted through them"),
        Column("run", INTEGER, "run as in hops; of several traces of the target, counted through them"),
        Column("at", TIME, "when the run's first probe was sent"),
        Column("path", TEXT, "the path's id: a hash of its hops"),
        Column("hops", TEXT, "the path's addresses by TTL; * where it is not known, or each packet differs"),
        Column("end_ttl", INTEGER, "the last TTL that was probed on the path"),
        Column("reached", FLAG, "the destination answered in this run"),
    ),
)

PATH_CHANGES = Schema(
    "path_changes",
    (
        Column("target", TEXT, "what was asked for"),
        Column("flow", INTEGER, "flow id as in path_runs"),
        Column("at", TIME, "when the first run on the new path began"),
        Column("last_at", TIME, "when the last probe on the old path was sent"),
        Column("run", INTEGER, "the first run on the new path"),
        Column(
            "kind",
            CATEGORY,
            "route, return (to an earlier path), remap (by a load balancer), unknown (of a single flow)",
        ),
        Column("first_ttl", INTEGER, "the first TTL that has another hop"),
        Column("last_ttl", INTEGER, "the last TTL that has another hop"),
        Column("before", TEXT, "the old path's id"),
        Column("after", TEXT, "the new path's id"),
        Column("hops_before", TEXT, "the old path's addresses"),
        Column("hops_after", TEXT, "the new path's addresses"),
    ),
)

VERDICTS = Schema(
    "verdicts",
    (
        Column("target", TEXT, "what was asked for"),
        Column("ttl", INTEGER, "TTL (hop limit) the probes left with"),
        Column("address", TEXT, "who answered most often; missing when nobody did"),
        Column(
            "verdict",
            CATEGORY,
            "ok, earlier-loss, rate-limited, path-loss, forward-loss, loop, rejected, return-loss, mtu-hole, "
            "silent-by-policy, path-changed, unreached, not-enough-data",
        ),
        Column("why", TEXT, "the verdict's reason in words"),
        Column("probes", INTEGER, "how many were sent"),
        Column("answers", INTEGER, "how many of them were answered, at the end not counting rejections"),
        Column("loss", REAL, "share of probes without an answer, at the end also of rejected ones: 0 to 1"),
        Column("loss_low", REAL, "lower end of its 95 % interval (Wilson)"),
        Column("loss_high", REAL, "upper end of its 95 % interval"),
        Column("later_ttl", INTEGER, "the later hop that lost least at the same time"),
        Column("later_loss", REAL, "that hop's loss then"),
        Column("end_loss", REAL, "the destination's loss; missing when it was never reached"),
        Column("longest_loss", INTEGER, "most probes lost in a row"),
        Column("spacing_s", REAL, "median time between consecutive answers' probes", "s"),
        Column("bucket_rate", REAL, "answers that the fitted token bucket allows", "1/s"),
        Column("bucket_burst", INTEGER, "answers at once that it allows"),
        Column("bucket_misfit", REAL, "share of the foretold outcomes that came out otherwise"),
        Column(
            "bucket_evidence",
            REAL,
            "natural logarithm of how much likelier the bucket makes the outcomes than random loss does",
        ),
        Column("span_s", REAL, "from the first probe that counts to the last", "s"),
        Column("mtu_bytes", INTEGER, "largest packet that passes an MTU hole behind the hop", "bytes"),
    ),
)

COMPARISON = Schema(
    "comparison",
    (
        Column("target", TEXT, "what was asked for"),
        Column("address", TEXT, "the hop; missing where nothing answered on either side"),
        Column("change", CATEGORY, "same (TTL), moved, appeared or vanished"),
        Column("ttl_before", INTEGER, "TTL at which it answered; one row for each of several"),
        Column("ttl_after", INTEGER, "TTL at which it answered; one row for each of several"),
        Column("rtt_before_ms", REAL, "median round-trip time", "ms"),
        Column("rtt_after_ms", REAL, "median round-trip time", "ms"),
        Column("rtt_shift_ms", REAL, "difference of the medians", "ms"),
        Column("rtt_p", REAL, "p-value of the Mann-Whitney test that neither side's times are longer"),
        Column(
            "rtt_changed", FLAG, "the shift is significant, and at least 0.1 ms; missing: too few answers"
        ),
        Column("loss_before", REAL, "share of its TTL's probes without an answer, from 0 to 1"),
        Column("loss_after", REAL, "share of its TTL's probes without an answer, from 0 to 1"),
        Column("loss_p", REAL, "p-value of Fisher's exact test that both sides lose alike"),
        Column("loss_changed", FLAG, "the difference is significant; missing: too few probes"),
        Column("probes_before", INTEGER, "probes that its TTL got"),
        Column("probes_after", INTEGER, "probes that its TTL got"),
    ),
)
