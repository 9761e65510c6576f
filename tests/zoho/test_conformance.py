"""What we send against Zoho's own OpenAPI files, where they are at hand (ZOHO_OAS_DIR, or beside the repository)."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from consumer.core.model import NotePolicy
from consumer.zoho.people import LeadOptions
from tests.zoho.room import Client, World, delivery, number, run

DIRECTORY = Path(os.environ.get("ZOHO_OAS_DIR") or Path(__file__).parents[3] / "shared" / "zoho-oas")
FILES = ("coql", "notes", "record", "related_records", "fields", "composite_requests")
NOT_DECLARED = {"page_token", "lar_id", "parallel_execution"}
"""What Zoho's pages name and its files do not: docs/zoho.md has the sources."""


def operations() -> dict[tuple[str, str], list[tuple[dict[str, Any], dict[str, Any]]]]:
    """Document and operation by method and path pattern; several files describe some of them."""
    found: dict[tuple[str, str], list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for name in FILES:
        document = json.loads((DIRECTORY / f"{name}.json").read_text("utf-8"))
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if method in ("get", "post", "put", "delete"):
                    pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))
                    found.setdefault((method.upper(), pattern), []).append((document, operation))
    return found


def resolved(document: dict[str, Any], node: Any) -> Any:
    """The node with references followed and `nullable` in JSON Schema's words.

    `required` is left out: the files describe records as they are read, with all that Zoho itself adds.
    """
    if isinstance(node, list):
        return [resolved(document, each) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        if not node["$ref"].startswith("#/"):
            return {}
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/")]
        return resolved(document, target)
    schema = {key: resolved(document, value) for key, value in node.items() if key != "required"}
    if schema.pop("nullable", False):
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


def traffic() -> list[tuple[str, str, set[str], Any]]:
    """Method, path, parameter names and body of everything that a day's work sends."""

    async def scenario() -> World:
        world = World()
        rule = world.step("add_assignment_rule")
        world.insert("Contacts", Phone=number(3))
        options = LeadOptions("WhatsApp", rule, ("workflow",))
        for policy in NotePolicy:
            client = Client(world, note_policy=policy, options=options, composite=True, triggers=("workflow",))
            items = [delivery(f"m{index}", number(index), contact_name="Anna") for index in range(4)]
            await client.deliver(items)
        single = Client(world, options=options)
        again = delivery("m1", number(1))
        again.may_exist = True
        await single.deliver([again, delivery("m9", number(9))])
        return world

    seen: list[tuple[str, str, set[str], Any]] = []
    original = World.__post_init__

    def recording(world: World) -> None:
        original(world)
        begin = world.engine.begin

        def begin_recorded(request: Any) -> Any:
            if not request.path.startswith("/oauth"):
                names = {pair.split("=")[0] for pair in request.query.split("&") if pair}
                seen.append((request.method, request.path, names, json.loads(request.body) if request.body else None))
            return begin(request)

        world.engine.begin = begin_recorded  # type: ignore[method-assign]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "__post_init__", recording)
        run(scenario())
    return seen


def complaints(known: dict[Any, Any], method: str, path: str, names: set[str], body: Any) -> list[str]:
    """What Zoho's files have against a request; nothing when one of them takes it as it is."""
    patterns = [pattern for verb, pattern in known if verb == method and re.fullmatch(pattern, path)]
    if not patterns:
        return [f"{method} {path} is not in the files"]
    closest = min(patterns, key=lambda pattern: pattern.count("[^/]+"))
    verdicts = [_verdict(document, operation, names, body) for document, operation in known[method, closest]]
    return min(verdicts, key=len)


def _verdict(document: dict[str, Any], operation: dict[str, Any], names: set[str], body: Any) -> list[str]:
    declared = {each.get("name") for each in resolved(document, operation.get("parameters", []))}
    found = [f"parameter {name}" for name in sorted(names - declared - NOT_DECLARED)]
    if body is None:
        return found
    content = resolved(document, operation.get("requestBody", {})).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    found += [f"key {name}" for name in sorted(body.keys() - schema.get("properties", {}).keys() - NOT_DECLARED)]
    validator = jsonschema.Draft202012Validator(schema)
    return found + [error.json_path + ": " + error.message[:200] for error in validator.iter_errors(body)]


def test_what_we_send_is_what_zohos_files_describe() -> None:
    """Every path, parameter and body of a day's work."""
    if not DIRECTORY.is_dir():
        print(f"Zoho's OpenAPI files are not at {DIRECTORY}: nothing to compare with")  # noqa: T201
        return
    known = operations()
    requests = traffic()
    assert {path for _, path, _, _ in requests} >= {"/crm/v8/coql", "/crm/v8/Notes", "/crm/v8/Messages/upsert"}
    found = {
        (method, path.split("/")[3], text)
        for method, path, names, body in requests
        for text in complaints(known, method, path, names, body)
    }
    assert found == set()
