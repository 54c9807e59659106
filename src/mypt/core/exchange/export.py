"""The export verb: a model in, the files of another program out, checked by that program before they get their name."""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch

from mypt.core.checkpoint.snapshot import Snapshot, read_newest
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.checkpoint.tensors import is_finite
from mypt.core.device import NARROW, Precision, shortage_told
from mypt.core.exchange import gguf, hugging_face
from mypt.core.exchange.by_llama_cpp import check_by_llama_cpp, require_llama_cpp
from mypt.core.exchange.by_transformers import check_by_transformers, require_transformers
from mypt.core.exchange.comparison import Checked, compared
from mypt.core.model.gpt import GPT
from mypt.core.model.int8 import is_int8
from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.build import build_tokenizer
from mypt.core.tokens.write import require_free
from mypt.durable import make_directory, own_name, publish_directory, remove_directory, rename, size_on_disk
from mypt.errors import CheckpointError, MemoryShortageError, MyptError, UsageError
from mypt.events import Event, Exported, Warned
from mypt.records.export import ExportConfig, ExportFormat


class _Format(NamedTuple):
    """How a model leaves."""

    suffix: str
    """Of the usual name."""
    require_program: Callable[[], None]
    """Refuses where the program that checks is not installed."""
    write: Callable[[Snapshot, GPT, Path], None]
    require_same_weights: Callable[[Path, GPT, int], None]
    check: Callable[[Path, GPT, Tokenizer], Checked]


_FORMATS: dict[ExportFormat, _Format] = {
    "hf": _Format(
        "-hf", require_transformers, hugging_face.write, hugging_face.require_same_weights, check_by_transformers
    ),
    "gguf": _Format(".gguf", require_llama_cpp, gguf.write, gguf.require_same_weights, check_by_llama_cpp),
}


def export_model(source: ModelDirectory, out: Path | None, config: ExportConfig) -> Generator[Event]:
    """Write the newest state of a model for other programs; the model is only read.

    Args:
        source: the model.
        out: the new folder, or file; NAME-hf or NAME.gguf if None.
        config: what it is to be.

    Raises:
        DataError: when something is at `out`, or the other program does not know such a tokenizer.
        CheckpointError: when there is no such model, or none that other programs could have.
        UsageError: when its numbers do not fit the precision, or other programs cannot open such a name.
        MissingExtraError: when the program that checks what is written is not installed.
        MemoryShortageError: when the model does not fit twice.
        MyptError: when the disk refuses, or that program says something else; nothing is left then.
    """
    form = _FORMATS[config.to]
    out = out or Path(f"{source.name}{form.suffix}")
    require_free(out)
    _require_name(out)
    form.require_program()
    warnings: list[str] = []
    with shortage_told(lambda: MemoryShortageError(f"out of memory: {source.name} does not fit twice, to be compared")):
        snapshot, model = read_newest(source, _read, warnings.append)
        yield from map(Warned, warnings)
        _require_exportable(source, model)
        _narrow(model, config.precision)
        tokenizer = build_tokenizer(snapshot.tokenizer)
        with _published(out) as path:
            with _disk_told(out):
                form.write(snapshot, model, path)
            with compared(out):
                form.require_same_weights(path, model, tokenizer.vocab_size)
                checked = form.check(path, model, tokenizer)
    yield Exported(
        source=str(snapshot.state.path),
        target=str(out),
        format=config.to,
        precision=config.precision,
        step=snapshot.training.step,
        size_bytes=size_on_disk(out),
        checked_by=checked.program,
        largest_difference=checked.largest_difference,
    )


def _read(newest: Snapshot) -> tuple[Snapshot, GPT]:
    """A state and its model at once: a running training may retire it any time."""
    return newest, newest.load(torch.device("cpu"))


def _require_exportable(source: ModelDirectory, model: GPT) -> None:
    """Refuse what has no counterpart.

    Raises:
        CheckpointError: for weights in int8, and for the original program's architecture.
    """
    if is_int8(model):
        raise CheckpointError(
            f"{source.path}: its weights are in int8", hint="Export the model that they were made of."
        )
    if model.config.family not in hugging_face.LAYOUTS:
        raise CheckpointError(
            f"{source.path}: family {model.config.family} is known to no other program",
            hint=f"Models of the families {' and '.join(hugging_face.LAYOUTS)} can be exported.",
        )


def _require_name(out: Path) -> None:
    """Refuse a name that other programs cannot open.

    Raises:
        UsageError: when it is not valid UTF-8.
    """
    try:
        str(out.absolute()).encode()
    except UnicodeEncodeError:
        raise UsageError(f"--out {out}: not valid UTF-8, so other programs cannot open it") from None


def _narrow(model: GPT, precision: Precision) -> None:
    """Give weights the type they are stored in.

    Raises:
        UsageError: when there are some that it does not hold.
    """
    if precision == "fp32":
        return
    model.to(NARROW[precision])
    for name, tensor in model.state_dict().items():
        if not is_finite(tensor):
            raise UsageError(f"{name}: has numbers too large for {precision}", hint="Use --precision fp32.")


@contextmanager
def _published(out: Path) -> Generator[Path]:
    """A name beside `out` for a folder or a file, which is renamed at the end if nothing went wrong.

    Raises:
        DataError: when something is at `out` by then.
        MyptError: when the disk refuses.
    """
    final = out.absolute()
    temporary = own_name(final)
    try:
        with _disk_told(out):
            make_directory(final.parent)
        yield temporary
        require_free(out)
        with _disk_told(out):
            (publish_directory if temporary.is_dir() else rename)(temporary, final)
    finally:
        with suppress(OSError):
            (remove_directory if temporary.is_dir() else os.unlink)(temporary)


@contextmanager
def _disk_told(out: Path) -> Generator[None]:
    """Say in our words what the disk refuses.

    Raises:
        MyptError: instead of an OSError.
    """
    try:
        yield
    except OSError as problem:
        reason = problem.strerror or "the disk took only a part of it"
        raise MyptError(f"{out}: cannot write it ({reason})") from None
