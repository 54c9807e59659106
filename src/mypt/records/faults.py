"""What pydantic finds wrong -> lines a user can act on: key = value: what is wrong (allowed: ...)."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

# JSON schema's words, and pydantic's own for fields that may also be null.
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_BOUNDS |= {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}

_MOST_FAULTS = 20
_MOST_SHOWN = 60
_SURROGATE = re.compile("[\ud800-\udfff]")


def explain(record: type[BaseModel], data: object, problem: ValidationError) -> str:
    """Tell what is wrong with `data`: one fault after a space, several on lines of their own."""
    # A default that follows from another field is not looked for where that one is wrong: no fault of its own.
    faults = [fault for fault in problem.errors(include_url=False) if fault["type"] != "default_factory_not_called"]
    if faults[0]["type"] == "json_invalid" and (half := _half_character(data)):
        return f" {half}"
    lines = [_told(record, fault) for fault in faults[:_MOST_FAULTS]]
    if len(faults) > _MOST_FAULTS:
        lines.append(f"and {len(faults) - _MOST_FAULTS:,} more")
    return f" {lines[0]}" if len(lines) == 1 else "\n" + "\n".join(lines)


def short(text: str) -> str:
    """As much of a text as a message has room for."""
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


def _half_character(data: object) -> str | None:
    """Say which text of a tree holds half a character: a name that is not UTF-8, or a broken escape."""
    waiting: list[tuple[str, object]] = [("", data)]
    while waiting:
        key, each = waiting.pop()
        if isinstance(each, Mapping):
            waiting += [(f"{key}.{name}".lstrip("."), child) for name, child in each.items()]
        elif isinstance(each, Sequence) and not isinstance(each, str | bytes):
            waiting += [(f"{key}.{number}", child) for number, child in enumerate(each)]
        elif isinstance(each, str) and _SURROGATE.search(each):
            return f"{short(key)} = {short(json.dumps(each))}: is not valid Unicode text"
        if _SURROGATE.search(key):
            return f"unknown key {short(key)}: is not valid Unicode text"
    return None


def _told(record: type[BaseModel], fault: Mapping[str, Any]) -> str:
    """Turn one pydantic fault into: key = value: what is wrong (allowed: ...)."""
    path = [str(part) for part in fault["loc"]]
    key = ".".join(map(short, path))
    if fault["type"] == "extra_forbidden":
        return _explain_unknown_key(record, path, key)
    if fault["type"] == "missing":
        return f"{key} is missing"
    if fault["type"] == "json_invalid":
        return f"not valid JSON ({fault['ctx']['error']})"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not path:
        return f"{message} (a JSON object in braces)" if fault["type"] == "model_type" else message
    if fault["type"] == "value_error":
        return f"{key}: {message}"
    allowed = _allowed(_schema_at(record, path))
    shown = short(json.dumps(fault["input"], default=str))
    return f"{key} = {shown}: {message}" + (f" (allowed: {allowed})" if allowed else "")


def _explain_unknown_key(record: type[BaseModel], path: list[str], key: str) -> str:
    schema, last = _schema(record), short(path[-1])
    known = list(_keys(schema, schema))
    siblings = list(_schema_at(record, path[:-1]).get("properties", {}))
    near = get_close_matches(last, siblings, n=1)
    if near:
        return f"unknown key {key}: did you mean {'.'.join([*path[:-1], near[0]])}?"
    elsewhere = [full for full in known if full.rsplit(".", 1)[-1] == last]
    if not elsewhere:
        elsewhere = get_close_matches(key, known, n=1)
    if elsewhere:
        return f"unknown key {key}: did you mean {elsewhere[0]}?"
    return f"unknown key {key} (known: {', '.join(siblings) or ', '.join(known)})"


@cache
def _schema(record: type[BaseModel]) -> Mapping[str, Any]:
    """The record as JSON schema: built once, since a file may be wrong in a thousand places."""
    return record.model_json_schema()


def _keys(node: Mapping[str, Any], root: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """All dotted keys of values (not of groups) below a JSON-schema node."""
    for name, child in _resolve(node, root).get("properties", {}).items():
        inner = list(_keys(child, root, f"{prefix}{name}."))
        yield from inner or [f"{prefix}{name}"]


def _schema_at(record: type[BaseModel], path: list[str]) -> Mapping[str, Any]:
    root = _schema(record)
    node: Mapping[str, Any] = root
    for part in path:
        node = _resolve(node, root)
        node = node.get("properties", {}).get(part) or (node.get("items", {}) if part.isdecimal() else {})
    return _resolve(node, root)


def _resolve(node: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = node.get("$ref", "")
    return root["$defs"][reference.rsplit("/", 1)[-1]] if reference else node


def _allowed(node: Mapping[str, Any]) -> str:
    """Describe what a JSON-schema node accepts: type, choices or range."""
    options = [option for option in node.get("anyOf", [node]) if option.get("type") != "null"]
    node = options[0] if options else node
    if "enum" in node:
        return ", ".join(map(str, node["enum"]))
    if "const" in node:
        return str(node["const"])
    kind = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    kind |= {"array": "list", "object": "object in braces"}
    bounds = [f"{sign} {node[name]}" for name, sign in _BOUNDS.items() if name in node]
    return " ".join([kind.get(node.get("type", ""), ""), " and ".join(bounds)]).strip()
