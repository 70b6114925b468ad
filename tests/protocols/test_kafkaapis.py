"""The layouts of Kafka's messages against Kafka's own schemas, as kafka-python ships them."""

from __future__ import annotations

import importlib.resources
import itertools
import warnings
from typing import Any

import pytest

from netlab.protocols.kafkaapis import APIS, Api
from netlab.protocols.kafkafields import Field, compiled

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # how it reads them
    from kafka.protocol.schemas import load_json, resources

    SCHEMAS = {
        path.name.removesuffix(".json"): load_json(path.name.removesuffix(".json"))
        for path in importlib.resources.files(resources).iterdir()
        if path.name.endswith(("Request.json", "Response.json"))
    }

KINDS = {"bool": "b", "int8": "b", "int16": "h", "uint16": "h", "int32": "i", "int64": "l", "uuid": "u"}
KINDS |= {"string": "s", "bytes": "B", "records": "B"}
ROLES = {
    "topic": {"Name", "Topic", "TopicName", "TopicNames"},
    "id": {"TopicId"},
    "partition": {"Partition", "PartitionIndex", "Index"},
    "error": {"ErrorCode", "PartitionErrorCode"},
    "records": {"Records"},
    "acks": {"Acks"},
}


def has(versions: str, version: int) -> bool:
    first, _, last = versions.replace("+", "-").partition("-")
    return first.isdigit() and int(first) <= version <= int(last or (999 if versions != first else first))


def known(name: str) -> tuple[Api, str]:
    api = APIS[SCHEMAS[name]["apiKey"]]
    return api, api.request if name.endswith("Request") else api.response


def present(fields: list[dict[str, Any]], version: int) -> list[dict[str, Any]]:
    """Return the fields that a message of *version* has, but for those that are tagged."""
    here = [one for one in fields if has(one["versions"], version)]
    return [one for one in here if not has(one.get("taggedVersions", "none"), version)]


def check(ours: tuple[Field, ...], fields: list[dict[str, Any]], version: int) -> None:
    """Assert that *ours* are the first of *fields*, with all that is an error in them."""
    theirs = present(fields, version)
    assert len(ours) <= len(theirs)
    for one, field in itertools.zip_longest(ours, theirs):
        if one is None:
            assert "ErrorCode" not in str(field)
            continue
        inner = field["type"].removeprefix("[]")
        if inner == field["type"]:
            assert one.kind == KINDS[inner], field["name"]
        elif inner in KINDS:
            assert (one.kind, one.items[0].kind) == (">", KINDS[inner]), field["name"]
        else:
            assert one.kind == "]", field["name"]
            assert len(one.items) == len(present(field["fields"], version)), field["name"]
            check(one.items, field["fields"], version)
        assert one.role is None or field["name"] in ROLES[one.role]
        assert one.role == "error" or field["name"] not in ROLES["error"]


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_names_and_flexible_versions_are_kafkas(name: str) -> None:
    api, _ = known(name)

    assert name in {f"{api.name}Request", f"{api.name}Response"}
    for version in range(20):
        assert api.is_flexible(version) == has(SCHEMAS[name]["flexibleVersions"], version)


@pytest.mark.parametrize("name", sorted(name for name in SCHEMAS if known(name)[1]))
def test_every_version_of_a_layout_is_kafkas(name: str) -> None:
    api, layout = known(name)
    fields, valid = SCHEMAS[name]["fields"], SCHEMAS[name]["validVersions"]

    for version in range(api.newest + 1):
        if has(valid, version):
            check(compiled(layout, version), fields, version)
    assert has(valid, api.newest)
    assert not has(valid, api.newest + 1)
