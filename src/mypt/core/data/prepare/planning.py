"""Config -> plan: the inputs as they are now, what they will become, and whether there is room."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from mypt.core.data.text.documents import read_documents
from mypt.core.data.text.sources import find_sources, with_parts
from mypt.core.data.text.spans import Tally
from mypt.core.data.text.units import cut_units, unit_bytes_for
from mypt.core.tokens.base import Tokenizer, id_dtype
from mypt.errors import DataError, UsageError
from mypt.records.plan import STDIN, PrepareConfig, PreparePlan, SourceFile
from mypt.records.run import DataConfig
from mypt.records.tokenizer import TokenizerSpec
from mypt.units import human_bytes

_SAMPLE_CHARS = 2**18
_SAMPLED_UNITS = 8
# How far compressed input is read to learn its ratio: far beyond what is read ahead.
_UNPACKED_BYTES = 2**22


def make_plan(config: DataConfig, options: PrepareConfig, spec: TokenizerSpec | None) -> PreparePlan:
    """Fix the work.

    Args:
        config: the inputs and what a document is.
        options: of these, only the size of the shards is part of the plan.
        spec: the tokenizer; None where the text decides it.

    Raises:
        DataError: when there is no text.
    """
    sources = tuple(with_parts(source) for source in find_sources(config.input_files, config.text_format))
    return PreparePlan(
        text=config.text(),
        tokenization=config.tokenization,
        tokenizer_sha256=hashlib.sha256(spec.model_dump_json().encode()).hexdigest() if spec else "",
        tokens_per_shard=options.tokens_per_shard,
        unit_bytes=unit_bytes_for(sources),
        sources=sources,
    )


def describe_change(old: PreparePlan, new: PreparePlan) -> str:
    """Name what differs between two plans, in a few words."""
    before, after = old.model_dump(), new.model_dump()
    if before["sources"] != after["sources"]:
        names = {source.path for source in new.sources} ^ {source.path for source in old.sources}
        changed = {source.path for source in set(new.sources) ^ set(old.sources)}
        return f"other files ({', '.join(sorted(names or changed)[:3])})"
    fields = [name for name in before["text"] if before["text"][name] != after["text"][name]]
    fields += [name for name in before if name != "text" and before[name] != after[name]]
    return f"another {', '.join(fields)}"


def worker_count(options: PrepareConfig) -> int:
    """Processes to use: as asked for, or one for each core this process may use."""
    if options.workers:
        return options.workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Sample:
    """The beginnings of some units."""

    texts: list[str]
    expansion: float
    """Bytes of text in a byte of compressed input."""


def take_sample(plan: PreparePlan) -> Sample:
    """Read a little from units all over the input; nothing from what can be read only once."""
    units = [unit for unit in cut_units(plan.sources, plan.unit_bytes) if plan.sources[unit[0].source].path != STDIN]
    chosen = units[:: max(1, len(units) // _SAMPLED_UNITS)][:_SAMPLED_UNITS]
    texts: list[str] = []
    expansions: list[float] = []
    for unit in chosen:
        is_compressed = plan.sources[unit[0].source].compression != ""
        tally, chars = Tally(), 0
        for piece in read_documents(unit[:1], plan.sources, plan.text, tally):
            room = _SAMPLE_CHARS // len(chosen) - chars
            if room > 0:
                texts.append(piece.text[:room])
                chars += len(texts[-1])
            if room <= len(piece.text) and not (is_compressed and tally.text_bytes < _UNPACKED_BYTES):
                break
        if is_compressed and tally.read_bytes:
            expansions.append(tally.text_bytes / tally.read_bytes)
    return Sample(texts, sum(expansions) / len(expansions) if expansions else 1.0)


def estimate_tokens(plan: PreparePlan, sample: Sample, tokenizer: Tokenizer) -> int:
    """Tokens of the whole input, if it goes on as its sample begins; 0 where nothing is known."""
    sample_bytes = sum(len(text.encode()) for text in sample.texts)
    if not sample_bytes:
        return 0
    ids, _ = tokenizer.encode_batch(sample.texts)
    return round(sum(_text_bytes(source, sample) for source in plan.sources) * ids.size / sample_bytes)


def _text_bytes(source: SourceFile, sample: Sample) -> float:
    """Bytes a source has when it is unpacked, as far as that is known."""
    return sum(source.part_bytes) or source.size_bytes * (sample.expansion if source.compression else 1)


def require_disk(
    out_dir: Path, tokens: int, done_tokens: int, tokenizer: Tokenizer, options: PrepareConfig
) -> tuple[int, int]:
    """Refuse work whose result cannot fit. Gives (bytes of the result, bytes free).

    While shards are made, the units they come from still lie beside them.

    Args:
        out_dir: where the result goes.
        tokens: of the whole result, as estimated.
        done_tokens: of these, what an earlier call has put on the disk.
        tokenizer: how large a token is.
        options: how many shards are made at a time.

    Raises:
        DataError: with both sizes.
    """
    item_bytes = id_dtype(tokenizer.vocab_size).itemsize
    result_bytes = tokens * item_bytes
    in_flight = min(tokens, worker_count(options) * options.tokens_per_shard) * item_bytes
    home = next(path for path in out_dir.absolute().parents if path.exists())
    free_bytes = shutil.disk_usage(home).free
    missing_bytes = max(0, tokens - done_tokens) * item_bytes
    if missing_bytes + in_flight > free_bytes:
        raise DataError(
            f"{home}: {human_bytes(free_bytes)} free, the dataset needs about {human_bytes(missing_bytes)} "
            f"and {human_bytes(in_flight)} more on the way; nothing was written",
            hint="Choose an --out-dir on a larger disk, or a smaller --tokens-per-shard.",
        )
    return result_bytes, free_bytes


def require_sense(config: DataConfig, options: PrepareConfig) -> None:
    """Refuse options that cannot be meant together.

    Raises:
        UsageError: naming them.
    """
    if config.tokenization == "char" and STDIN in config.input_files:
        raise UsageError("char reads the text twice, standard input can be read once; save it in a file")
    if (options.rank is None) != (options.world is None):
        raise UsageError("--rank and --world belong together", hint="For example: --rank 0 --world 8")
    if options.rank is None or options.world is None:
        return
    if options.rank >= options.world:
        raise UsageError(f"--rank {options.rank}: ranks of a world of {options.world} are 0 to {options.world - 1}")
    if options.fresh:
        raise UsageError("--fresh is for one machine: before ranks begin, delete the unfinished folder (OUT.partial)")
    if options.finish:
        raise UsageError("--finish is for one machine, when all ranks are done; leave --rank and --world out")
    if config.tokenization == "char":
        raise UsageError(
            "char takes its characters from all of the text, which one rank does not see",
            hint="Make the tokenizer first: mypt tokenizer train FILES --kind char --out chars.json",
        )
    if STDIN in config.input_files:
        raise UsageError("standard input cannot be shared by several machines; save it in files")
