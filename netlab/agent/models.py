"""What the endpoints take and give besides frames: typed, bounded, and so described in OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field


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


class Asked(BaseModel):
    """The options of a capture: those of `netlab.capture()` that make sense from afar."""

    model_config = ConfigDict(extra="forbid")

    port: list[Annotated[int, Field(ge=1, le=65535)]] | None = None
    pid: list[Annotated[int, Field(ge=1, le=1 << 22)]] | None = None
    process: list[Annotated[str, Field(min_length=1, max_length=15)]] | None = None
    remote: list[Annotated[str, Field(max_length=64)]] | None = None
    local: list[Annotated[str, Field(max_length=64)]] | None = None
    protocol: Literal["tcp", "udp"] | None = None
    netns: Annotated[str, Field(max_length=4096), AfterValidator(_number)] = "all"
    direction: Literal["outgoing", "incoming"] | None = None
    duration_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    backfill: bool = True
    events: bool = False
    drops: bool = False
    protocols: list[Spoken | Literal["dns"]] | None = None
    dns_ports: list[Annotated[int, Field(ge=1, le=65535)]] | None = None
    dns_timeout_s: Annotated[float, Field(gt=0, le=3600)] | None = None
    mask_names: list[Annotated[str, Field(max_length=255)]] | None = None
    cost: bool = False
    client_expiry_s: Annotated[float, Field(gt=0, le=3600)] = 120.0


class Probing(BaseModel):
    """The options of a trace: those of `netlab.traceroute()`, the time in milliseconds."""

    model_config = ConfigDict(extra="forbid")

    protocol: Literal["udp", "tcp", "icmp", "tcp-sack"] = "udp"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    family: Family = None
    first_ttl: Annotated[int, Field(ge=1, le=255)] = 1
    max_ttl: Annotated[int, Field(ge=1, le=255)] = 30
    queries: Annotated[int, Field(ge=1, le=100)] = 3
    timeout_ms: Annotated[int, Field(ge=1, le=60_000)] = 1000
    source_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    dscp: Annotated[int, Field(ge=0, le=63)] = 0
    ecn: Annotated[int, Field(ge=0, le=3)] = 0
    netns: Netns = None
    resolve: bool = False


class Tracked(BaseModel):
    """The filters of `netlab.conntrack()`."""

    model_config = ConfigDict(extra="forbid")

    netns: Netns = None
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


class Health(BaseModel):
    """Whether the agent works."""

    status: Literal["ok"]
    version: str
    uptime_s: float
