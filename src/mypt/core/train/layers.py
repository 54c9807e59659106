"""What a saved model already decides about a run: the weakest layer of its settings. No torch."""

from mypt.core.checkpoint.state import CONFIG_FILE, STATE_FILE, State
from mypt.core.checkpoint.store import ModelDirectory, no_such_model
from mypt.errors import MyptError
from mypt.records.presets import DEFAULT_PRESET, find_config
from mypt.records.resolve import Layer
from mypt.records.run import DataConfig
from mypt.records.tokenizer import TOKENIZER_FILE

_SETTINGS = (CONFIG_FILE, TOKENIZER_FILE, STATE_FILE)


def base_layers(config_file: str | None, existing: ModelDirectory | None, base: ModelDirectory | None) -> list[Layer]:
    """The layers below a user's own settings, weakest first.

    Args:
        config_file: a preset's name or a path; the default preset where there is no model either.
        existing: the model that may be resumed: its architecture, hyper-parameters and text count.
        base: the model to start from: its architecture and tokenizer count.

    Raises:
        UsageError: when the config file is neither a file nor a preset.
        CheckpointError: when the base model is needed and has no state that can be read.
    """
    saved = _own_layer(existing) or _base_layer(base)
    layers = [saved] if saved else []
    if config_file is not None or not saved:
        layers.append(Layer(*find_config(DEFAULT_PRESET if config_file is None else config_file), is_whole=True))
    return layers


def require_own_text(config: DataConfig, existing: ModelDirectory | None) -> None:
    """Say why there is no text to go on with: a model whose states are all damaged cannot name it.

    Raises:
        CheckpointError: when that is the reason.
    """
    if existing is not None and not (config.input_files or config.dataset_dir) and _newest(existing) is None:
        existing.newest(_SETTINGS, lambda _: None, quarantine=False)


def _own_layer(directory: ModelDirectory | None) -> Layer | None:
    state = _newest(directory)
    if directory is None or state is None:
        return None
    training = state.training()
    values = {
        "model": state.config().model_dump(),
        "training": training.training.model_dump(),
        "data": training.data.model_dump(mode="json"),
    }
    return Layer(f"model {directory.name}", values, is_whole=True)


def _base_layer(directory: ModelDirectory | None) -> Layer | None:
    if directory is None:
        return None
    state = _newest(directory)
    if state is None:
        # Said now, so that a dry run says it too: missing, broken, or of the original program.
        directory.newest(_SETTINGS, lambda _: None, quarantine=False)
        raise no_such_model(directory)
    values = {"model": state.config().model_dump(), "data": {"tokenization": state.tokenizer().kind}}
    return Layer(f"model {directory.name}", values, is_whole=True)


def _newest(directory: ModelDirectory | None) -> State | None:
    """The newest state whose settings verify; the engine tells of broken ones."""
    for state in directory.states() if directory else []:
        try:
            state.verify(_SETTINGS)
        except MyptError:
            continue
        return state
    return None
