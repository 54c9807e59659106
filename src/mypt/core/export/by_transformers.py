"""transformers loads an exported folder, and has to say what the model says.

Letters: B texts, T tokens, V vocabulary.
"""

import os
from pathlib import Path
from typing import Any

import torch

from mypt.core.export.sample import Checked, odd_texts, random_ids
from mypt.core.model.gpt import GPT
from mypt.core.tokens.base import Tokenizer, decode
from mypt.errors import MissingExtraError, MyptError

_TOLERANCE = 1e-4
"""Of the largest logit: sums in another order differ by a hundredth of it."""


def open_transformers() -> Any:  # noqa: ANN401 - an optional library
    """The library transformers, which asks no network and says nothing.

    Raises:
        MissingExtraError: when it is not installed.
    """
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    try:
        import transformers
    except ImportError:
        raise MissingExtraError(
            "an export is checked by the package transformers", hint="pip install 'mypt[export]'"
        ) from None
    transformers.utils.logging.disable_progress_bar()
    return transformers


@torch.inference_mode()
def check_by_transformers(folder: Path, model: GPT, tokenizer: Tokenizer) -> Checked:
    """Check that transformers gives the model's logits, computed in fp32, and the tokenizer's ids and texts.

    Args:
        folder: the export.
        model: what was written to it.
        tokenizer: the model's.

    Returns:
        The largest difference of a logit.

    Raises:
        MyptError: when it cannot load the folder, or says something else.
    """
    transformers = open_transformers()
    program = f"transformers {transformers.__version__}"
    ids_BT = random_ids(model.config.block_size, tokenizer.vocab_size)
    wanted_BTV = model.float()(ids_BT)[..., : tokenizer.vocab_size]
    try:
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        encoder = transformers.AutoTokenizer.from_pretrained(folder)
        found_BTV = theirs(ids_BT).logits
    except Exception as problem:  # noqa: BLE001 - the library raises anything
        raise MyptError(f"{program} cannot load the export ({problem})") from None
    difference = (found_BTV - wanted_BTV).abs().max().item()
    if not difference <= _TOLERANCE * max(1.0, wanted_BTV.abs().max().item()):
        raise MyptError(f"{program} computes other logits, by up to {difference:.2g}")
    for text in odd_texts(tokenizer):
        ids = tokenizer.encode(text).tolist()
        if encoder(text, add_special_tokens=False)["input_ids"] != ids:
            raise MyptError(f"{program} gives other ids for {text[:60]!r}")
        if encoder.decode(ids) != decode(tokenizer, ids):
            raise MyptError(f"{program} gives another text for the ids of {text[:60]!r}")
    return Checked(program, difference)
