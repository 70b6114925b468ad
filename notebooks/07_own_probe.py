# %% [markdown]
# # A probe of one's own: who resets the uploads?
#
# Customers' uploads break with *connection reset by peer*. A capture on their side says no more than that,
# the server's log says nothing, and no table of netlab's says which process made its kernel reset. Five
# questions:
#
# 1. How does one ask the kernel?
# 2. Which process resets, and why?
# 3. How much was thrown away?
# 4. Is anything missing?
# 5. What if the C is wrong?
#
# This notebook runs **live** where it may (root on Linux): it builds netlab's practice network in network
# namespaces and lets real `curl` clients upload. Elsewhere it reads a **recording** of such a run. In a real
# incident, leave out the practice network and keep the rest.

# %%
import os
import threading

import pandas as pd
from IPython import get_ipython

import netlab

works = netlab.doctor().set_index("capability")["state"]
needed = ["follow connection attempts (eBPF)", "build a practice network"]
live = "NETLAB_RECORDED" not in os.environ and works[needed].eq("yes").all()

# %% [markdown]
# The customers upload until they are told that it is over.

# %%
over = threading.Event()


def upload_until_over(net: netlab.lab.PracticeNetwork) -> None:
    """Send 100 kB five times a second."""
    command = ["curl", "-s", "-o", "/dev/null", "--data-binary", "@-", f"http://{net.web.address4}/upload"]
    while not over.wait(0.2):
        net.client.run(command, input="x" * 100_000)


if live:
    net = netlab.lab.practice()
    web = net.web.inode
    customers = threading.Thread(target=upload_until_over, args=[net], daemon=True)
    customers.start()

# %% [markdown]
# ## 1. How does one ask the kernel?
#
# With a cell of C. `%load_ext netlab` brings `%%bpf`, which runs such a cell inside the kernel. Where that is
# not allowed, the cell below does nothing here, and its frames are read from where a live run left them.

# %%
# %load_ext netlab

if not live:
    resets, sizes = (pd.read_parquet(f"recordings/own_probe_{name}.parquet") for name in ("resets", "sizes"))
    get_ipython().register_magic_function(lambda *_: None, "cell", "bpf")

# %% [markdown]
# A function runs where its name says: here whenever the kernel sends a TCP reset. A process that closes a
# socket with data in it that it never read makes the kernel do so, and at that moment the current process is
# the one who closes. The ring buffer's records become the frame `resets`, the histogram becomes `sizes`.

# %% tags=["nbval-ignore-output"] magic_args="--seconds 4 resets sizes=unread" language="bpf"
# struct reset {
#     u64 at_ns;
#     u32 pid;
#     u32 netns;
#     u8 remote_address[16];
#     __be16 local_port;
#     u32 unread_bytes;
#     char process[16];
# };
# BPF_RINGBUF_OUTPUT(events, 64);
# BPF_HISTOGRAM(unread);
#
# int raw_tracepoint__tcp_send_reset(struct bpf_raw_tracepoint_args *ctx)
# {
#     struct tcp_sock *tcp = (struct tcp_sock *)ctx->args[0];
#     struct reset e = {.at_ns = bpf_ktime_get_ns(), .pid = bpf_get_current_pid_tgid() >> 32};
#
#     if (!tcp)
#         return 0;  /* no socket: nobody listens there */
#     e.unread_bytes = tcp->rcv_nxt - tcp->copied_seq;
#     if (!e.unread_bytes)
#         return 0;
#     struct sock *sk = (struct sock *)tcp;
#     e.netns = sk->__sk_common.skc_net.net->ns.inum;
#     e.local_port = ((struct inet_sock *)tcp)->inet_sport;
#     bpf_probe_read_kernel(e.remote_address, 16, &sk->__sk_common.skc_v6_daddr);
#     bpf_get_current_comm(e.process, sizeof(e.process));
#     events.ringbuf_output(&e, sizeof(e), 0);
#     unread.increment(bpf_log2l(e.unread_bytes));
#     return 0;
# }

# %% [markdown]
# While it ran, the latest rows were shown; what stands there is the end. The struct's members are columns.
# Some are understood: `at_ns` is a time, `remote_address` an address, a `__be16` becomes this host's number.

# %%
if live:
    over.set()
    customers.join()
    net.close()
    resets = resets[resets["netns"] == web]
print(resets.dtypes.to_string())

# %% [markdown]
# ## 2. Which process resets, and why?

# %% tags=["nbval-ignore-output"]
by = resets.groupby(["process", "pid", "local_port", "remote_address"])
by.agg(resets=("at", "size"), least_unread=("unread_bytes", "min"), most_unread=("unread_bytes", "max"))

# %%
assert len(resets) > 0
assert by.ngroups == 1
assert resets["remote_address"].eq("198.18.1.1").all()
print("senders of resets:", by.ngroups)
print("ports:", resets["local_port"].unique().tolist())

# %% [markdown]
# One process, the web server on port 80. It answers uploads by an error and closes without having read the
# body. TCP then resets, to say that data never reached the program (RFC 2525, section 2.17). The peer is the
# NAT gateway, as which the server sees all its customers ([who is behind
# it](04_nat_and_containers.ipynb)).

# %% [markdown]
# ## 3. How much was thrown away?
#
# A histogram is counted inside the kernel and costs next to nothing, however often it happens. A row holds
# how many resets left between `low` and `high` bytes unread, on the whole host.

# %% tags=["nbval-ignore-output"]
sizes

# %%
assert sizes["count"].sum() >= len(resets)
assert resets["unread_bytes"].median() > 50_000
print("more than half of the 100 kB was not read:", bool(resets["unread_bytes"].median() > 50_000))

# %% [markdown]
# So it is not that the last bytes come too late: the server does not read uploads at all.

# %% [markdown]
# ## 4. Is anything missing?
#
# Records that did not fit into the ring buffer, entries that did not fit into a map, and runs that the kernel
# skipped are counted, as with every frame of netlab's.

# %%
lost = {
    name: int(netlab.coverage(frame)["kind"].eq("lost").sum())
    for name, frame in {"resets": resets, "sizes": sizes}.items()
}
assert not any(lost.values())
lost

# %% [markdown]
# What the probe leaves out itself: resets with nothing unread, as for a port where nobody listens, or for
# what arrives after the close; and it cannot see what a machine elsewhere sends.

# %% [markdown]
# ## 5. What if the C is wrong?
#
# Then nothing runs, and the message has the line in question. (Without privileges it says instead that they
# are missing.)

# %% tags=["nbval-ignore-output"]
MISSPELT = """
int raw_tracepoint__tcp_send_reset(struct bpf_raw_tracepoint_args *ctx)
{
    struct tcp_sock *tcp = (struct tcp_sock *)ctx->args[0];
    return tcp->copied_sequence;
}
"""
refusal = ""
try:
    netlab.probe(MISSPELT).start()
except netlab.NetlabError as error:
    refusal = f"{type(error).__name__}: {error}"
print(refusal)

# %%
assert "line 5" in refusal if live else refusal

# %% [markdown]
# Before writing one: is there a call that answers the question? `%netlab` has the common ones as a line, with
# completion, and `%netlab help trace` says what one takes.

# %%
# %netlab help

# %% [markdown]
# ## What to tell whom
#
# - **Web team**: your server closes uploads unread, on port 80. Read the body, or refuse it by an answer and
#   let the client finish; then customers see the error message instead of a reset.
# - **Network team**: it is neither the NAT nor a firewall.
#
# A probe's columns are its own, so it is no part of a `.netlab` bundle; pandas keeps its frames, coverage
# included:

# %%
if live:
    resets.to_parquet("own_probe_resets.parquet", index=False)
    sizes.to_parquet("own_probe_sizes.parquet", index=False)

# %% [markdown]
# All places where a function can run: [own-probe.md](../docs/howto/own-probe.md). Next:
# [08_post_mortem.ipynb](08_post_mortem.ipynb), an incident from its recording alone.
