"""Where presets live, how a name or a path becomes a RunConfig's values."""

from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from mypt.errors import UsageError
from mypt.records.base import decode_json, read_json_bytes
from mypt.records.legacy import is_legacy_config, nested_from_legacy
from mypt.records.run import RunConfig

DEFAULT_PRESET = "small"

MOST_CONFIG_BYTES = 1_000_000
"""A thousand times what a config needs."""

_MOST_SHOWN = 80


def presets_directory() -> Path:
    """Find the presets: inside an installed wheel, else at the top of the checkout.

    Raises:
        UsageError: naming both places, when neither has them.
    """
    installed = Path(str(files("mypt"))) / "presets"
    checkout = Path(__file__).resolve().parents[3] / "presets"
    for place in (installed, checkout):
        if place.is_dir():
            return place
    raise UsageError(f"no presets found in {installed} or {checkout}", hint="Install mypt again.")


def preset_names() -> list[str]:
    """Names of the shipped presets, smallest model first."""
    return sorted(_preset_files(), key=lambda name: load_preset(name).model.parameters)


def load_preset(name: str) -> RunConfig:
    """Load a shipped preset by name.

    Raises:
        UsageError: with the nearest name, when there is no such preset.
    """
    return RunConfig.read(_preset_file(name))


def find_config(reference: str) -> tuple[str, dict[str, Any]]:
    """Resolve --config-file: a preset name, a path, or a path that ends in a preset's file name.

    Returns:
        Where it came from, for humans, and its values as a nested mapping.

    Raises:
        UsageError: when nothing fits, naming the nearest preset.
    """
    path = Path(reference)
    if reference and _is_there(path):
        return str(path), read_config_values(path)
    preset = _preset_file(reference)
    return f"preset {preset.stem}", read_config_values(preset)


def read_config_values(path: Path) -> dict[str, Any]:
    """Read a config file as nested values; the original's flat JSON is translated.

    Raises:
        UsageError: when it is not a JSON object.
    """
    content = read_json_bytes(path, error=UsageError, most_bytes=MOST_CONFIG_BYTES)
    try:
        values = decode_json(content)
    except ValueError as problem:
        raise UsageError(f"{path}: not valid JSON ({problem})") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: a config is a JSON object, this is {type(values).__name__}")
    return nested_from_legacy(values) if is_legacy_config(values) else values


def _preset_files() -> dict[str, Path]:
    return {file.stem: file for file in sorted(presets_directory().glob("*.json"))}


def _preset_file(reference: str) -> Path:
    """The preset of a name, in any case, or of a path that ends in its file name."""
    name = Path(reference).stem if reference.endswith(".json") else reference
    presets = {stem.lower(): file for stem, file in _preset_files().items()}
    found = presets.get(name.lower())
    if found is not None:
        return found
    near = get_close_matches(name[:_MOST_SHOWN].lower(), presets, n=1)
    hint = f"Did you mean {presets[near[0]].stem}? " if near else ""
    names = ", ".join(file.stem for file in presets.values())
    message = f"{reference[:_MOST_SHOWN]!r}" if not reference.strip() else reference[:_MOST_SHOWN]
    raise UsageError(
        f"{message}: neither a config file nor a preset", hint=f"{hint}Presets: {names}. See: mypt configs"
    )


def _is_there(path: Path) -> bool:
    """Whether this is a path of something; a folder named as a preset is none."""
    try:
        return path.exists() and not (path.is_dir() and path.name.lower() in map(str.lower, _preset_files()))
    except (OSError, ValueError):  # a name too long or with a NUL is no file
        return False
