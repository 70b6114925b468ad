"""Every route of a network namespace, as `ip route show table all` lists them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from netlab import checks
from netlab.frames import Gap, Missing
from netlab.kernel import netlink, netns as namespaces, nexthops, routemessages, rtnetlink, spaces
from netlab.kernel.nlmessages import Dump
from netlab.schemas import ROUTES

_GET_ROUTE = 26
_CLONED = 0x200  # RTM_F_CLONED: a cached exception, not a route

# include/uapi/linux/rtnetlink.h, RTPROT_*.
_PROTOCOLS = {
    0: "unspec",
    1: "redirect",
    2: "kernel",
    3: "boot",
    4: "static",
    8: "gated",
    9: "ra",
    10: "mrt",
    11: "zebra",
    12: "bird",
    13: "dnrouted",
    14: "xorp",
    15: "ntk",
    16: "dhcp",
    17: "mrouted",
    18: "keepalived",
    42: "babel",
    84: "ovn",
    99: "openr",
    186: "bgp",
    187: "isis",
    188: "ospf",
    189: "rip",
    192: "eigrp",
}
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
_PREFERENCES = {0: "medium", 1: "high", 3: "low"}  # RFC 4191, 2.1
_ENCAPSULATIONS = {
    1: "mpls",
    2: "ip",
    3: "ila",
    4: "ip6",
    5: "seg6",
    6: "bpf",
    7: "seg6local",
    8: "rpl",
    9: "ioam6",
    10: "xfrm",
}  # enum lwtunnel_encap_types
_FLAGS = ["dead", "pervasive", "onlink", "offload", "linkdown", "unresolved", "trap"]  # RTNH_F_*, bit 0 on
_COPIED = [
    "family",
    "table",
    "destination",
    "source",
    "gateway",
    "address",
    "metric",
    "weight",
    "nexthop",
    "nexthops",
    "nexthop_id",
    "mtu",
    "tos",
]


@checks.options
def routes(*, netns: namespaces.NetNs = None, family: int | None = None) -> pd.DataFrame:
    """List the routes of every table of a network namespace, or of all.

    Parameters
    ----------
    netns
        A name under /run/netns, a path, a process id, "all", or None, which is the calling thread's
        namespace alone.
    family
        4 or 6; None lists both.

    Returns
    -------
    DataFrame
        One row for each next hop of each route, columns as in `netlab.schemas.ROUTES`.

    Raises
    ------
    BadInput
        If there is no such namespace or family.
    CapabilityError
        Without CAP_SYS_ADMIN, for another namespace than the own one.

    Notes
    -----
    An RTM_GETROUTE dump (rtnetlink(7)); routes learned for one destination only, by redirects or path MTU
    discovery, are not in it: `netlab.gateway()` takes them into account.

    Examples
    --------
    >>> import netlab
    >>> table = netlab.routes(family=4)
    >>> table.columns[:4].tolist()
    ['netns', 'family', 'table', 'type']
    """
    version = checks.family(family)
    families = list(rtnetlink.FAMILIES) if version is None else [version]
    answers = spaces.ask(netns, lambda: _told(families))
    told = list(answers.by_inode.values())
    parts = [_decoded(told, family) for family in families]
    found = pd.concat([found for found, _ in parts]).sort_values("asked", kind="stable", ignore_index=True)
    found = found.assign(netns=np.array(list(answers.by_inode))[found["asked"]])
    interrupted = [_INTERRUPTED] if any(torn for _, torn in parts) else []
    return _frame(found, [*answers.missing, *interrupted])


_INTERRUPTED = Missing(
    "routes",
    Gap.APPROXIMATE,
    None,
    "the tables changed while they were read: a route may be missing or twice",
)


@dataclass(frozen=True, slots=True)
class _Told:
    """What the kernel said of one namespace; it is read together with what it said of the others."""

    dumps: dict[int, Dump]  # by family
    interfaces: dict[int, str]
    objects: nexthops.Objects


def _told(families: list[int]) -> _Told:
    """Ask for the routes of the calling thread's namespace, and for what they name by number."""
    dumps, known = {}, {}
    with netlink.opened(rtnetlink.ROUTE) as kernel:
        for family in families:
            body = bytes([rtnetlink.FAMILIES[family]]).ljust(routemessages.BODY.itemsize, b"\0")
            dumps[family] = netlink.dump_over(kernel, _GET_ROUTE, body, doing="list routes").copied()
        if any(map(routemessages.names_objects, dumps.values())):
            known = nexthops.objects(kernel)
        names = {index: link.name for index, link in rtnetlink.links(kernel).items()}
    return _Told(dumps, names, known)


def _decoded(told: list[_Told], family: int) -> tuple[pd.DataFrame, bool]:
    """Return the routes of all namespaces, and whether they changed under a dump.

    `asked` is the namespace's place in *told*.
    """
    dump = Dump.joined([one.dumps[family] for one in told])
    asked = np.repeat(np.arange(len(told)), [len(one.dumps[family]) for one in told])
    found = routemessages.decoded(dump, family)
    found = found.assign(asked=asked[found["row"]], family=family)
    torn = dump.interrupted
    bare = found.loc[nexthops.is_bare(found), ["asked", "nexthop_id"]]
    for place in bare["asked"].unique().tolist():
        theirs, known = found["asked"] == place, told[place].objects
        found = pd.concat([found[~theirs], nexthops.spelt_out(found[theirs], known)])
        torn |= not bare.loc[bare["asked"] == place, "nexthop_id"].isin(list(known)).all()
    found = found[(found["message_flags"] & _CLONED) == 0].sort_values(["row", "nexthop"], kind="stable")
    names = {
        place << 32 | index: name for place, one in enumerate(told) for index, name in one.interfaces.items()
    }
    numbers = found["asked"] * 2**32 + found["index"]
    return found.assign(interface=numbers.map(names).astype("string")), torn


def _frame(found: pd.DataFrame, missing: list[Missing]) -> pd.DataFrame:
    data = {name: found[name].array for name in ("netns", "interface", *_COPIED)}
    for name, words in (
        ("type", routemessages.TYPES),
        ("protocol", _PROTOCOLS),
        ("scope", _SCOPES),
        ("preference", _PREFERENCES),
        ("encap", _ENCAPSULATIONS),
    ):
        data[name] = _named(found[name], words)
    data["flags"] = _flag_names(found["flags"])
    data["source"] = found["source"].mask(found["source"].isin(["0.0.0.0/0", "::/0"])).array
    return ROUTES.frame(data, missing)


def _named(numbers: pd.Series, words: dict[int, str]) -> pd.Categorical[str]:
    """Name every distinct number once; one without a name is its own."""
    codes, distinct = pd.factorize(numbers)
    return pd.Categorical.from_codes(
        codes, pd.Index([words.get(int(number), str(number)) for number in distinct], dtype="str")
    )


def _flag_names(bits: pd.Series) -> pd.Categorical[str]:
    known = {
        number: "|".join(name for bit, name in enumerate(_FLAGS) if number >> bit & 1)
        for number in map(int, np.unique(bits[bits > 0]))
    }
    return _named(bits.mask(bits == 0), known)
