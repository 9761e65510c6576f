"""Zoho's OpenAPI files as JSON Schemas, where the folder with them is at hand."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

ROOT = Path(__file__).parents[2]
Schema = dict[str, Any]


def folder() -> Path | None:
    """The folder with Zoho's files: `ZOHO_OAS_DIR`, or the usual place beside the repository."""
    named = os.environ.get("ZOHO_OAS_DIR")
    found = Path(named) if named else ROOT.parent / "shared" / "zoho-oas"
    return found if found.is_dir() else None


@dataclass(frozen=True, slots=True)
class Deviation:
    """A place where the answers differ from the files on purpose, what is changed there, and why.

    `place` is a path into the file's component schemas. `change` is `nullable`, `all nullable` (the members), `any`
    (value), `added` (member), `nothing required`, `nothing described`, or one more word for an enumeration.
    """

    file: str
    place: str
    change: str
    reason: str


class Files:
    """The files, with the deviations built in; what they do not describe is not allowed in answers."""

    def __init__(self, where: Path, deviations: tuple[Deviation, ...]) -> None:
        documents = {path.name: orjson.loads(path.read_bytes()) for path in where.glob("*.json")}
        for each in deviations:
            _deviate(documents[each.file]["components"]["schemas"], each)
        resources = [(f"oas:{name}", _resource(_as_schema(each, documents))) for name, each in documents.items()]
        self._registry: Registry[Any] = Registry().with_resources(resources)

    def faults(self, answer: Any, file: str, schema: str) -> Iterator[str]:
        """Where an answer is not what the schema says."""
        where = {"$ref": f"oas:{file}#/components/schemas/{schema}"}
        for error in Draft202012Validator(where, registry=self._registry).iter_errors(answer):
            yield f"{schema} {error.json_path}: {error.message[:200]}"


def _resource(contents: Any) -> Resource[Any]:
    return Resource.from_contents(contents, default_specification=DRAFT202012)


def _deviate(schemas: Schema, deviation: Deviation) -> None:
    *path, last = deviation.place.split("/")
    here: Any = schemas
    for part in path:
        here = here[int(part) if part.isdigit() else part]
    match deviation.change:
        case "nullable":
            here[last] = {"anyOf": [here[last], {"type": "null"}]}
        case "any" | "added":
            here[last] = {}
        case "nothing described":
            here[last] = {"type": "object"}
        case "nothing required":
            del here[last]["required"]
        case "all nullable":
            members = here[last]["properties"]
            members |= {name: {"anyOf": [each, {"type": "null"}]} for name, each in members.items()}
        case other:
            here[last] = [*here[last], other]


# The alternatives of the files overlap, so that more than one of them may fit.
_WORDS = {"oneOf": "anyOf"}
_DROPPED = ("format", "nullable")


def _as_schema(value: Any, documents: Mapping[str, Any]) -> Any:
    """OpenAPI 3.0 as JSON Schema: local references, `nullable` as an alternative, closed objects."""
    if isinstance(value, list):
        return [_as_schema(each, documents) for each in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("$ref"), str):
        return _reference(value["$ref"], documents)
    schema = {_WORDS.get(key, key): _as_schema(each, documents) for key, each in value.items() if key not in _DROPPED}
    if isinstance(schema.get("properties"), dict):
        schema.setdefault("additionalProperties", False)
    if value.get("nullable") is True:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


def _reference(target: str, documents: Mapping[str, Any]) -> Schema:
    file, _, pointer = target.partition("#")
    name = file.rpartition("/")[2]
    if not name:
        return {"$ref": f"#{pointer}"}
    return {"$ref": f"oas:{name}#{pointer}"} if name in documents else {}
