"""How a run begins: fresh, from a saved state of its own, or from another model's weights."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import torch

from mypt.core.checkpoint.snapshot import Snapshot, open_snapshot, parameter_names, read_newest
from mypt.core.checkpoint.state import ALL_FILES, MODEL_FILE, OPTIMIZER_FILE
from mypt.core.checkpoint.store import ModelDirectory, no_such_model
from mypt.core.checkpoint.tensors import build_with, load_moments, load_tensors, load_weights
from mypt.core.data.corpus import Corpus, read_corpus
from mypt.core.device import Device, choose_device, computes_bf16
from mypt.core.heap import keep_freed_memory, make_room
from mypt.core.model.gpt import GPT
from mypt.core.model.kernels.code import NO_KERNELS
from mypt.core.seeds import mix
from mypt.core.tokens.find import NAMES, find_tokenizer
from mypt.core.train.kernels import with_kernels
from mypt.core.train.memory import predicted_bytes
from mypt.core.train.precision import with_fastest_precision
from mypt.core.train.progress import Progress
from mypt.core.train.session import Session
from mypt.errors import CheckpointError, UsageError
from mypt.events import Event, Warned
from mypt.records.model import ModelConfig
from mypt.records.run import RunConfig, TrainingConfig
from mypt.records.tokenizer import TokenizerSpec

# Dropout is no part of the weights: each run's own value counts.
_FREE_FIELDS = {"dropout"}
_FIRST_ARITHMETIC = "1"
"""Of states that do not say it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a run's first weights come from."""

    own: Snapshot | None = None
    """The run's own newest state: resume."""
    other: Snapshot | None = None
    """Another model: start at step 0 with its weights."""
    base: ModelDirectory | None = None
    """Where that other model lives; its training may go on and retire the state meanwhile."""

    @property
    def begun(self) -> Snapshot | None:
        """The own state, if steps were made: then the run goes on as it did. An imported model has made none."""
        return self.own if self.own and self.own.training.step else None

    @property
    def tokenizer_source(self) -> Snapshot | None:
        """The model whose tokenizer the text must be read with, if any."""
        return self.own or self.other


def find_origin(
    directory: ModelDirectory | None, init_from: ModelDirectory | None, warn: Callable[[str], None]
) -> Origin:
    """Look for weights to begin with. Called with the lock held: broken states are set aside.

    Args:
        directory: the run's own model, or None to begin anew whatever is there.
        init_from: the model to start from where there is no own one.
        warn: told about broken states, and about what is passed over.

    Raises:
        CheckpointError: when the base model is missing, or no state is whole.
    """
    state = directory.newest(ALL_FILES, warn, quarantine=True) if directory else None
    if state is not None:
        own = Snapshot.of(state)
        if init_from is not None and own.training.initialized_from != init_from.name:
            warn(f"{state.path.parent} has begun already: --init-from-model {init_from.name} is passed over")
        if own.training.step and not (state.path / OPTIMIZER_FILE).is_file():
            warn(f"{state.path} has no optimizer state: the optimizer begins anew")
        return Origin(own=own)
    if init_from is None:
        return Origin()
    if not init_from.states() and not init_from.has_legacy_files():
        raise no_such_model(init_from)
    return Origin(other=open_snapshot(init_from, warn), base=init_from)


def run_device(config: RunConfig, own: Snapshot | None) -> Generator[Event, None, Device]:
    """Decide where a run happens, and how but for compiling; one that goes on keeps what it had, where it is there.

    Whatever was not decided before is decided by what is fastest here.

    Raises:
        UsageError: for a device this machine does not have, and kernels that it is told to have and cannot.
    """
    training = config.training
    device, is_open = _with_own_precision(choose_device(training.device, training.precision), training, own)
    device = yield from with_kernels(config, device, own)
    return (yield from with_fastest_precision(device, config.model)) if is_open else device


def _with_own_precision(device: Device, training: TrainingConfig, own: Snapshot | None) -> tuple[Device, bool]:
    """The device with what the run had before, and whether a trial is still to decide between fp32 and bf16."""
    if training.precision != "auto":
        return device, False
    saved = own.training.versions if own else {}
    if saved.get("device", "").startswith(device.kind):
        precision = saved.get("precision")
        if precision in ("fp32", "fp16") or (precision == "bf16" and computes_bf16(device.torch) is not False):
            return replace(device, precision=precision), False
    return device, device.kind == "cpu" and computes_bf16(device.torch) is not False


def is_to_compile(config: RunConfig, own: Snapshot | None) -> bool | None:
    """Whether steps are to be compiled; None where a trial is to say. A run that goes on does as it did."""
    if config.training.compile != "auto":
        return config.training.compile == "on"
    return None if own is None else own.training.versions.get("compiled") == "yes"


def read_text(config: RunConfig, origin: Origin) -> Generator[Event, None, Corpus]:
    """Read the text with the tokenizer of the model that is gone on with, if there is one.

    Raises:
        UsageError: when another tokenization than the model's is asked for.
        DataError: when the text is unfit or too short.
    """
    source = origin.tokenizer_source
    if source is not None and not config.data.dataset_dir:
        _require_same_tokenizer(config.data.tokenization, source.tokenizer)
    corpus = yield from read_corpus(config.data, source.tokenizer if source else None)
    corpus.require_blocks(config.model.block_size)
    if config.training.document_mask:
        corpus.require_documents()
    if origin.own is not None and origin.own.training.data_fingerprint not in {"", corpus.fingerprint}:
        yield Warned("the training text is not the one this model was trained on so far")
    return corpus


def _require_same_tokenizer(wanted: str, own: TokenizerSpec) -> None:
    """Refuse a tokenization other than the model's; a model's own word for it is the kind alone."""
    if wanted == own.kind:
        return
    if wanted in NAMES or find_tokenizer(wanted) != own:
        raise UsageError(
            f"--tokenization {wanted}: the model's tokenizer is another one ({own.kind}, {own.vocab_size:,} ids)",
            hint="Leave --tokenization out, or train a new model.",
        )


def other_surroundings(saved: dict[str, str], now: dict[str, str]) -> Generator[Warned]:
    """Tell what is not as it was, of all that the bits depend on."""
    names = ("arithmetic", "torch", "device", "precision", "compiled", "kernels", "instructions")
    saved = {"arithmetic": _FIRST_ARITHMETIC, "compiled": "no", "kernels": NO_KERNELS} | saved
    changed = [name for name in names if saved.get(name, now[name]) != now[name]]
    if changed:
        told = ", ".join(f"{name} {saved[name]} before and {now[name]} now" for name in changed)
        yield Warned(f"the run goes on, but not with the bits of an unbroken one: {told}")


def another_optimizer(saved: TrainingConfig, now: TrainingConfig) -> Generator[Warned]:
    """Tell that an optimizer's memory is of no use to the one that goes on."""
    if saved.optimizer != now.optimizer:
        yield Warned(f"the optimizer was {saved.optimizer} and is {now.optimizer} now: it begins anew, without moments")


def begin(config: RunConfig, corpus: Corpus, origin: Origin, device: Device) -> Session:
    """Build the session at its first step.

    Raises:
        CheckpointError: when the architecture does not fit the saved one.
    """
    if device.kind == "cpu":
        keep_freed_memory()
        make_room(predicted_bytes(config, device, config.training.sequences_at_once))
    if origin.own is not None:
        return _resume(config, corpus, origin.own, device)
    if origin.other is not None and origin.base is not None:
        model = read_newest(origin.base, lambda base: _adopt(config.model, base, device), lambda _: None)
        return Session(config, corpus, model, device, Progress(), origin.other.training.model_name)
    torch.manual_seed(mix(config.training.seed))
    return Session(config, corpus, GPT(config.model).to(device.torch), device, Progress())


def _resume(config: RunConfig, corpus: Corpus, snapshot: Snapshot, device: Device) -> Session:
    _require_same(config.model, snapshot.config, snapshot, "changing the architecture of an existing model is refused")
    model = load_weights(config.model, snapshot.state.path / MODEL_FILE, device.torch)
    saved = snapshot.training
    session = Session(config, corpus, model, device, Progress.of(saved), saved.initialized_from, saved.loss_scale)
    path = snapshot.state.path / OPTIMIZER_FILE
    if path.is_file() and saved.training.optimizer == config.training.optimizer:
        session.optimizer.make_moments()
        load_moments(session.optimizer.state, parameter_names(model), path)
    return session


def _adopt(config: ModelConfig, base: Snapshot, device: Device) -> GPT:
    """Start from another model's weights; a shorter context takes the first positions, where they are learned."""
    is_free = config.traits.rotary or config.block_size < base.config.block_size
    comparable = base.config.model_copy(update={"block_size": config.block_size}) if is_free else base.config
    _require_same(config, comparable, base, "cannot start from this model")
    path = base.state.path / MODEL_FILE
    weights = load_tensors(path, device.torch)
    if not config.traits.rotary:
        weights["position_embedding.weight"] = weights["position_embedding.weight"][: config.block_size].clone()
    return build_with(config, weights, path)


def _require_same(wanted: ModelConfig, saved: ModelConfig, snapshot: Snapshot, what: str) -> None:
    """Refuse a different architecture.

    Raises:
        CheckpointError: naming every key that differs.
    """
    differences = {key: pair for key, pair in wanted.differences(saved).items() if key not in _FREE_FIELDS}
    if differences:
        listed = ", ".join(f"{key} = {mine} (saved: {theirs})" for key, (mine, theirs) in differences.items())
        message = f"{snapshot.state.path}: {what}: {listed}"
        raise CheckpointError(
            message,
            hint="Leave out these settings, or the --config-file they come from; or take another --model-name; "
            "or --fresh, which sets the old model aside.",
        )
