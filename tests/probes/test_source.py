"""What the C of a probe declares, and what is compiled instead of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from netlab.errors import BadInput, CapabilityError
from netlab.kernel import capabilities
from netlab.probes.hooks import Hook, Kind
from netlab.probes.source import read

RUNS = "RAW_TRACEPOINT_PROBE(sys_enter) { return 0; }\n"


def compiled(text: str) -> str:
    """Return what became of the text itself."""
    return read(text).compiled.split('#line 1 "netlab"')[0].removeprefix('#line 1 "cell"\n')


def test_structs_outputs_and_hooks_are_found() -> None:
    source = read(
        """
        struct event { u32 pid; __be16 port, other[2]; };
        typedef struct { u64 at; } moment_t;
        BPF_RINGBUF_OUTPUT(events, 16);
        BPF_HISTOGRAM(sizes);
        static int helper(void) { return 0; }
        int raw_tracepoint__sys_enter(void *ctx) { sizes.increment(bpf_log2l(9)); return 0; }
        """
    )

    assert [(each.type, sorted(each.network_order)) for each in source.structs] == [
        ("struct event", ["other", "port"]),
        ("moment_t", []),
    ]
    assert (source.rings, source.histograms, source.logarithmic) == (("events",), {"sizes"}, True)
    assert source.hooks == (Hook("raw_tracepoint__sys_enter", Kind.RAW_TRACEPOINT, "sys_enter"),)


def test_what_is_in_network_order_is_told_by_its_path() -> None:
    source = read(
        """
        typedef __be16 port_t;
        struct inner { port_t port; u16 plain; };
        typedef struct { struct inner near, far[2]; struct { __be32 word; u32 port; } own; } pair_t;
        struct outer { u32 word; pair_t pair; struct { const __be64 id; }; union { __be16 a; u16 b; } it; };
        BPF_HASH(ports, __be16);
        BPF_HASH(last, u32, port_t, (1 << 4));
        BPF_ARRAY(words, __be32, 4);
        BPF_TABLE("lru_hash", u64, __be64, recent, 10);
        """
        + RUNS
    )

    assert [sorted(each.network_order) for each in source.structs] == [
        ["port"],
        ["far.port", "near.port", "own.word"],
        ["id", "it.a", "pair.far.port", "pair.near.port", "pair.own.word"],
    ]
    assert source.swapped_maps == {("ports", "key"), ("last", "leaf"), ("words", "leaf"), ("recent", "leaf")}


def test_a_macro_that_stands_for_a_type_in_network_order_is_refused() -> None:
    with pytest.raises(BadInput, match="line 2: netlab does not see where this macro puts a __be16"):
        read(f"\n#define PORT __be16\nstruct event {{ PORT port; }};\n{RUNS}")
    assert read(f"#define AS_PORT(x) ((__be16)(x))\n{RUNS}").hooks


@pytest.mark.parametrize(
    "hidden", ["// BPF_PERF_OUTPUT(old);", "/* BPF_PERF_OUTPUT(old); */", 'char *s = "BPF_PERF_OUTPUT(old)";']
)
def test_what_is_commented_out_or_quoted_is_no_output(hidden: str) -> None:
    source = read(f"{hidden}\n{RUNS}")

    assert source.rings == ()
    assert hidden in source.compiled


def test_a_perf_buffer_becomes_a_ring_buffer_whose_refusals_are_counted() -> None:
    text = f"BPF_PERF_OUTPUT(events);\nint helper;\n{RUNS}".replace(
        "return 0", "events.perf_submit(ctx, &f(a, b), sizeof(a))"
    )

    assert "BPF_RINGBUF_OUTPUT(events, 256);" in compiled(text)
    assert "{ netlab_sent(0, events.ringbuf_output( &f(a, b), sizeof(a), 0)); }" in compiled(text)


def test_each_ring_buffer_counts_for_itself() -> None:
    text = "BPF_RINGBUF_OUTPUT(a, 1); BPF_RINGBUF_OUTPUT(b, 1);" + RUNS.replace(
        "return 0", "x = b.ringbuf_reserve(8); a.ringbuf_output(x, 8, 0)"
    )

    assert (
        "x = netlab_reserved(1, b.ringbuf_reserve(8)); netlab_sent(0, a.ringbuf_output(x, 8, 0));"
        in compiled(text)
    )


def test_the_kernels_headers_are_left_out_and_bccs_are_kept() -> None:
    text = f"#include <net/sock.h>\n#include <bcc/proto.h>\n{RUNS}"

    assert compiled(text).startswith("\n#include <bcc/proto.h>\n")


def test_what_a_deciding_function_returns_is_ignored() -> None:
    source = read(
        "int\ncgroup__inet_egress(struct __sk_buff *skb) { return 0; }\n"
        "int socket__all(struct __sk_buff *s) { return 1; }"
    )

    assert "static inline int\ncgroup__inet_egress" in source.compiled
    assert (
        "int netlab_cgroup__inet_egress(struct __sk_buff *skb) { cgroup__inet_egress(skb); return 1; }"
        in source.compiled
    )
    assert "int netlab_socket__all(struct __sk_buff *s) { socket__all(s); return 0; }" in source.compiled


@given(st.text(alphabet="{}();#\"'/*\\\n ,.abBPF_struct", max_size=200))
def test_any_text_is_read_or_refused_and_keeps_its_lines(text: str) -> None:
    whole = f"{text}\n;}}}}}}\n{RUNS}"
    try:
        result = compiled(whole)
    except (BadInput, CapabilityError):
        return

    assert result.count("\n") == whole.count("\n") + 1


@given(
    st.lists(
        st.sampled_from(["ctx", "&event", "f(a, b)", "sizeof(event)", "(u32)x", "\n ctx"]),
        min_size=3,
        max_size=3,
    )
)
def test_a_call_keeps_its_arguments_and_its_lines(words: list[str]) -> None:
    text = f"BPF_PERF_OUTPUT(events);\n{RUNS}".replace("return 0", f"events.perf_submit({','.join(words)})")

    result = compiled(text)

    assert result.count("\n") == text.count("\n") + 1
    assert f"{words[1]},{words[2]}, 0))" in result


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "runs anywhere"),
        ("static int helper(void) { return 0; }", "runs anywhere"),
        ("int somewhere(void *ctx) { return 0; }", "does not say where"),
        ("int uprobe__c(void *ctx) { return 0; }", "only half"),
        ("int cgroup__inet_ingres(void *ctx) { return 0; }", "Did you mean 'inet_ingress'"),
        (f'{RUNS}static void f(void) {{\n bpf_trace_printk("x"); }}', "line 3: netlab does not read bpf"),
        ("KFUNC_PROBE(tcp_connect) { return 0; }", "does not read KFUNC_PROBE"),
    ],
)  # fmt: skip
def test_what_is_no_probe_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        read(text)


def test_a_kprobe_is_refused_where_the_kernel_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(capabilities, "_KPROBE_PMU", tmp_path / "none")

    with pytest.raises(CapabilityError, match=r"no kprobes.*raw_tracepoint__EVENT"):
        read("int kprobe__tcp_connect(struct pt_regs *ctx) { return 0; }")
