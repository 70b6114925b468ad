"""What cannot be right is refused by netlab, with what to do, and not by what it calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import netlab
from netlab.bundle.recording import Recording
from netlab.panels import LiveConntrack
from netlab.schemas import CONNECTIONS, REQUESTS

NAN, NUL = float("nan"), "a\0b"
ROWS = CONNECTIONS.empty()
CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = [
    (netlab.capture, (), {"netns": pd.NA}, "netns <NA> is neither"),
    (netlab.capture, (), {"netns": [pd.NA]}, "netns <NA> is neither"),
    (netlab.capture, (), {"netns": b"443"}, "netns b'443' is neither"),
    (netlab.routes, (), {"netns": pd.NA}, "netns <NA> is neither"),
    (netlab.routes, (), {"netns": np.array([1, 2])}, "is neither"),
    (netlab.routes, (), {"netns": b"443"}, "netns b'443' is neither"),
    (netlab.routes, (), {"family": [4]}, r"family \[4\] is not an address family"),
    (netlab.routes, (), {"family": pd.NA}, "family <NA> is not an address family"),
    (netlab.conntrack_events, (), {"netns": pd.NA}, "netns <NA> is neither"),
    (netlab.conntrack_events, (), {"netns": b"443"}, "netns b'443' is neither"),
    (netlab.concat, (None,), {}, "takes frames, not NoneType"),
    (netlab.concat, (NAN,), {}, "takes frames, not float"),
    (netlab.connect, (5,), {}, "int objects are no file name"),
    (netlab.connect, (b"443",), {}, "bytes objects are no file name"),
    (netlab.connect, (NUL,), {}, "has a NUL in it"),
    (netlab.load, (NUL,), {}, "has a NUL in it"),
    (netlab.save, (NUL, ROWS), {}, "has a NUL in it"),
    (netlab.annotate_pcap, (NUL, ROWS, "o.pcapng"), {}, "has a NUL in it"),
    (netlab.annotate_pcap, (Path("i.pcap"), ROWS, Path(NUL)), {}, "has a NUL in it"),
    (netlab.request_stats, (REQUESTS.empty(),), {"by": [NAN]}, "finds no column 'nan'"),
    (netlab.capture, (), {"protocols": True}, "protocols True is no list"),
    (netlab.capture, (), {"protocols": None}, "protocols None is no list"),
    (netlab.capture, (), {"dns_ports": NAN}, "dns_ports nan is no list"),
    (netlab.capture, (), {"mask_names": 1}, "mask_names 1 is no list"),
    (netlab.capture, (), {"mask": ROWS}, "is no mapping"),
    (netlab.capture, (443,), {}, r"capture\(\) takes its options by name, and 443 has none"),
    (netlab.connect, ("/x",), {"certificate": "pem"}, "comes with its key"),
    (netlab.connect, ("/x",), {"ca": 1}, "int objects are no file name"),
    (netlab.connect, ("/x",), {"token": b"t"}, "the token is text"),
    (netlab.connections, (), {"listening": ROWS}, "is neither True nor False"),
    (netlab.connections, (443,), {}, "by name, and 443 has none"),
    (netlab.connections, (), {"prot": "tcp"}, r"connections\(\) has no option 'prot'"),
    (netlab.conntrack, (), {"netn": "all"}, r"conntrack\(\) has no option 'netn'"),
    (netlab.nat, (), {"dst_port": 80}, r"nat\(\) has no option 'dst_port'"),
    (netlab.path.explain, (ROWS,), {"mtuu": ROWS}, r"explain\(\) has no option 'mtuu'"),
    (Recording, ("recording.netlab", []), {"every": 3}, r"Recording\(\) has no option 'every'"),
    (LiveConntrack, (), {"port": 0}, r"LiveConntrack\(\) has no option 'port'"),
]


@pytest.mark.privileged
@pytest.mark.parametrize(("call", "args", "kwargs", "message"), CALLS)
def test_it_is_refused_with_advice(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(netlab.BadInput, match=message) as caught:
        call(*args, **kwargs)

    assert caught.value.fix
