"""The documentation tells the truth: fresh pages, whole links, commands and options that exist."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from mypt.cli.app import app
from mypt.records.presets import load_preset, preset_names
from mypt.records.reports import preset_entry
from mypt.units import human_bytes, human_count

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
PAGE_IDS = [str(path.relative_to(ROOT)) for path in PAGES]

OTHER_PROGRAMS = ("pipx ", "python ", "python3 ", "pip ")
OTHER_OPTIONS = {"--backend", "--check", "--help"}  # of pipx, docs/generate.py and everything, mentioned alone


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """The options of every command, hidden ones too; '' is mypt itself."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    return {"": _names(root)} | dict(_all_options(root))


def test_generated_pages_are_fresh() -> None:
    check = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_a_stale_page_is_named(tmp_path: Path) -> None:
    copy = tmp_path / "docs"
    (copy / "reference").mkdir(parents=True)
    (copy / "generate.py").write_bytes((ROOT / "docs" / "generate.py").read_bytes())
    check = subprocess.run(
        [sys.executable, copy / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert check.returncode == 1
    assert "docs/reference/cli.md" in check.stdout


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_tables_are_whole(page: Path) -> None:
    """Every row has the cells of the table's head, and no line stands between two rows."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    for table in re.findall(r"(?m)(?:^\|.*\n)+", text):
        rows = [re.sub(r"`[^`]*`", "", row).replace("\\|", "") for row in table.splitlines()]
        assert len(rows) > 2, f"half a table: {table[:80]}"
        assert re.fullmatch(r"\|(?: ?:?-+:? ?\|)+", rows[1]), f"a table without a head: {table[:80]}"
        assert {row.count("|") for row in rows} == {rows[1].count("|")}, table[:80]
        assert all(row.endswith("|") for row in rows), table[:80]


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), f"{target} leads nowhere"
        if anchor:
            assert anchor in _anchors(linked), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_commands_and_options_exist(page: Path, options: dict[str, set[str]]) -> None:
    every = set().union(*options.values()) | OTHER_OPTIONS
    for code in _code(page.read_text(encoding="utf-8")):
        if code.startswith(OTHER_PROGRAMS):
            continue
        call = re.search(r"\bmypt ([a-z][\w-]*)(?: ([a-z]+)\b)?", code)
        command = call[1].replace("_", "-") if call else ""
        if call and f"{command} {call[2]}" in options:
            command = f"{command} {call[2]}"
        assert command in options, f"{code!r}: no command {command}"
        known = options[command] | options[""] | {"--help"} if call else every
        for option in re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", code):
            assert option.replace("_", "-") in known, f"{code!r}: no option {option}"


def test_readme_shows_the_presets_as_they_are() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in preset_names():
        entry = preset_entry(name, load_preset(name))
        sizes = [entry.n_layer, entry.n_head, entry.n_embd, entry.block_size]
        memory = [human_bytes(entry.training_memory_bytes), human_bytes(entry.training_memory_on_gpu_bytes)]
        cells = [f"`{name}`", human_count(entry.parameters), *sizes, *memory]
        assert "| " + " | ".join(map(str, [*cells, entry.description])) + " |" in readme


def test_readme_names_every_command(options: dict[str, set[str]]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in (name for name in options if name and " " not in name):
        assert f"| `mypt {command}` |" in readme


def _all_options(group: TyperGroup, prefix: str = "") -> Iterator[tuple[str, set[str]]]:
    """Options by command; a group has those of its commands too, which also stand under both names."""
    for name, command in group.commands.items():
        inner = dict(_all_options(command, f"{name} ")) if isinstance(command, TyperGroup) else {}
        yield f"{prefix}{name}", _names(command).union(*inner.values())
        yield from inner.items()


def _names(command: Any) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def _code(markdown: str) -> Iterator[str]:
    """Lines of code blocks that a shell or a terminal would show, and code within lines."""
    fence = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    for language, body in fence.findall(markdown):
        if language in {"sh", "text"}:
            for line in body.replace("\\\n", " ").splitlines():
                yield line.split("#")[0].strip()
    yield from (code.strip() for code in re.findall(r"`([^`\n]+)`", fence.sub("", markdown)))


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
