"""What the endpoints take and give besides frames: typed, bounded, and so described in OpenAPI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
)

from netlab.tracer.limits import DEFAULTS


def _number(word: str | None) -> str | int | None:
    """Return the number that digits are: a process id for a namespace, a protocol by its number."""
    return int(word) if word and word.isascii() and word.isdecimal() else word


def _family(version: int | None) -> int | None:
    if version not in {None, 4, 6}:
        raise ValueError("IP has the versions 4 or 6")
    return version


Name = Annotated[str, Query(min_length=1, max_length=64, description="the client's own name")]
Answer = Annotated[int | None, Query(ge=0, description="the number of the last answer that arrived")]
Netns = Annotated[
    str | None,
    Query(max_length=4096, description="a name under /run/netns, a path, a process id, or all"),
    AfterValidator(_number),
]
Port = Annotated[int | None, Query(ge=1, le=65535)]
Family = Annotated[
    int | None,
    Query(description="of IP; both by default", json_schema_extra={"enum": [4, 6]}),
    AfterValidator(_family),
]


Spoken = Literal["http", "http2", "grpc", "kafka", "postgres", "redis", "tls"]


def _listed(value: Any) -> Any:
    """Return what is one or several as several."""
    return [value] if isinstance(value, str | int) else value


def _alone(several: Sequence[Any] | None) -> Any:
    """Return the only one of *several* as such."""
    return several[0] if several and len(several) == 1 else several


def _flag(word: Any) -> Any:
    """Return what a word of a query stands for where yes and no are possible, too."""
    return {"true": True, "false": False}.get(word, word)


def _most(most: int) -> AfterValidator:
    """Return what refuses a number that one client may not have."""

    def bounded(value: int) -> int:
        if value > most:
            raise ValueError(f"an agent's memory is everybody's: it keeps {most} for one client at the most")
        return value

    return AfterValidator(bounded)


def _sealed(value: bool) -> bool:  # noqa: FBT001 - pydantic calls it
    """Refuse to read what processes encrypt: those whose it is trust root with it, and nobody else."""
    if value:
        raise ValueError(
            "an agent does not show its clients what others encrypt: run netlab.capture() as root"
        )
    return value


Several = BeforeValidator(_listed)
Space = Annotated[
    Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_number)] | StrictInt,
    Field(description="a name under /run/netns, a path, a process id, or an inode"),
]
Number = Annotated[StrictInt, Field(ge=1, le=65535)]
Net = Annotated[str, Field(max_length=64)]
Rule = Annotated[str, Field(max_length=1000)]
Excluded = dict[Net, Annotated[tuple[Annotated[str, Field(max_length=32)] | StrictInt, ...], Several]]


class Asked(BaseModel):
    """The options of a capture: those of `netlab.capture()`, in bounds that an agent for many can keep to."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["ebpf", "poll"] = "ebpf"
    duration_s: Annotated[StrictFloat, Field(gt=0, le=86_400)] | None = None
    port: Annotated[tuple[Number, ...], Several] | None = None
    pid: Annotated[tuple[Annotated[StrictInt, Field(ge=1, le=1 << 22)], ...], Several] | None = None
    process: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=15)], ...], Several] | None = None
    remote: Annotated[tuple[Net, ...], Several] | None = None
    local: Annotated[tuple[Net, ...], Several] | None = None
    protocol: Literal["tcp", "udp"] | None = None
    netns: Annotated[tuple[Space, ...] | Literal["all"] | None, Several, AfterValidator(_alone)] = "all"
    direction: Literal["outgoing", "incoming"] | None = None
    exclude_remote: Excluded | None = None
    exclude_local: Excluded | None = None
    backfill: StrictBool = True
    events: StrictBool = False
    drops: StrictBool = False
    protocols: Annotated[tuple[Spoken | Literal["dns"], ...], Several] = ()
    dns_ports: Annotated[tuple[Number, ...], Several] = (53, 5353, 5355)
    dns_timeout_s: Annotated[StrictFloat, Field(gt=0, le=3600)] = 15.0
    mask: Annotated[dict[Rule, Rule], Field(max_length=64)] | None = None
    mask_names: Annotated[tuple[Annotated[str, Field(max_length=255)], ...], Several] = ()
    nat: StrictBool | Space = True
    clear_text: Annotated[StrictBool, AfterValidator(_sealed)] = False
    cost: StrictBool = False
    client_expiry_s: Annotated[StrictFloat, Field(gt=0, le=3600)] = 120.0
    poll_every_s: Annotated[StrictFloat, Field(ge=0.1, le=3600)] = 0.5
    max_open: Annotated[StrictInt, Field(ge=1), _most(1 << 18)] = DEFAULTS.max_open
    max_closed: Annotated[StrictInt, Field(ge=1), _most(1_000_000)] = DEFAULTS.max_closed
    max_processes: Annotated[StrictInt, Field(ge=1), _most(1 << 16)] = DEFAULTS.max_processes
    max_drops: Annotated[StrictInt, Field(ge=1), _most(1 << 16)] = DEFAULTS.max_drops
    max_nat: Annotated[StrictInt, Field(ge=1), _most(1_000_000)] = DEFAULTS.max_nat
    max_requests: Annotated[StrictInt, Field(ge=1), _most(200_000)] = DEFAULTS.max_requests


class Timed(BaseModel):
    """What all that probe are told; the time in milliseconds."""

    model_config = ConfigDict(extra="forbid")

    port: Port = None
    family: Family = None
    max_ttl: Annotated[int, Field(ge=1, le=255)] = 30
    timeout_ms: Annotated[int, Field(ge=1, le=60_000)] = 1000
    source_port: Port = None
    netns: Netns = None


class Probing(Timed):
    """The options of a trace: those of `netlab.traceroute()`."""

    protocol: Literal["udp", "tcp", "icmp", "tcp-sack"] = "udp"
    first_ttl: Annotated[int, Field(ge=1, le=255)] = 1
    queries: Annotated[int, Field(ge=1, le=100)] = 3
    runs: Annotated[int, Field(ge=1, le=100)] = 1
    dscp: Annotated[int, Field(ge=0, le=63)] = 0
    ecn: Annotated[int, Field(ge=0, le=3)] = 0
    packets_per_s: Annotated[int, Field(ge=1, le=10_000)] = 1000
    method: Literal["auto", "raw", "unprivileged"] = "auto"
    resolve: bool = False


class Spreading(Timed):
    """The options of `netlab.multipath()`."""

    strategy: Literal["mda", "dublin"] = "mda"
    confidence: Annotated[float, Field(ge=0.5, le=0.9999)] | None = None
    flows: Annotated[int, Field(ge=1, le=2000)] | None = None
    neighbours: Annotated[tuple[Annotated[str, Field(max_length=255)], ...], Field(max_length=64)] = ()
    protocol: Literal["udp", "tcp", "icmp"] = "udp"
    first_ttl: Annotated[int, Field(ge=1, le=255)] = 1
    packets_per_s: Annotated[int, Field(ge=1, le=10_000)] = 1000
    resolve: bool = False


class Sizing(Timed):
    """The options of `netlab.path.path_mtu()`."""

    protocol: Literal["icmp", "udp"] = "icmp"


class Waiting(BaseModel):
    """The filters of `netlab.listeners()`."""

    model_config = ConfigDict(extra="forbid")

    protocol: Literal["tcp", "udp"] | None = None
    port: Port = None
    pid: Annotated[int | None, Field(ge=1, le=1 << 22)] = None
    process: Annotated[str | None, Field(min_length=1, max_length=15)] = None
    netns: Netns = None


class Listed(Waiting):
    """The filters of `netlab.connections()`."""

    state: Annotated[str | None, Field(max_length=32)] = None
    listening: bool = False
    nat: Annotated[bool | Space, BeforeValidator(_flag)] = False


class Sent(BaseModel):
    """What `netlab.gateway()` is told of packets besides where they go."""

    model_config = ConfigDict(extra="forbid")

    source: Net | None = None
    mark: Annotated[int | None, Field(ge=0, le=(1 << 32) - 1)] = None
    interface: Annotated[str | None, Field(min_length=1, max_length=15)] = None
    uid: Annotated[int | None, Field(ge=0, le=(1 << 32) - 2)] = None
    netns: Netns = None


class Spaces(BaseModel):
    """In which network namespaces to look."""

    model_config = ConfigDict(extra="forbid")

    netns: Annotated[list[Space] | None, AfterValidator(_alone)] = None


class Tracked(Spaces):
    """The filters of `netlab.conntrack()`."""

    family: Family = None
    protocol: Annotated[str | None, Field(max_length=32), AfterValidator(_number)] = None
    address: Annotated[str, Field(max_length=64)] | None = None
    port: Port = None
    src: Annotated[str, Field(max_length=64)] | None = None
    sport: Port = None
    dst: Annotated[str, Field(max_length=64)] | None = None
    dport: Port = None
    mark: Annotated[str, Field(max_length=32)] | None = None
    zone: Annotated[int, Field(ge=0, le=65535)] | None = None
    status: list[Annotated[str, Field(max_length=32)]] | None = None


class Packet(BaseModel):
    """The packet that `netlab.translate()` is asked about."""

    model_config = ConfigDict(extra="forbid")

    protocol: Annotated[str, Field(min_length=1, max_length=32), AfterValidator(_number)]
    src: Net
    sport: Annotated[int, Field(ge=0, le=65535)]
    dst: Net
    dport: Port = None
    zone: Annotated[int, Field(ge=0, le=65535)] = 0
    netns: Netns = None


class Listening(BaseModel):
    """The options of `netlab.conntrack_events()`."""

    model_config = ConfigDict(extra="forbid")

    netns: Annotated[list[Space] | None, Several, AfterValidator(_alone)] = None
    most_bytes: Annotated[StrictInt, Field(ge=1), _most(1 << 30)] = 1 << 30


class Account(BaseModel):
    """How far a client's account is: the number of its last answer, and of which capture."""

    client: str
    generation: str
    answer: int

    def headers(self) -> dict[str, str]:
        """Return what is told beside a frame."""
        return {"Netlab-Generation": self.generation, "Netlab-Answer": str(self.answer)}


class State(BaseModel):
    """One capture."""

    name: str
    state: str
    options: dict[str, Any]


class ListenerState(State):
    """One listener for conntrack entries: where it is in its life, and in which namespaces (by inode)."""

    namespaces: list[int]


class Fills(BaseModel):
    """How full the conntrack tables are, and which did not tell."""

    levels: list[dict[str, int]]
    coverage: list[dict[str, Any]]


class Health(BaseModel):
    """Whether the agent works."""

    status: Literal["ok"]
    version: str
    uptime_s: float
