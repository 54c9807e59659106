"""prepare-dataset: text -> shards and a manifest, in any number of processes, again and again until done.

    plan -> units, encoded in any order -> layout -> shards, assembled in any order -> manifest

Every unit and every shard is published by rename, so a killed command goes on where it was, and
the bytes do not depend on who did what. The finished dataset appears under its name by one rename.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from mypt.core.data.prepare.engines import place
from mypt.core.data.prepare.jobs import Job, cannot_write
from mypt.core.data.prepare.layout import lay_out
from mypt.core.data.prepare.locks import hold
from mypt.core.data.prepare.manifest import write_manifest
from mypt.core.data.prepare.planning import (
    Sample,
    describe_change,
    estimate_tokens,
    make_plan,
    require_disk,
    require_sense,
    take_sample,
    worker_count,
)
from mypt.core.data.prepare.progress import Progress
from mypt.core.data.prepare.shards import assemble_shards
from mypt.core.data.prepare.workspace import Workspace
from mypt.core.data.text.sides import split_note
from mypt.core.data.text.units import input_bytes
from mypt.core.tokens.build import choose_encoder
from mypt.core.tokens.char import char_spec_of
from mypt.core.tokens.find import find_tokenizer
from mypt.durable import publish_directory
from mypt.errors import DataError, UsageError
from mypt.events import DatasetWritten, Event, Noted, PreparationPlanned, RankFinished, Warned
from mypt.records.dataset import DATASET_FILE, DatasetManifest, read_dataset_manifest
from mypt.records.plan import PrepareConfig, PreparePlan
from mypt.records.run import DataConfig
from mypt.records.tokenizer import EncoderChoice, TokenizerSpec

_SMALL_BYTES = 2**23


def prepare_dataset(config: DataConfig, out_dir: Path, options: PrepareConfig | None = None) -> Iterator[Event]:
    """Encode text into a dataset directory, or go on where an earlier call was ended.

    Args:
        config: the text files, the tokenization, and what a document is.
        out_dir: the dataset; must not exist yet (an empty directory is fine).
        options: how the work is done.

    Raises:
        DataError: when the text is unfit, `out_dir` is taken or the disk is too small.
        UsageError: for options that cannot be meant together.
        LockedError: when another command works on the same dataset.
    """
    options = options or PrepareConfig()
    require_sense(config, options)
    if out_dir.name in {"", ".."} or out_dir.resolve() == Path.cwd():
        raise DataError(f"{out_dir}: this folder cannot become a dataset", hint="Name a new one: --out-dir data/mine")
    workspace = Workspace.beside(out_dir)
    try:
        if not (out_dir / DATASET_FILE).is_file():
            _require_free(out_dir)
        if options.finish and not workspace.has_plan:
            raise UsageError(f"{workspace.path}: not there, so there is nothing to finish")
        plan = _plan_of(config, options, workspace)
        with hold(workspace, options.rank):
            workspace.require_own()
            if workspace.is_published(plan) and (out_dir / DATASET_FILE).is_file():
                yield from _clear_away(workspace, out_dir)
                return
            _require_free(out_dir)
            yield from _prepare(plan, out_dir, options, workspace)
    except OSError as problem:
        raise cannot_write(problem, out_dir) from None


def _prepare(plan: PreparePlan, out_dir: Path, options: PrepareConfig, workspace: Workspace) -> Iterator[Event]:
    started_s = time.monotonic()
    try:
        if not options.finish:
            _enter(workspace, plan, options)
            yield from _encode(workspace, out_dir, options)
        if options.rank is not None and options.world is not None:
            yield RankFinished(options.rank, options.world, len(_own_units(workspace, options)), str(out_dir))
            return
        manifest = yield from _assemble(workspace, options)
    finally:
        is_ours_alone = options.rank is None and not options.finish
        if is_ours_alone and not workspace.finished_units() and not workspace.has_layout:
            workspace.clear()  # there is nothing to go on with
    if out_dir.exists():
        out_dir.rmdir()
    publish_directory(workspace.dataset_dir, out_dir)
    workspace.clear()
    yield _written(manifest, out_dir, time.monotonic() - started_s)


def _clear_away(workspace: Workspace, out_dir: Path) -> Iterator[Event]:
    """Finish a command that was killed when the dataset had its name already."""
    started_s = time.monotonic()
    workspace.clear()
    yield Noted(f"{out_dir}: it was finished already")
    yield _written(read_dataset_manifest(out_dir), out_dir, time.monotonic() - started_s)


def _plan_of(config: DataConfig, options: PrepareConfig, workspace: Workspace) -> PreparePlan:
    """The plan of this command; --finish alone means the one that is there.

    Raises:
        DataError: when --finish comes with other files or options than the ranks had.
    """
    if options.finish and not config.input_files:
        return workspace.plan
    spec = None if config.tokenization == "char" else find_tokenizer(config.tokenization)
    plan = make_plan(config, options, spec)
    if options.finish and plan != workspace.plan:
        raise DataError(f"{workspace.path}: was begun with {describe_change(workspace.plan, plan)}")
    return plan


def _require_free(out_dir: Path) -> None:
    """Refuse a place that holds something."""
    if out_dir.is_symlink() or (out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir()))):
        raise DataError(
            f"{out_dir}: already there and not empty; nothing was changed",
            hint="Choose another --out-dir, or move the old one away.",
        )


def _enter(workspace: Workspace, plan: PreparePlan, options: PrepareConfig) -> None:
    """Begin, or go on with the same plan.

    Raises:
        DataError: when work of another plan would be lost.
    """
    if workspace.has_plan and not options.fresh:
        if workspace.plan == plan:
            if options.rank is None:
                workspace.sweep()
            return
        if workspace.finished_units() or options.rank is not None:
            raise DataError(
                f"{workspace.path}: holds an unfinished dataset of {describe_change(workspace.plan, plan)}",
                hint="Give the same command again to go on with it, or --fresh to throw it away.",
            )
    if options.rank is None:
        workspace.clear()
    workspace.begin(plan)


def _encode(workspace: Workspace, out_dir: Path, options: PrepareConfig) -> Iterator[Event]:
    """Do all units that are not finished; of a rank, its own."""
    sample = take_sample(workspace.plan)
    if workspace.has_tokenizer:
        yield from _told_of_encoder(workspace, options)
    else:
        spec = yield from _fixed_spec(workspace, options)
        workspace.set_tokenizer(spec, choose_encoder(spec, sample.texts, _encoder_choice(workspace, sample, options)))
    tokens = estimate_tokens(workspace.plan, sample, workspace.tokenizer)
    own = _own_units(workspace, options)
    results = {unit: workspace.result(unit) for unit in own}
    finished = [result for result in results.values() if result]
    done_tokens = sum(result.train.tokens + result.val.tokens for result in finished)
    result_bytes, free_bytes = require_disk(out_dir, tokens, done_tokens, workspace.tokenizer, options)
    yield PreparationPlanned(
        path=str(out_dir),
        sources=len(workspace.plan.sources),
        source_bytes=input_bytes(workspace.units, workspace.plan.sources),
        units=len(own),
        finished_units=len(finished),
        estimated_tokens=tokens,
        estimated_bytes=result_bytes,
        free_bytes=free_bytes,
        workers=max(1, min(worker_count(options), len(own))),
        encoder=workspace.tokenizer.encoder,
    )
    todo = [unit for unit, result in results.items() if result is None]
    progress = Progress(input_bytes([workspace.units[unit] for unit in todo], workspace.plan.sources))
    yield from progress.tell(place(workspace, [Job("encode", unit) for unit in todo], options))
    yield progress.whole()


def _fixed_spec(workspace: Workspace, options: PrepareConfig) -> Generator[Event, None, TokenizerSpec]:
    """The tokenizer of the plan; `char` takes its characters from all units first."""
    if workspace.plan.tokenization != "char":
        return find_tokenizer(workspace.plan.tokenization)
    units = range(len(workspace.units))
    jobs = [Job("survey", unit) for unit in units if not workspace.chars_path(unit).is_file()]
    progress = Progress(input_bytes(workspace.units, workspace.plan.sources))
    yield from progress.tell(place(workspace, jobs, options))
    return char_spec_of(workspace.chars_path(unit).read_bytes().decode() for unit in units)


def _encoder_choice(workspace: Workspace, sample: Sample, options: PrepareConfig) -> EncoderChoice:
    """A small text is encoded before a faster library has proven itself, and without a sample it cannot."""
    if options.encoder != "auto":
        return options.encoder
    total_bytes = input_bytes(workspace.units, workspace.plan.sources)
    return "tiktoken" if not sample.texts or 0 < total_bytes < _SMALL_BYTES else "auto"


def _told_of_encoder(workspace: Workspace, options: PrepareConfig) -> Iterator[Event]:
    """The encoder stays what it was; the ids are the same."""
    used = workspace.tokenizer.encoder
    if options.encoder != "auto" and options.encoder not in used:
        yield Warned(f"--encoder {options.encoder} is passed over: the work was begun with {used}")


def _own_units(workspace: Workspace, options: PrepareConfig) -> Sequence[int]:
    every = range(len(workspace.units))
    return every if options.rank is None or options.world is None else every[options.rank :: options.world]


def _assemble(workspace: Workspace, options: PrepareConfig) -> Generator[Event, None, DatasetManifest]:
    """Lay out all units, write the shards, then the manifest.

    Raises:
        DataError: when units are missing, or there are no tokens.
    """
    results = [workspace.result(unit) for unit in range(len(workspace.units))]
    missing = [number for number, result in enumerate(results) if result is None]
    if missing:
        raise DataError(
            f"{workspace.path}: {len(missing)} of {len(results)} units are not finished (the first is {missing[0]})",
            hint="Run the ranks that did not end again, then --finish.",
        )
    whole = [result for result in results if result is not None]
    if not workspace.has_layout:
        workspace.set_layout(lay_out(workspace, whole))
    layout = workspace.layout
    if not layout.train.tokens:
        workspace.clear()
        raise DataError("the text is empty: no tokens to write")
    documents = sum(result.train.documents + result.val.documents for result in whole)
    val_fraction = workspace.plan.text.val_fraction
    note = split_note(layout.split_by, layout.train.tokens, layout.val.tokens, documents, val_fraction)
    if note:
        yield Noted(note)
    shards = yield from assemble_shards(workspace, options)
    workspace.sweep()
    return write_manifest(workspace, whole, shards)


def _written(manifest: DatasetManifest, out_dir: Path, elapsed_s: float) -> DatasetWritten:
    return DatasetWritten(
        path=str(out_dir),
        train_tokens=manifest.tokens("train"),
        val_tokens=manifest.tokens("val"),
        shards=len(manifest.train) + len(manifest.val),
        documents=manifest.counts.documents,
        source_bytes=manifest.counts.source_bytes or manifest.counts.text_bytes,
        elapsed_s=elapsed_s,
    )
