"""How reports look: one function per record."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mypt.cli.consoles import data_console
from mypt.cli.options import LENGTH_DECIDES, TOKENIZER_DECIDES
from mypt.records.base import flatten
from mypt.records.dataset import DatasetManifest
from mypt.records.model import ModelConfig
from mypt.records.reports import ConfigsReport, DatasetReport, ModelReport, ParamsReport
from mypt.records.run import RunConfig
from mypt.units import human_bytes, human_count, several, sparkline


def config_table(config: RunConfig, sources: Mapping[str, str]) -> Table:
    """Every setting, its value and where it came from."""
    table = Table(box=None, pad_edge=False, title=_title(config), title_justify="left")
    table.add_column("setting")
    table.add_column("value", overflow="fold")
    table.add_column("from")
    for key, value in flatten(config.model_dump(exclude={"name", "description"})):
        source = sources.get(key, "default")
        style = "dim" if source == "default" else None
        table.add_row(key, "-" if source in {LENGTH_DECIDES, TOKENIZER_DECIDES} else _shown(value), source, style=style)
    return table


def show_model(report: ModelReport) -> None:
    """Draw what is in a model."""
    console = data_console()
    grid = _grid()
    grid.add_row(report.kind, Text.assemble((report.name, "bold"), f"  ({report.path})"))
    in_int8 = ", in int8: to generate with" if report.weights == "int8" else ""
    grid.add_row("parameters", f"{report.parameters:,}  ({human_count(report.parameters)}){in_int8}")
    grid.add_row("architecture", _architecture(report.config))
    grid.add_row("tokenizer", f"{report.tokenizer}, {report.vocab_size:,} ids")
    of_total = f" of {report.run.training.max_iters:,}" if report.run else ""
    grid.add_row("progress", f"step {report.step:,}{of_total}, {human_count(report.tokens_seen)} tokens seen")
    if report.loss is not None:
        val = (
            ""
            if report.val_loss is None
            else f", val {report.val_loss:.4f} ({report.bits_per_byte or 0:.3f} bits/byte)"
        )
        before = ", before the weights were rounded" if report.weights == "int8" else ""
        grid.add_row("loss", f"train {report.loss:.4f}{val}{before}")
    if report.losses:
        grid.add_row("last losses", f"{sparkline(report.losses)}  {report.losses[0]:.2f} → {report.losses[-1]:.2f}")
    if report.initialized_from:
        grid.add_row("started from", report.initialized_from)
    if report.run:
        hyper = report.run.training.model_dump(exclude_none=True)
        grid.add_row("training", ", ".join(f"{key} {_shown(value)}" for key, value in hyper.items()))
        text = report.run.data
        grid.add_row("text", ", ".join(text.dataset_dir or text.input_files) or "not recorded")
    if report.versions:
        grid.add_row("made with", ", ".join(f"{key} {value}" for key, value in report.versions.items()))
    grid.add_row("on disk", f"{human_bytes(report.size_bytes)}{_kept(report)}")
    console.print(grid)
    files = _columns("file", "size")
    for file in report.files:
        files.add_row(file.name, human_bytes(file.size_bytes))
    console.print()
    console.print(files)
    _show_states(console, report)


def _kept(report: ModelReport) -> str:
    states = f" in {several(len(report.states), 'state')}" if report.states else ""
    return states + (f" and {len(report.set_aside)} set aside" if report.set_aside else "")


def _show_states(console: Console, report: ModelReport) -> None:
    if report.states:
        table = _columns("state", "val loss", "size", left=("condition",))
        for state in report.states:
            val = "" if state.val_loss is None else f"{state.val_loss:.4f}" + (" best" if state.best else "")
            sound = Text("whole" if state.whole else "sizes agree", style="green")
            found = Text(state.problem, style="red") if state.problem else sound
            table.add_row(f"step {state.step:,}", val, human_bytes(state.size_bytes), found)
        console.print()
        console.print(table)
    if any(state.whole is None and not state.problem for state in report.states):
        console.print(f"Too large to be hashed here: mypt verify {report.name}", style="dim")
    if report.set_aside:
        aside = _columns("set aside", "size")
        for entry in report.set_aside:
            aside.add_row(Path(entry.path).name, human_bytes(entry.size_bytes))
        console.print()
        console.print(aside)


def show_dataset(report: DatasetReport) -> None:
    """Draw what is in a dataset."""
    console = data_console()
    manifest = report.manifest
    grid = _grid()
    grid.add_row("dataset", Text(report.path, style="bold"))
    grid.add_row("tokens", f"{report.train_tokens:,} training + {report.val_tokens:,} validation ({report.tokenizer})")
    grid.add_row("documents", _documents(report))
    if manifest.text is not None:
        text = f"{human_bytes(manifest.counts.text_bytes)}, {report.bytes_per_token:.2f} bytes per token"
        grid.add_row(
            "text",
            f"{text}, from {several(manifest.counts.source_files, 'file')} of {human_bytes(report.source_bytes)}",
        )
        grid.add_row("split", f"{manifest.text.val_fraction:g} for validation, {_SPLITS[manifest.split_by]}")
        changed = manifest.text.model_dump(exclude_defaults=True, exclude={"val_fraction"})
        grid.add_row("options", ", ".join(f"{key} {_shown(value)}" for key, value in changed.items()) or "none")
    shards = len(manifest.train) + len(manifest.val)
    grid.add_row("on disk", f"{human_bytes(report.size_bytes)} in {several(shards, 'shard')}")
    grid.add_row("made with", f"mypt {manifest.mypt_version}" + (f", {manifest.encoder}" if manifest.encoder else ""))
    console.print(grid)
    _show_lengths(console, report)
    _show_shards(console, manifest)
    for sample in report.samples:
        console.print(Text(f"\n{_short_path(sample.shard)} from token {sample.token:,}:", style="dim"))
        console.print(Text(_one_line(sample.text)), soft_wrap=True)


_SPLITS = {
    "content": "by the content of each document",
    "tail": "the end of the text",
    "given": "as it was found",
}
# More shards than this are summed up in one line.
_SHOWN_SHARDS = 12


def _documents(report: DatasetReport) -> str:
    if report.documents is None:
        return "not known: the shards do not tell where documents end"
    counts = report.manifest.counts
    parts = [f"{report.documents:,}"]
    if counts.duplicate_documents:
        dropped = report.manifest.text is not None and report.manifest.text.deduplicate
        parts.append(f"{several(counts.duplicate_documents, 'duplicate')} {'left out' if dropped else 'among them'}")
    if counts.empty_documents:
        parts.append(f"{several(counts.empty_documents, 'empty document')} left out")
    if counts.dropped_lines:
        parts.append(f"{several(counts.dropped_lines, 'line')} left out")
    return ", ".join(parts)


def _show_lengths(console: Console, report: DatasetReport) -> None:
    if not report.lengths:
        return
    table = _columns("tokens per document", "documents", left=("",))
    most = max(bucket.documents for bucket in report.lengths)
    for bucket in report.lengths:
        bar = "█" * round(30 * bucket.documents / most) or ("▏" if bucket.documents else "")
        table.add_row(f"≤ {bucket.up_to_tokens:,}", f"{bucket.documents:,}", bar)
    console.print()
    console.print(table)


def _show_shards(console: Console, manifest: DatasetManifest) -> None:
    every = (*manifest.train, *manifest.val)
    table = _columns("shard", "tokens", "documents", "sha256")
    for shard in every[:_SHOWN_SHARDS]:
        documents = "" if shard.documents is None else f"{shard.documents:,}"
        table.add_row(
            _short_path(shard.path), f"{shard.tokens:,}", documents, f"{shard.sha256[:12]}…" if shard.sha256 else ""
        )
    console.print()
    console.print(table)
    if len(every) > _SHOWN_SHARDS:
        console.print(f"… and {len(every) - _SHOWN_SHARDS:,} more", style="dim")


def _short_path(path: str) -> str:
    """Shards of others may lie anywhere: their folder and name tell them apart."""
    return path if not path.startswith("/") else f"…/{'/'.join(path.split('/')[-2:])}"


def _one_line(text: str) -> str:
    """Text whose line feeds and control characters show instead of act."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def show_params(report: ParamsReport, source: str) -> None:
    """Draw what an architecture costs."""
    console = data_console()
    console.print(Text.assemble((source, "bold"), f": {_architecture(report.config)}\n"))
    parameters = _columns("parameters", "count", "share")
    for part, count in report.parameters_by_part.items():
        if count:
            parameters.add_row(part.replace("_", " "), f"{count:,}", f"{count / report.parameters:.1%}")
    parameters.add_row("total", f"{report.parameters:,}", human_count(report.parameters), style="bold")
    console.print(parameters)
    console.print()
    memory = _columns("memory", "training", "generation", "in int8")
    uses = report.training_memory_by_part, report.generation_memory_by_part, report.generation_int8_memory_by_part
    for part in dict.fromkeys(part for use in uses for part in use):
        sizes = [use.get(part, 0) for use in uses]
        if any(sizes):
            memory.add_row(part.replace("_", " "), *(human_bytes(size) if size else "" for size in sizes))
    peaks = report.training_memory_bytes, report.generation_memory_bytes, report.generation_int8_memory_bytes
    memory.add_row("peak", *map(human_bytes, peaks), style="bold")
    console.print(memory)
    context = report.config.block_size
    notes = _grid()
    batch = f"{report.batch_size} x {context} tokens a step, {report.optimizer}, {report.precision}"
    if report.sequences_at_once < report.batch_size:
        batch += f", {report.sequences_at_once} sequences at once"
    batch += ", activations checkpointed" if report.checkpoint_activations else ""
    notes.add_row("training", f"estimated for {batch}; gradients and logits never meet, so the peak is below the sum")
    notes.add_row("generation", "estimated for one sequence with a full cache, in fp32 and stored by mypt quantize")
    compute = f"{human_count(report.training_flops_per_token)} FLOP per training token: 6 N + 12 L C T"
    notes.add_row("compute", f"{compute} (Kaplan et al. 2020, Chowdhery et al. 2022)")
    optimal = f"about {human_count(report.optimal_tokens)} tokens, 20 per parameter"
    notes.add_row("best text size", f"{optimal} (Hoffmann et al. 2022)")
    console.print()
    console.print(notes)


def show_configs(report: ConfigsReport) -> None:
    """Draw the preset table."""
    sizes = ("params", "blocks", "context", "train", "on a GPU", "generate")
    table = _columns("preset", *sizes, left=("for",))
    for entry in report.presets:
        table.add_row(
            entry.name,
            f"{human_count(entry.parameters)}",
            f"{entry.n_layer} x {entry.n_embd}",
            str(entry.block_size),
            human_bytes(entry.training_memory_bytes),
            human_bytes(entry.training_memory_on_gpu_bytes),
            human_bytes(entry.generation_memory_bytes),
            entry.description,
        )
    console = data_console()
    console.print(table)
    note = "Memory is estimated at the preset's own batch size, in fp32 with kernels; on a GPU in bf16, compiled."
    console.print(f"\n{note} More: mypt params PRESET", style="dim")


def show_preset(source: str, config: RunConfig) -> None:
    """Draw one preset or config file whole."""
    sources = dict.fromkeys((key for key, _ in flatten(config.model_dump())), source)
    data_console().print(config_table(config, sources))


def _architecture(config: ModelConfig) -> str:
    bias = "" if config.bias else ", no bias"
    dropout = f", dropout {config.dropout:g}" if config.dropout else ""
    shared = f" ({config.kv_heads} of keys and values)" if config.kv_heads < config.n_head else ""
    return (
        f"{config.family}, {config.n_layer} layers x {config.n_head} heads{shared}, width {config.n_embd}, "
        f"context {config.block_size}, vocabulary {config.vocab_size:,}{bias}{dropout}"
    )


def _title(config: RunConfig) -> str:
    return f"{config.name}: {config.description}" if config.name and config.description else config.name


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value)) or "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    return grid


def _columns(first: str, *numbers: str, left: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, style="bold", no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for name in left:
        table.add_column(name)
    return table
