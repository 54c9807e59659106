"""transformers loads a folder, and has to say what the model says.

Letters: T tokens, V vocabulary.
"""

import json
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from mypt.core.device import is_shortage
from mypt.core.exchange.comparison import Checked, odd_texts, random_ids, require_numbers
from mypt.core.model.gpt import GPT
from mypt.core.tokens.base import Tokenizer, decode
from mypt.errors import MissingExtraError, MyptError
from mypt.records.hugging_face import ModelSettings

_TOLERANCE = 1e-4
"""Of the largest logit: sums in another order differ by a hundredth of it."""


def require_transformers() -> None:
    """Look for the library.

    Raises:
        MissingExtraError: when it is not installed.
    """
    if find_spec("transformers") is None:
        raise MissingExtraError("models are compared by the package transformers", hint="pip install 'mypt[export]'")


@torch.inference_mode()
def check_by_transformers(
    folder: Path, model: GPT, tokenizer: Tokenizer, settings: ModelSettings | None = None
) -> Checked:
    """Check that transformers gives the tokenizer's ids and the model's logits.

    Args:
        folder: what it loads.
        model: what is in it; it is turned to fp32.
        tokenizer: the model's.
        settings: of a folder that somebody else has made; nothing else in its config.json counts.

    Returns:
        The largest difference of a logit, where both compute in fp32.

    Raises:
        MyptError: when transformers cannot load the folder, or says something else.
    """
    program = f"transformers {version('transformers')}"
    ids = {text: tokenizer.encode(text).tolist() for text in odd_texts(tokenizer)}
    ids_1T = random_ids(model.config.block_size, tokenizer.vocab_size)
    wanted_1TV = model.float()(ids_1T)[..., : tokenizer.vocab_size]
    require_numbers(wanted_1TV)
    with _quiet(), _told(program):
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        own = {} if settings is None else {"config": AutoConfig.for_model(**json.loads(settings.as_json()))}
        safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, **own}
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **safe).eval()
        encoder: Any = AutoTokenizer.from_pretrained(folder, **safe)
        found_1TV = theirs(ids_1T).logits[..., : tokenizer.vocab_size]
        read = [(encoder(text)["input_ids"], encoder.decode(ids[text])) for text in ids]
    difference = found_1TV.sub_(wanted_1TV).abs_().max().item()
    if not difference <= _TOLERANCE * max(1.0, wanted_1TV.abs().max().item()):
        raise MyptError(f"{program} computes other logits, by up to {difference:.2g}")
    for (text, wanted), (found, decoded) in zip(ids.items(), read, strict=True):
        if found != wanted:
            raise MyptError(f"{program} gives other ids for {text[:60]!r}")
        if decoded != decode(tokenizer, wanted):
            raise MyptError(f"{program} gives another text for the ids of {text[:60]!r}")
    return Checked(program, difference)


@contextmanager
def _told(program: str) -> Generator[None]:
    """Say in our words what the library does not like: it raises anything.

    Raises:
        MyptError: instead, unless memory ran out.
    """
    try:
        yield
    except Exception as problem:
        if is_shortage(problem):
            raise
        raise MyptError(f"{program} cannot load it ({problem})") from None


@contextmanager
def _quiet() -> Generator[None]:
    """No bars and no advice; afterwards the library is as it was."""
    from transformers.utils import logging

    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()
