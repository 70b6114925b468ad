"""A host behind an agent is asked by the same calls: nothing that a function takes gets lost."""

from __future__ import annotations

import inspect
import ipaddress
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import netlab
from netlab.agent import models
from netlab.agent.client import Host
from netlab.agent.signatures import plain, taking

OF_REQUESTS: dict[str, type[BaseModel]] = {
    "capture": models.Asked,
    "connections": models.Listed,
    "conntrack": models.Tracked,
    "conntrack_events": models.Listening,
    "conntrack_stats": models.Spaces,
    "gateway": models.Sent,
    "listeners": models.Waiting,
    "multipath": models.Spreading,
    "nat": models.Tracked,
    "path.path_mtu": models.Sizing,
    "traceroute": models.Probing,
    "translate": models.Packet,
}
FUNCTIONS = [*OF_REQUESTS, "routes"]
ELSEWHERE = {  # in the path of a request, in other units, or of the client's own process
    "gateway": {"destination"},
    "multipath": {"target", "timeout_s", "stop"},
    "path.path_mtu": {"target", "timeout_s", "stop"},
    "traceroute": {"target", "timeout_s", "progress", "stop", "seen"},
}


def function(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = attrgetter(name)(netlab)
    return found


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_host_has_the_signature_of_the_function(name: str) -> None:
    method = parameters(getattr(Host, name.rpartition(".")[2]))
    del method["self"]

    assert method == parameters(function(name))


@pytest.mark.parametrize("name", OF_REQUESTS)
def test_a_request_has_each_parameter_with_the_functions_default(name: str) -> None:
    taken = {key: one.default for key, one in parameters(function(name)).items()}
    told = {key: field.default for key, field in OF_REQUESTS[name].model_fields.items()}
    required = {key for key, one in parameters(function(name)).items() if one.default is one.empty}
    elsewhere = ELSEWHERE.get(name, set()) | required

    assert taken.keys() - told.keys() == ELSEWHERE.get(name, set())
    assert {key: told[key] for key in taken.keys() - elsewhere} == {
        key: taken[key] for key in taken.keys() - elsewhere
    }


def test_only_what_was_given_is_passed_on() -> None:
    class Asking:
        @taking(netlab.conntrack)
        def conntrack(self, asked: dict[str, Any]) -> dict[str, Any]:
            return asked

    assert Asking().conntrack(port=80, family=None) == {"port": 80, "family": None}  # type: ignore[call-arg]
    with pytest.raises(netlab.BadInput, match=r"conntrack\(\) has no option 'prot'\. Did you mean 'port'"):
        Asking().conntrack(prot=80)


def test_arguments_are_sent_as_what_they_mean() -> None:
    network = ipaddress.ip_network("10.0.0.0/8")

    assert plain({"remote": network, "port": range(80, 83)}) == {"remote": "10.0.0.0/8", "port": [80, 81, 82]}
    assert plain({network: ("80", "udp 53")}) == {"10.0.0.0/8": ["80", "udp 53"]}
    with pytest.raises(netlab.BadInput, match="cannot be sent to an agent"):
        plain(object())


def test_one_or_several_are_the_same_to_the_agent() -> None:
    one = models.Asked.model_validate({"netns": "all", "port": 80, "exclude_local": {"*": 22}})
    several = models.Asked.model_validate({"netns": ["a", "12"], "port": [80, 81]})

    assert one.model_dump(exclude_unset=True) == {
        "netns": "all",
        "port": (80,),
        "exclude_local": {"*": (22,)},
    }
    assert several.model_dump(exclude_unset=True) == {"netns": ("a", 12), "port": (80, 81)}


@pytest.mark.parametrize(
    "options",
    [
        {"port": True},
        {"pid": "1"},
        {"events": "no"},
        {"max_closed": True},
        {"duration_s": "5"},
        {"backfill": 1},
    ],
)
def test_the_agent_takes_no_more_of_a_type_than_the_function_does(options: dict[str, Any]) -> None:
    with pytest.raises(netlab.BadInput):
        netlab.capture(**options)
    with pytest.raises(ValidationError):
        models.Asked.model_validate(options)


def test_a_time_may_be_a_whole_number_to_the_agent() -> None:
    assert models.Asked.model_validate({"duration_s": 5}).duration_s == 5.0


@pytest.mark.parametrize(
    "option", [name for name in models.Asked.model_fields if name.startswith("max_")], ids=str
)
def test_no_client_may_have_more_of_the_agents_memory_than_its_part(option: str) -> None:
    with pytest.raises(ValidationError, match="an agent's memory is everybody's"):
        models.Asked.model_validate({option: 1 << 23})
