"""Record: what all JSON shapes of MyPT share. Strict, frozen, closed, and clear when wrong."""

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError

from mypt.durable import write_text
from mypt.errors import MyptError, UsageError

# JSON schema's words, and pydantic's own for fields that may also be null.
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_BOUNDS |= {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


class Record(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """One JSON object. Unknown keys, wrong types and NaN are refused."""

    @classmethod
    def parse(cls, data: Mapping[str, Any] | str | bytes, *, where: str, error: type[MyptError] = UsageError) -> Self:
        """Validate `data` (JSON text or its decoded form); `where` names its origin in errors.

        Raises:
            error: with every wrong key, its value, what is allowed and the nearest valid key.
        """
        try:
            text = data if isinstance(data, str | bytes) else json.dumps(data)
            return cls.model_validate_json(text)
        except ValidationError as problem:
            lines = "\n".join(_explain(cls, fault) for fault in problem.errors(include_url=False))
            raise error(f"{where}: {lines}" if "\n" not in lines else f"{where}:\n{lines}") from None
        except (TypeError, ValueError, RecursionError) as problem:
            raise error(f"{where}: not valid JSON ({problem})") from None

    @classmethod
    def read(cls, path: Path, *, error: type[MyptError] = UsageError) -> Self:
        """Read the record from a JSON file.

        Raises:
            error: when the file is missing, unreadable or not this record.
        """
        return cls.parse(read_json_bytes(path, error=error), where=str(path), error=error)

    def write(self, path: Path) -> None:
        """Write the record as readable JSON, atomically and durably."""
        write_text(path, self.as_file())

    def as_file(self) -> str:
        """Give the record as the text of its file."""
        return self.as_json() + "\n"

    def as_json(self) -> str:
        """Give the record as indented JSON."""
        return self.model_dump_json(indent=2)


def read_json_bytes(path: Path, *, error: type[MyptError]) -> bytes:
    """Read a file that should hold JSON; a byte order mark is accepted and dropped."""
    try:
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as problem:
        raise error(f"{path}: cannot read it ({problem.strerror or problem})") from None


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk a nested mapping as ('a.b.c', value) pairs."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def _explain(record: type[Record], fault: Mapping[str, Any]) -> str:
    """Turn one pydantic fault into: key = value: what is wrong (allowed: ...)."""
    path = [str(part) for part in fault["loc"]]
    key = ".".join(path)
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
    shown = json.dumps(fault["input"], default=str)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."  # noqa: PLR2004 - one short line
    allowed = _allowed(_schema_at(record, path))
    return f"{key} = {shown}: {message}" + (f" (allowed: {allowed})" if allowed else "")


def _explain_unknown_key(record: type[Record], path: list[str], key: str) -> str:
    schema = record.model_json_schema()
    known = list(_keys(schema, schema))
    siblings = list(_resolve(_schema_at(record, path[:-1]), schema).get("properties", {}))
    near = get_close_matches(path[-1], siblings, n=1)
    if near:
        return f"unknown key {key}: did you mean {'.'.join([*path[:-1], near[0]])}?"
    elsewhere = [full for full in known if full.rsplit(".", 1)[-1] == path[-1]]
    if not elsewhere:
        elsewhere = get_close_matches(key, known, n=1)
    if elsewhere:
        return f"unknown key {key}: did you mean {elsewhere[0]}?"
    return f"unknown key {key} (known: {', '.join(siblings) or ', '.join(known)})"


def _keys(node: Mapping[str, Any], root: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """All dotted keys of values (not of groups) below a JSON-schema node."""
    for name, child in _resolve(node, root).get("properties", {}).items():
        inner = list(_keys(child, root, f"{prefix}{name}."))
        yield from inner or [f"{prefix}{name}"]


def _schema_at(record: type[Record], path: list[str]) -> Mapping[str, Any]:
    root = record.model_json_schema()
    node: Mapping[str, Any] = root
    for part in path:
        node = _resolve(node, root).get("properties", {}).get(part, {})
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
    bounds = [f"{sign} {node[name]}" for name, sign in _BOUNDS.items() if name in node]
    return " ".join([kind.get(node.get("type", ""), ""), " and ".join(bounds)]).strip()
