"""Probes of one's own, run by the real kernel."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
from programs import alive, held_by, wait_until

import netlab
from netlab.errors import BadInput, CapabilityError, CaptureError, ProgramError
from netlab.kernel import capabilities
from netlab.probes.outputs import Records

CONNECTS = """
struct event { u64 at_ns; u32 pid; __be16 port; u8 remote_address[4]; char process[16]; };
BPF_RINGBUF_OUTPUT(connects, 16);
int cgroup__inet4_connect(struct bpf_sock_addr *ctx) {
    struct event e = {};
    e.at_ns = bpf_ktime_get_ns();
    e.pid = bpf_get_current_pid_tgid() >> 32;
    e.port = ctx->user_port;
    __builtin_memcpy(e.remote_address, (u32[]){ctx->user_ip4}, 4);
    bpf_get_current_comm(e.process, sizeof(e.process));
    connects.ringbuf_output(&e, sizeof(e), 0);
    return 0;
}
"""
FLOOD = """
struct event { u64 number; char filler[100]; };
BPF_RINGBUF_OUTPUT(events, 1);
BPF_ARRAY(sent, u64, 1);
int uprobe__c__getppid(struct pt_regs *ctx) {
    int zero = 0;
    sent.increment(zero);
    SEND
    return 0;
}
"""
OUTPUT = "struct event e = {}; events.ringbuf_output(&e, sizeof(e), 0);"
RESERVE = """
    struct event *e = events.ringbuf_reserve(sizeof(struct event));
    if (!e)
        return 0;
    e->number = 1;
    events.ringbuf_submit(e, 0);
"""

pytestmark = pytest.mark.privileged


def refused(port: int) -> None:
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port))


def own(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["pid"] == os.getpid()]


def test_what_a_program_sends_is_a_typed_frame() -> None:
    before = pd.Timestamp.now("UTC")
    with netlab.probe(CONNECTS) as probe:
        refused(9)
        refused(11)
    after = pd.Timestamp.now("UTC")

    seen = own(probe["connects"])
    assert seen["port"].tolist() == [9, 11]
    assert seen["remote_address"].tolist() == ["127.0.0.1"] * 2
    assert seen["process"].tolist() == [Path("/proc/self/comm").read_text(encoding="ascii").strip()] * 2
    slack = pd.Timedelta(milliseconds=50)  # the two clocks are read one after the other
    assert seen["at"].between(before - slack, after + slack).all()
    assert netlab.coverage(probe["connects"]).empty


def test_a_hook_that_returns_no_does_not_keep_the_host_from_connecting() -> None:
    with netlab.probe(CONNECTS), socket.create_server(("127.0.0.1", 0)) as listener:
        socket.create_connection(listener.getsockname()).close()


def test_rows_can_be_looked_at_while_it_runs() -> None:
    with netlab.probe(CONNECTS) as probe:
        refused(9)
        assert own(probe["connects"])["port"].tolist() == [9]
        refused(11)
        assert own(probe["connects"])["port"].tolist() == [9, 11]
        earlier = len(probe["connects"])
        glance = probe.glance("connects", 1)
        assert len(glance.frame) == 1
        assert earlier <= glance.total <= len(probe["connects"])  # others connect meanwhile


@pytest.mark.parametrize("send", [OUTPUT, RESERVE], ids=["output", "reserve"])
def test_every_record_is_in_the_frame_or_counted_as_lost(send: str) -> None:
    with netlab.probe(FLOOD.replace("SEND", send)) as probe, probe._lock:  # nobody drains
        for _ in range(500):
            os.getppid()

    events, sent = probe["events"], int(probe["sent"]["value"][0])
    gaps = netlab.coverage(events)
    assert sent >= 500
    assert gaps["kind"].tolist() == ["lost"]
    assert len(events) + gaps["count"].sum() == sent


def test_a_signal_handler_that_closes_it_in_the_middle_of_a_look_waits_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame = Records.frame

    def frame_and_signal(records: Records, skipped: int) -> pd.DataFrame:
        signal.raise_signal(signal.SIGUSR1)
        return frame(records, skipped)

    usual = signal.getsignal(signal.SIGUSR1)
    with netlab.probe(CONNECTS) as probe:
        signal.signal(signal.SIGUSR1, lambda *_: probe.close())
        refused(9)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(Records, "frame", frame_and_signal)
                seen = own(probe["connects"])
        finally:
            signal.signal(signal.SIGUSR1, usual)

        refused(9)
        assert len(own(probe["connects"])) == len(seen) == 1


def test_rows_beyond_the_bound_are_counted() -> None:
    with netlab.probe(CONNECTS, max_rows=2) as probe:
        for _ in range(5):
            refused(9)

    gaps = netlab.coverage(probe["connects"])
    assert len(probe["connects"]) == 2
    assert gaps["count"].sum() >= 3
    assert gaps["detail"].tolist() == ["records came after the first 2"]


def test_histograms_hashes_and_per_cpu_maps_agree_on_one_count() -> None:
    text = """
    struct where { __be16 port; };
    BPF_HISTOGRAM(sizes);
    BPF_HASH(ports, struct where, u64);
    BPF_PERCPU_ARRAY(cpus, u64, 1);
    int cgroup__inet4_connect(struct bpf_sock_addr *ctx) {
        if (bpf_get_current_pid_tgid() >> 32 != PID) return 1;
        struct where key = {.port = ctx->user_port};
        int zero = 0;
        ports.increment(key);
        cpus.increment(zero);
        sizes.increment(bpf_log2l(bpf_ntohs(ctx->user_port)));
        return 1;
    }
    """.replace("PID", str(os.getpid()))
    with netlab.probe(text) as probe:
        for port in (9, 11, 1000):
            refused(port)

    sizes = probe["sizes"]
    assert sizes.columns.tolist() == ["slot", "low", "high", "count"]
    assert sizes.to_numpy().tolist() == [[4, 8, 15, 2], [10, 512, 1023, 1]]
    assert sorted(probe["ports"]["port"]) == [9, 11, 1000]
    assert probe["cpus"]["value"].sum() == 3
    assert probe["cpus"]["cpu"].tolist() == list(range(len(probe["cpus"])))


def test_ports_in_network_order_are_the_hosts_wherever_they_are() -> None:
    text = """
    struct end { __be16 port; u16 raw; };
    struct pair { struct end far; u32 port; };
    BPF_HASH(keys, __be16, u64);
    BPF_HASH(values, u32, __be16);
    BPF_HASH(pairs, struct pair, u64);
    int cgroup__inet4_connect(struct bpf_sock_addr *ctx) {
        if (bpf_get_current_pid_tgid() >> 32 != PID) return 1;
        __be16 port = ctx->user_port;
        u32 one = 1;
        struct pair both = {};
        both.far.port = both.far.raw = port;
        both.port = port;
        keys.increment(port);
        values.update(&one, &port);
        pairs.increment(both);
        return 1;
    }
    """.replace("PID", str(os.getpid()))
    with netlab.probe(text) as probe:
        refused(9)

    assert probe["keys"]["key"].tolist() == probe["values"]["value"].tolist() == [9]
    assert probe["pairs"][["far.port", "far.raw", "port"]].to_numpy().tolist() == [[9, 9 << 8, 9 << 8]]


def test_ports_within_a_struct_of_the_kernels_are_the_hosts() -> None:
    text = """
    struct event { u32 pid; struct sockaddr_in to; };
    BPF_RINGBUF_OUTPUT(connects, 8);
    int cgroup__inet4_connect(struct bpf_sock_addr *ctx) {
        if (bpf_get_current_pid_tgid() >> 32 != PID) return 1;
        struct event event = {.pid = PID, .to.sin_port = ctx->user_port};
        connects.ringbuf_output(&event, sizeof(event), 0);
        return 1;
    }
    """.replace("PID", str(os.getpid()))
    with netlab.probe(text) as probe:
        refused(9)

    assert probe["connects"]["to.sin_port"].tolist() == [9]


def test_a_hash_that_is_full_says_so() -> None:
    text = """
    BPF_HASH(ports, u32, u64, 2);
    int cgroup__inet4_connect(struct bpf_sock_addr *ctx) {
        u32 port = ctx->user_port;
        ports.increment(port);
        return 1;
    }
    """
    with netlab.probe(text) as probe:
        for port in (9, 11, 13):
            refused(port)

    assert netlab.coverage(probe["ports"])["kind"].tolist() == ["lost"]


@pytest.mark.parametrize(("keys", "kinds"), [(5, []), (5000, ["approximate"])])
def test_a_map_that_lets_go_of_keys_says_so(keys: int, kinds: list[str]) -> None:
    text = """
    BPF_TABLE("lru_hash", u64, u64, calls, 1000);
    int uprobe__c__getppid(struct pt_regs *ctx) {
        u64 at = bpf_ktime_get_ns(), one = 1;
        if (bpf_get_current_pid_tgid() >> 32 == PID) calls.update(&at, &one);
        return 0;
    }
    """.replace("PID", str(os.getpid()))
    with netlab.probe(text) as probe:
        for _ in range(keys):
            os.getppid()

    calls = probe["calls"]
    assert len(calls) == keys or (len(calls) < keys and kinds)
    assert netlab.coverage(calls)["kind"].tolist() == kinds


def test_a_function_of_a_library_is_seen_with_its_arguments() -> None:
    text = """
    struct event { u32 pid; char name[32]; };
    BPF_PERF_OUTPUT(asked);
    int uprobe__c__getaddrinfo(struct pt_regs *ctx, const char *node) {
        struct event e = {};
        e.pid = bpf_get_current_pid_tgid() >> 32;
        bpf_probe_read_user_str(e.name, sizeof(e.name), node);
        asked.perf_submit(ctx, &e, sizeof(e));
        return 0;
    }
    """
    with netlab.probe(text) as probe:
        socket.getaddrinfo("localhost", 80)

    assert own(probe["asked"])["name"].tolist() == ["localhost"]


def test_the_return_of_a_function_of_a_named_binary_is_seen() -> None:
    libc = re.search(r"\S*/libc\.so\.6", Path("/proc/self/maps").read_text(encoding="utf-8"))
    assert libc is not None
    text = """
    BPF_HASH(returned, u64, u64);
    int uretprobe__mine__getppid(struct pt_regs *ctx) {
        u64 value = PT_REGS_RC(ctx);
        returned.increment(value);
        return 0;
    }
    """
    with netlab.probe(text, binaries={"mine": libc[0]}) as probe:
        parent = os.getppid()

    assert parent in probe["returned"]["key"].tolist()


def test_packets_are_seen_by_a_socket_filter() -> None:
    text = """
    BPF_HASH(lengths, u32, u64);
    int socket__all(struct __sk_buff *skb) { u32 length = skb->len; lengths.increment(length); return 1; }
    """
    with netlab.probe(text) as probe, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(bytes(4321), ("127.0.0.1", 9))

    ethernet, ip, udp = 14, 20, 8
    assert 4321 + ethernet + ip + udp in probe["lengths"]["key"].tolist()


def test_a_tracepoint_is_seen_where_tracefs_is_mounted() -> None:
    script = '''
import subprocess, netlab
text = """
BPF_HASH(execs, u32);
TRACEPOINT_PROBE(sched, sched_process_exec) {
    u32 pid = args->pid;
    execs.increment(pid);
    return 0;
}
"""
with netlab.probe(text) as probe:
    child = subprocess.Popen(["true"])
    child.wait()
print(child.pid in probe["execs"]["key"].tolist())
try:
    netlab.probe("TRACEPOINT_PROBE(sched, sched_proces_exec) { return 0; }")
except netlab.BadInput as error:
    print(error)
'''
    mounted = 'mount -t tracefs tracefs /sys/kernel/tracing && exec "$0" -c "$1"'
    run = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounted, sys.executable, script],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip

    assert run.stdout.splitlines()[0] == "True"
    assert "Did you mean 'sched_process_exec'" in run.stdout


def test_a_tracepoint_without_tracefs_says_how_to_mount_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("netlab.probes.hooks._TRACEFS", (tmp_path,))

    with pytest.raises(CapabilityError, match="mount -t tracefs"):
        netlab.probe("TRACEPOINT_PROBE(sched, sched_process_exec) { return 0; }")


def test_what_does_not_compile_is_told_by_the_texts_own_lines() -> None:
    text = (
        CONNECTS.replace("e.pid =", "e.piid =").replace("#include", "").replace("return 0", "return nothing")
    )

    with pytest.raises(ProgramError) as caught, netlab.probe(text):
        pass

    said = str(caught.value)
    assert "line 7: no member named 'piid' in 'struct event'; did you mean 'pid'?\n    e.piid = bpf" in said
    assert "line 12: use of undeclared identifier 'nothing'" in said


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (("&e, sizeof(e)", "&e.port, sizeof(e.port)"), BadInput, "nothing sends a struct to connects"),
        (("return 0;\n}", "return 0;\n}\nvoid *idle(void *ctx) { return 0; }"), BadInput, "idle is compiled"),
        (("u32 pid;", "u32 pid; u8 grid[2][3];"), BadInput, "arrays of one dimension"),
        (("BPF_RINGBUF", "BPF_QUEUE(l, u64, 8); BPF_RINGBUF"), BadInput, "does not read maps such as l"),
        (("cgroup__inet4_connect", "raw_tracepoint__no_such"), ProgramError, "no_such"),
        (("ctx->user_port;", "*(u16 *)(long)bpf_ktime_get_ns();"), ProgramError, "did not accept"),
    ],
    ids=["no struct", "idle function", "array of arrays", "queue", "no such event", "verifier"],
)  # fmt: skip
def test_a_probe_that_cannot_run_says_why_and_leaves_nothing(
    change: tuple[str, str], error: type[Exception], said: str
) -> None:
    before = held_by(os.getpid())

    with pytest.raises(error, match=said), netlab.probe(CONNECTS.replace(*change)):
        pass

    assert held_by(os.getpid()) == before


def test_two_kinds_of_struct_in_one_ring_buffer_are_not_mixed_up() -> None:
    text = CONNECTS.replace("struct event {", "struct other { u64 a; };\nstruct event {").replace(
        "return 0", "struct other o = {}; connects.ringbuf_output(&o, sizeof(o), 0); return 0"
    )

    with pytest.raises(netlab.KernelError, match="another length"), netlab.probe(text):
        refused(9)


def test_nothing_is_left_behind() -> None:
    def left() -> tuple[int, int, int]:
        return len(held_by(os.getpid())), len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    with netlab.probe(CONNECTS):
        pass
    before = left()
    with pytest.raises(ZeroDivisionError), netlab.probe(CONNECTS) as probe:
        1 / 0  # noqa: B018
    probe.close()

    assert left() == before


def test_a_killed_process_leaves_no_program_attached() -> None:
    script = (
        f"import netlab, time\nprobe = netlab.probe({CONNECTS!r}).start()\nprint(flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        attached = held_by(child.pid)
        child.send_signal(signal.SIGKILL)

    assert attached
    wait_until(lambda: not alive(attached))


def test_a_probe_is_read_after_its_start_and_started_once() -> None:
    probe = netlab.probe(CONNECTS)
    with pytest.raises(CaptureError, match="not been started"):
        probe["connects"]
    probe.close()

    with netlab.probe(CONNECTS) as probe, pytest.raises(CaptureError, match="started before"):
        probe.start()
    with pytest.raises(BadInput, match="Did you mean 'connects'"):
        probe["connect"]


@pytest.mark.parametrize("options", [{"max_row": 1}, {"max_rows": 0}])
def test_bad_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(BadInput):
        netlab.probe(CONNECTS, **options)


def test_without_privileges_it_says_what_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "effective", frozenset)

    with pytest.raises(CapabilityError, match="cannot run an eBPF probe without CAP_BPF"):
        netlab.probe(CONNECTS)


def test_the_numbers_are_those_that_were_packed() -> None:
    text = """
    struct event {
        s8 a; u64 b; s16 c; u8 d[3]; s64 e;
        struct { u16 f; s32 g; } in;
        bool h; u32 saddr; u16 port; char text[5];
        union { u64 whole; u32 half; };
    };
    BPF_PERF_OUTPUT(events);
    int uprobe__c__getppid(struct pt_regs *ctx) {
        struct event x = {
            .a = -5, .b = 1ULL << 63, .c = -300, .d = {1, 2, 3}, .e = -1LL << 62, .in = {65535, -7},
            .h = true, .saddr = 0x0100007f, .port = 80, .text = "<b>", .whole = 1ULL << 32 | 9,
        };
        events.perf_submit(ctx, &x, sizeof(x));
        return 0;
    }
    """
    with netlab.probe(text) as probe:
        os.getppid()

    address = socket.inet_ntoa(struct.pack("=I", 0x0100007F))
    row = probe["events"].iloc[0].to_dict()
    assert row == {
        "a": -5, "b": 1 << 63, "c": -300, "d": [1, 2, 3], "e": -(1 << 62), "in.f": 65535, "in.g": -7,
        "h": True, "saddr": address, "port": 80, "text": "<b>", "whole": 1 << 32 | 9, "half": 9,
    }  # fmt: skip


@pytest.mark.kernels
def test_a_kprobe_runs_where_the_kernel_has_them_and_is_refused_elsewhere() -> None:
    text = """
    BPF_HASH(closed, u32);
    int kprobe__tcp_close(struct pt_regs *ctx) {
        u32 pid = bpf_get_current_pid_tgid() >> 32;
        closed.increment(pid);
        return 0;
    }
    """
    if not capabilities.has_kprobes():
        with pytest.raises(CapabilityError, match="no kprobes"):
            netlab.probe(text)
        return

    with netlab.probe(text) as probe:
        refused(9)

    assert os.getpid() in probe["closed"]["key"].tolist()
