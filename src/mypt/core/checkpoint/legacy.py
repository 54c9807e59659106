"""The original MyPT's checkpoints -> states of today. The original files are kept.

Two old forms: one .pt file with everything, or a folder with model.pt and JSON files. Both are
read with weights_only=True: a pickle that would run code is refused and does not run.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mypt.core.checkpoint.legacy_file import (
    LegacyCheckpoint,
    Tensors,
    is_mask,
    is_plain_tensor,
    plain_mapping,
    read_legacy,
)
from mypt.core.checkpoint.snapshot import Contents, weights_of
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.model.gpt import GPT
from mypt.errors import CheckpointError
from mypt.events import Converted, Event, Noted
from mypt.records.checkpoint import TrainingState
from mypt.records.legacy import legacy_data
from mypt.records.reports import FileEntry, ModelReport

_RENAMES = (
    (r"^token_embedding_table\.", "token_embedding."),
    (r"^position_embedding_table\.", "position_embedding."),
    (r"\.sa\.proj\.", ".attention.output."),
    (r"\.fwd\.net\.0\.", ".mlp.up."),
    (r"\.fwd\.net\.2\.", ".mlp.down."),
    (r"\.ln1\.", ".attention_norm."),
    (r"\.ln2\.", ".mlp_norm."),
    (r"^ln_f\.", "final_norm."),
    (r"^lm_head\.", "head."),
)
# A float counts on from here no more.
_MOST_STEPS = 2**24
_HEAD = re.compile(r"(blocks\.\d+)\.sa\.heads\.(\d+)\.(query|key|value)\.(weight|bias)")


def legacy_files(folder: Path) -> list[Path]:
    """The checkpoints in a model's folder: model.pt of the folder format, else each single file."""
    if (folder / "model.pt").is_file() and (folder / "config.json").is_file():
        return [folder / "model.pt"]
    return sorted(path for path in folder.glob("*.pt") if path.name not in {"model.pt", "optimizer.pt"})


def newest_legacy(folder: Path) -> Path:
    """The one to convert when none is named: the original's own preference, then the newest file."""
    paths = legacy_files(folder)
    by_name = {path.name: path for path in paths}
    return by_name.get("latest.pt") or by_name.get("final.pt") or max(paths, key=lambda path: path.stat().st_mtime)


def convert(path: Path, directory: ModelDirectory, *, dry_run: bool) -> Iterator[Event]:
    """Translate one old checkpoint into a state of `directory`, optimizer and step included.

    Raises:
        CheckpointError: when the file is unfit.
    """
    old = read_legacy(path)
    config = old.config.model()
    # Before anything is built: a config can ask for any size.
    _require_sound(old, config.parameters)
    model = GPT(config)
    step = old.state.step or 0
    target = directory.path / f"step-{step:08d}"
    if target.exists():
        yield Noted(f"{path}: already converted as {target}, nothing was changed")
        return
    try:
        model.load_state_dict(translate(old.weights, config.n_layer, config.n_head))
        moments = _moments(old, model)
    except (RuntimeError, KeyError) as problem:
        raise _do_not_fit(path, str(problem)) from None
    if not dry_run:
        training = old.state.training(old.config.batch_size)
        state = TrainingState(
            model_name=directory.name,
            step=step,
            # The original drew windows at random and kept no count; this is how many it drew.
            samples_seen=step * training.batch_size,
            training=training,
            data=legacy_data(old.tokenizer),
            versions={"converted_from": path.name},
        )
        with directory.lock():
            directory.publish(Contents(config, old.tokenizer, state, weights_of(model), moments))
    yield Converted(
        source=str(path),
        target=str(target),
        step=step,
        parameters=config.parameters,
        tokenizer=old.tokenizer.kind,
        has_optimizer=bool(moments),
        dry_run=dry_run,
    )


def translate(old: Mapping[str, Tensor], n_layer: int, n_head: int) -> Tensors:
    """Rename the original's tensors and fuse its per-head projections.

    The fused matrix holds the rows of all query heads, then all key heads, then all value heads.
    It serves weights and the optimizer's moments alike.
    """
    new: Tensors = {}
    for name, tensor in old.items():
        if is_mask(name) or _HEAD.fullmatch(name):
            continue
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901 - the name is what is being made
        new[name] = tensor
    for layer in range(n_layer):
        for part in ("weight", "bias"):
            rows = [
                old[key]
                for role in ("query", "key", "value")
                for head in range(n_head)
                if (key := f"blocks.{layer}.sa.heads.{head}.{role}.{part}") in old
            ]
            if rows:
                new[f"blocks.{layer}.attention.query_key_value.{part}"] = torch.cat(rows)
    return new


def _require_sound(old: LegacyCheckpoint, expected: int) -> None:
    found = sum(tensor.numel() for name, tensor in old.weights.items() if not is_mask(name))
    if found != expected:
        raise _do_not_fit(old.source, f"{found:,} parameters, the config makes {expected:,}")
    for name, tensor in old.weights.items():
        if not is_mask(name) and not tensor.isfinite().all():
            raise CheckpointError(
                f"{old.source}: {name} holds numbers that are none (NaN or infinite)",
                hint="The run had diverged when it was saved: convert an earlier file.",
            )


def _do_not_fit(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: its tensors do not fit its config ({what})")


def _moments(old: LegacyCheckpoint, model: GPT) -> Tensors:
    """Carry AdamW's moments over: the original numbered them in the order of its parameters.

    What is no optimizer of this model, or has diverged, is left behind: AdamW then begins anew.
    """
    memory = plain_mapping(plain_mapping(old.optimizer).get("state"))
    names = [name for name in old.weights if not is_mask(name)]
    kept = [_Moments.of(memory.get(index), old.weights[name]) for index, name in enumerate(names)]
    whole = [each for each in kept if each]
    if len(memory) != len(names) or len(whole) != len(names):
        return {}
    config = model.config
    first, second = (
        translate(dict(zip(names, values, strict=True)), config.n_layer, config.n_head)
        for values in ([each.exp_avg for each in whole], [each.exp_avg_sq for each in whole])
    )
    moments: Tensors = {}
    for name, _ in model.named_parameters():
        moments[f"{name}/step"] = torch.tensor(whole[0].step, dtype=torch.float32)
        moments[f"{name}/exp_avg"], moments[f"{name}/exp_avg_sq"] = first[name], second[name]
    return moments


class _Moments(NamedTuple):
    """What AdamW keeps of one parameter."""

    step: float
    exp_avg: Tensor
    exp_avg_sq: Tensor

    @classmethod
    def of(cls, values: object, weight: Tensor) -> "_Moments | None":
        """Those in an old file; None where they are not this weight's, or no numbers any more."""
        found = plain_mapping(values)
        step = found.get("step")
        step = step.item() if isinstance(step, Tensor) and step.numel() == 1 else step
        moments = [found.get("exp_avg"), found.get("exp_avg_sq")]
        tensors = [each for each in moments if is_plain_tensor(each) and each.shape == weight.shape]
        if not isinstance(step, int | float) or len(tensors) != len(moments):
            return None
        is_sound = all(bool(each.isfinite().all()) for each in tensors)
        return cls(float(step), *tensors) if is_sound and 0 <= step < _MOST_STEPS else None


def report_legacy(path: Path) -> ModelReport:
    """Describe an old checkpoint without converting it.

    Raises:
        CheckpointError: when it is not one, or would run code.
    """
    old = read_legacy(path)
    config = old.config.model()
    step = old.state.step or 0
    return ModelReport(
        kind="legacy checkpoint",
        name=path.parent.name,
        path=str(path),
        parameters=sum(tensor.numel() for name, tensor in old.weights.items() if not is_mask(name)),
        step=step,
        tokens_seen=step * old.config.batch_size * config.block_size,
        tokenizer=old.tokenizer.kind,
        vocab_size=old.tokenizer.vocab_size,
        config=config,
        files=(FileEntry(name=path.name, size_bytes=path.stat().st_size),),
        size_bytes=path.stat().st_size,
    )
