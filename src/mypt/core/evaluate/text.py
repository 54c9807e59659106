"""Which text models are scored on: the one that is named, or the one that a model was trained on."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from mypt.core.checkpoint.snapshot import Snapshot
from mypt.core.data.choices import read_choices
from mypt.core.data.corpus import read_corpus
from mypt.core.data.splits import Corpus
from mypt.core.data.stream import TokenStream
from mypt.core.data.text.sources import require_text
from mypt.errors import DataError, UsageError
from mypt.events import Event, Noted, Warned
from mypt.records.evaluation import EvaluationConfig
from mypt.records.plan import STDIN
from mypt.records.run import DataConfig

_NAME_SOME = "Name some: --input-file TEXT, or --dataset-dir DIR."


@dataclass(frozen=True, slots=True)
class Text:
    """Files or datasets, and by which rule they become documents and splits."""

    data: DataConfig
    owner: Snapshot | None
    """The model whose own text it is."""

    @property
    def names(self) -> tuple[str, ...]:
        """Files or datasets, as they were named."""
        return self.data.dataset_dir or self.data.input_files


def choose_text(config: EvaluationConfig, models: Sequence[Snapshot]) -> Generator[Event, None, Text]:
    """Decide on the text. What is held out of it is decided by the first model's rule.

    Raises:
        UsageError: when none is named, and the first model does not tell its own.
        DataError: when it is not there.
    """
    first = models[0]
    own, name = first.training.data, first.name
    # A whole text has one order; dealt out to two splits it would have another.
    rule = {"val_fraction": 0.0 if config.split == "all" else own.val_fraction}
    if config.input_files or config.dataset_dir:
        given = {"input_files": config.input_files, "dataset_dir": config.dataset_dir}
        data = own.model_copy(update=rule | given | {"text_format": "auto", "deduplicate": False})
        require_text(data)
        text = Text(data, None)
        if config.input_files:
            yield from _other_rules(models)
    else:
        _require_own(own, name)
        text = Text(own.model_copy(update=rule), first)
        yield Noted(f"the text that {name} was trained on: {', '.join(text.names)}")
    return text


def read_split(
    text: Text, config: EvaluationConfig, models: Sequence[Snapshot]
) -> Generator[Event, None, tuple[Corpus, TokenStream]]:
    """Read the text with the tokenizer of these models, which is one, and give the split that is to be scored.

    Raises:
        DataError: when the text is unfit, belongs to another tokenizer, or is too short.
    """
    names = ", ".join(model.name for model in models)
    try:
        corpus = yield from _read(text, config, models[0])
    except DataError as problem:
        raise DataError(f"{names}: {problem.message}", hint=problem.hint) from None
    owner, is_same_cut = text.owner, config.split != "all" or bool(text.data.dataset_dir)
    if owner is not None and owner.tokenizer == corpus.spec and is_same_cut:
        saved = owner.training.data_fingerprint
        if saved not in {"", corpus.fingerprint}:
            yield Warned(f"the text is not the one {owner.name} was trained on: it has changed since")
    splits = {"train": corpus.train, "val": corpus.val, "all": corpus.train.followed_by(corpus.val)}
    _require_two(len(splits[config.split]), text, config)
    return corpus, splits[config.split]


def _read(text: Text, config: EvaluationConfig, model: Snapshot) -> Generator[Event, None, Corpus]:
    reading = read_corpus(text.data, model.tokenizer, unknown=config.unknown)
    if len(text.data.dataset_dir) > 1:
        yield Noted("the datasets are scored end to end: every token counts once, whatever the weights say")
    while True:
        try:
            event = next(reading)
        except StopIteration as end:
            return end.value
        # How training would mix datasets is nothing to tell here.
        if not (text.data.dataset_dir and isinstance(event, Noted)):
            yield event


def _require_own(own: DataConfig, name: str) -> None:
    if STDIN in own.input_files:
        raise UsageError(f"{name} was trained on standard input, which is gone", hint=_NAME_SOME)
    if not (own.input_files or own.dataset_dir):
        raise UsageError(f"{name} does not say which text it was trained on", hint=_NAME_SOME)
    missing = _missing(own)
    if missing:
        raise DataError(f"the text that {name} was trained on is not here: {missing}", hint=_NAME_SOME)


def _missing(own: DataConfig) -> str:
    """What of a text is not there, in words; nothing where all is."""
    try:
        require_text(own)
    except DataError as problem:
        return problem.message
    paths = [choice.path for choice in read_choices(own.dataset_dir)]
    return next((f"{path}: no such folder" for path in paths if not path.exists()), "")


def _other_rules(models: Sequence[Snapshot]) -> Generator[Noted]:
    first, *others = models
    rule = first.training.data.text()
    differing = [other.name for other in others if other.training.data.text() != rule]
    if differing:
        yield Noted(
            f"the text is read, and split, as {first.name} was trained to; {', '.join(differing)} had other settings"
        )


def _require_two(tokens: int, text: Text, config: EvaluationConfig) -> None:
    least = 2
    if tokens >= least:
        return
    wider = "" if config.split == "all" else " --split all takes the whole text."
    raise DataError(
        f"{', '.join(text.names)}: the split '{config.split}' has {tokens:,} tokens, and a score needs two: "
        "one to predict, and one before it",
        hint=f"Use more text.{wider}",
    )
