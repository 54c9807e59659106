"""Writes the reference pages that the code itself decides.

    commands and options -> reference/cli.md
    config records       -> reference/configuration.md
    shipped presets      -> reference/presets.md

Read from declarations, never from rendered help: the pages are the same on every machine and terminal.

    python docs/generate.py           rewrite the pages
    python docs/generate.py --check   change nothing; exit 1 and name the stale pages
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

from mypt.cli.app import app
from mypt.records.base import Record
from mypt.records.evaluation import EvaluationConfig
from mypt.records.presets import load_preset, preset_names
from mypt.records.reports import preset_entry
from mypt.records.run import RunConfig
from mypt.records.sampling import SamplingConfig
from mypt.units import human_bytes, human_count

REFERENCE = Path(__file__).resolve().parent / "reference"

_NOTE = "<!-- Written by docs/generate.py; change the code, then run it again. -->\n"
_KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
# pydantic's own words, which it leaves in the schema of a whole number that may be null
_BOUNDS |= {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}

Command = Any  # typer hides its Command class behind a private module, which moved between versions


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them."""
    pages = {"cli.md": cli_page(), "configuration.md": configuration_page(), "presets.md": presets_page()}
    if "--check" in arguments:
        stale = [name for name, text in pages.items() if not _is_fresh(REFERENCE / name, text)]
        for name in stale:
            print(f"stale: docs/reference/{name} (run: python docs/generate.py)")
        return 1 if stale else 0
    for name, text in pages.items():
        (REFERENCE / name).write_text(text, encoding="utf-8", newline="\n")
    return 0


def commands() -> dict[str, Command]:
    """Every visible command by its name, in the order of the help."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup), "mypt has commands"
    return dict(_leaves(root))


def _leaves(group: TyperGroup, prefix: str = "") -> Iterator[tuple[str, Command]]:
    """Commands, and those of groups by both names: 'tokenizer train'."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from _leaves(command, f"{prefix}{name} ")
        elif not command.hidden:
            yield f"{prefix}{name}", command


def cli_page() -> str:
    """All commands: usage, meaning, arguments and options."""
    root = typer.main.get_command(app)
    lines = ["# Commands", _NOTE, _CLI_INTRO]
    lines += ["| command | meaning |", "|---|---|"]
    lines += [
        _row(f"[`mypt {name}`](#mypt-{name.replace(' ', '-')})", str(command.help).split("\n\n")[0])
        for name, command in commands().items()
    ]
    lines += ["", _CLI_TABLES, "## mypt", "", "```text", "mypt [OPTIONS] COMMAND [ARGS]...", "```", ""]
    lines += _option_table(root)
    for name, command in commands().items():
        lines += ["", f"## mypt {name}", "", "```text", _usage(name, command), "```", "", str(command.help), ""]
        lines += _argument_table(command) + _option_table(command)
    return "\n".join(lines) + "\n"


def configuration_page() -> str:
    """Every field of a config, and of the settings of generation and evaluation."""
    return "\n".join(
        [
            "# Configuration",
            _NOTE,
            _CONFIGURATION_INTRO,
            "## Fields of a config",
            "",
            *_field_table(RunConfig),
            "",
            _CONFIGURATION_SOURCES,
            "## Fields of a generation",
            "",
            "The options of `mypt generate`, and the keyword arguments of `mypt.load(NAME).generate(PROMPT, …)`.",
            "They are no part of a config file.",
            "",
            *_field_table(SamplingConfig),
            "",
            "## Fields of an evaluation",
            "",
            "The options of `mypt evaluate`, and the keyword arguments of `mypt.evaluate(NAMES, …)`.",
            "They are no part of a config file.",
            "",
            *_field_table(EvaluationConfig),
            "",
        ]
    )


def presets_page() -> str:
    """The shipped presets with their sizes, memory and training defaults."""
    presets = {name: load_preset(name) for name in preset_names()}
    lines = ["# Presets", _NOTE, _PRESETS_INTRO, "## Architecture and memory", ""]
    lines += ["| preset | parameters | | layers | heads | width | context | train | train on a GPU | generate | for |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|"]
    for name, preset in presets.items():
        entry = preset_entry(name, preset)
        cells = [f"`{name}`", f"{entry.parameters:,}", human_count(entry.parameters), entry.n_layer, entry.n_head]
        cells += [entry.n_embd, entry.block_size, human_bytes(entry.training_memory_bytes)]
        cells += [human_bytes(entry.training_memory_on_gpu_bytes)]
        cells += [human_bytes(entry.generation_memory_bytes), entry.description]
        lines.append(_row(*cells))
    lines += [
        "",
        "## Training defaults",
        "",
        "| preset | optimizer | batch size | steps | learning rate | warm-up | dropout |",
    ]
    lines += ["|---|---|---:|---:|---:|---:|---:|"]
    for name, preset in presets.items():
        training = preset.training
        rate = f"{training.learning_rate:g}"
        cells = [f"`{name}`", training.optimizer, training.batch_size, f"{training.max_iters:,}", rate]
        lines.append(_row(*cells, training.warmup_iters, f"{preset.model.dropout:g}"))
    return "\n".join(lines) + "\n"


def _usage(name: str, command: Command) -> str:
    arguments = [_optional(parameter) for parameter in _arguments(command)]
    return " ".join(["mypt", name, "[OPTIONS]", *arguments])


def _optional(argument: TyperArgument) -> str:
    name = argument.metavar or argument.name
    return (f"{name}" if argument.required else f"[{name}]") + ("..." if argument.nargs == -1 else "")


def _arguments(command: Command) -> list[TyperArgument]:
    return [parameter for parameter in command.params if isinstance(parameter, TyperArgument)]


def _options(command: Command) -> list[TyperOption]:
    """Options that the help shows, without typer's own two for shell completion."""
    options = [parameter for parameter in command.params if isinstance(parameter, TyperOption)]
    return [option for option in options if not option.hidden and "completion" not in (option.name or "")]


def _argument_table(command: Command) -> list[str]:
    rows = [_row(f"`{argument.metavar or argument.name}`", argument.help or "") for argument in _arguments(command)]
    return ["| argument | meaning |", "|---|---|", *rows, ""] if rows else []


def _option_table(command: Command) -> list[str]:
    rows = []
    for option in _options(command):
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        variable = f"`{option.envvar}`" if option.envvar else ""
        default = f" Default: {option.default}." if option.show_default is True and option.default is not None else ""
        rows.append(_row(names, variable, f"{option.help}{default if not option.is_flag else ''}"))
    return ["| option | environment | meaning |", "|---|---|---|", *rows]


def _field_table(record: type[Record]) -> list[str]:
    schema = record.model_json_schema()
    rows = [
        _row(f"`{key}`", _kind(node), f"`{_default(node)}`", _range(node), node.get("description", ""))
        for key, node in _fields(schema, schema.get("$defs", {}))
    ]
    return ["| key | type | default | range | meaning |", "|---|---|---|---|---|", *rows]


def _fields(node: Mapping[str, Any], records: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf below a JSON-schema node with its dotted key."""
    for name, child in node["properties"].items():
        if "$ref" in child:
            yield from _fields(records[child["$ref"].rsplit("/", 1)[-1]], records, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _some(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a value that is there, for fields that may also be null."""
    return next((each for each in node.get("anyOf", []) if each.get("type") != "null"), node)


def _kind(node: Mapping[str, Any]) -> str:
    some = _some(node)
    if "enum" in some:
        kind = "one of"
    elif some.get("type") == "array":
        kind = f"list of {_KINDS[some['items']['type']]}s"
    else:
        kind = _KINDS[some["type"]]
    return f"{kind}, or null" if "anyOf" in node else kind


def _range(node: Mapping[str, Any]) -> str:
    some = _some(node)
    if "enum" in some:
        return ", ".join(f"`{value}`" for value in some["enum"])
    bounds = [f"{sign} {_number(some[name])}" for name, sign in _BOUNDS.items() if name in some]
    if "maxLength" in some:
        bounds.append(f"at most {some['maxLength']:,} characters")
    return ", ".join(bounds)


def _default(node: Mapping[str, Any]) -> str:
    """The default as it would stand in a JSON file."""
    value = node["default"]
    return value if isinstance(value, str) and value else json.dumps(value)


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", "\\n") for cell in cells) + " |"


def _is_fresh(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


_CLI_INTRO = """\
`mypt COMMAND --help` shows the same on the terminal. `python -m mypt` is the same program.

- Dashes are canonical. Underscores work too, in commands and options: `mypt prepare_dataset --out_dir DIR`.
- Options that take several files are also plain arguments, so a shell may expand `--input-files data/*.txt`. Plain
  arguments of `mypt evaluate` are models: there each text has an option of its own, or a quoted glob.
- Standard output carries data: generated text, tables, JSON. Progress and messages go to standard error.
- Every option that has an environment variable can be set by it. An option on the command line wins.
- `-h` and `--help` work everywhere. `mypt --install-completion` sets up TAB in the shell.
"""

_CLI_TABLES = """\
## Exit codes

| exit code | meaning |
|---:|---|
| 0 | done |
| 1 | a failure of another kind |
| 2 | the command line or a config cannot be meant |
| 3 | text, dataset or tokenizer |
| 4 | checkpoint missing, broken or incompatible |
| 5 | out of memory |
| 6 | the loss is not a number any more |
| 7 | an optional package is missing |
| 75 | another run holds this model |
| 129, 130, 138, 143 | stopped by SIGHUP, Ctrl-C, SIGUSR1 or SIGTERM; a training that had begun was saved |

## Environment variables

Beside the ones of the options below:

| variable | meaning |
|---|---|
| `MYPT_CACHE` | the folder for what was tried on this machine or compiled for it; without it, the system's own |
| `CC` | the C compiler for [generation](../how-to/generate.md#compiled-code) and [kernels](../how-to/kernels.md) |
| `MYPT_OFFLINE=1` | never download; without it, the network is the last place where GPT-2's token table is looked for |
| `MYPT_GPT2_TABLE` | a file with GPT-2's token table, looked at first |
| `MYPT_TOKENIZER_DIR` | a folder with GPT-2's table in a file of any format, looked at next |
| `TIKTOKEN_CACHE_DIR`, `DATA_GYM_CACHE_DIR` | tiktoken's caches, looked at after these |
| `MYPT_DEBUG=1` | show a traceback with errors, as `--debug` |
"""

_CONFIGURATION_INTRO = """\
A config is one JSON file with up to five keys: `name`, `description`, `model`, `training`, `data`.
Every field is optional. Unknown keys, wrong types and values out of range are refused, with the nearest valid key.

```json
{
  "name": "night run",
  "model": {"n_layer": 8, "n_head": 8, "n_embd": 512, "block_size": 512},
  "training": {"batch_size": 12, "max_iters": 20000, "learning_rate": 0.0004}
}
```

Use it with `mypt train --config-file night.json …`. The flat JSON of the original MyPT is read too.

A value comes from the strongest place that gives one. From weak to strong:

1. the default in the table below
2. the saved model of this name, or the architecture of the model named by `--init-from-model`
3. the preset or config file (`small` where there is neither a config nor a saved model)
4. the environment (`MYPT_BATCH_SIZE=8`)
5. an option (`--batch-size 8`)
6. `--set` (`--set training.weight_decay=0.05`, for any key below, repeatable)

`mypt train … --dry-run` prints every value and where it came from, and stops.

The tokenizer decides `model.vocab_size`. Only `--set model.vocab_size=N` overrides it, with N at least as large.
Architecture never changes after training starts; `model.dropout` may.
"""

_CONFIGURATION_SOURCES = """\
## Where training's numbers come from

| key | from |
|---|---|
| `model.dropout` | Srivastava et al., 2014; 0 where a text is read about once |
| `training.batch_size`, `training.micro_batch_size` | the sum of the gradients of pieces is that of the batch |
| `training.checkpoint_activations` | Chen et al., 2016 |
| `training.optimizer` | `adamw`: Loshchilov and Hutter, 2019; `muon`: Jordan et al., 2024, rows as in Li et al., 2025 |
| `training.learning_rate` | 0.0006: GPT-3 of 125M parameters (Brown et al., 2020); 0.04 with `muon`: tried here |
| `training.schedule`, `training.decay_share` | `cosine`: Loshchilov and Hutter, 2017; `wsd`: Hu et al., 2024 |
| `training.min_lr_ratio` | a tenth: Brown et al., 2020 |
| `training.warmup_iters` | Vaswani et al., 2017; shorter, as the runs here are |
| `training.weight_decay`, `training.grad_clip` | 0.1 and 1: Brown et al., 2020 |
| `training.beta1`, `training.beta2` | 0.9 and 0.95: Brown et al., 2020 |
| `training.precision` | bf16 beside fp32 weights: Micikevicius et al., 2018 |
| `training.seed`, intervals, `training.patience`, `training.max_skips` | chosen here |

There is no z-loss, no label smoothing and no average of weights.
"""

_PRESETS_INTRO = """\
A preset is a config that ships with MyPT. `mypt train --config-file NAME` uses one; `small` is the default.
`mypt configs` prints this table, `mypt configs --config-file NAME` one preset whole, `mypt params NAME` its cost.

`char` and `char-quick` are of the family `modern`, with a token for each character, and learn by Muon; parameters are
counted for 256 characters. All others are of the family `gpt2`, without biases, for a vocabulary of 50,304: GPT-2's
50,257 ids padded to a multiple of 64. With another tokenizer the vocabulary, and with it the number of parameters,
follows the text.
Memory is an estimate at the preset's own batch size, in fp32 with
[kernels](../how-to/kernels.md); on a GPU in bf16, compiled. See
[what it leaves out](../explanation/architecture.md#memory-estimates).
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
