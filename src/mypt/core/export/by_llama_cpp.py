"""llama.cpp loads a GGUF file, and has to say what the model says."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mypt.core.export.sample import MOST_TOKENS, Checked, odd_texts, random_ids
from mypt.core.model.gpt import GPT
from mypt.core.tokens.base import Tokenizer
from mypt.errors import MissingExtraError, MyptError

_TOLERANCES = {torch.float32: 1e-2, torch.float16: 5e-2, torch.bfloat16: 3e-1}
"""Nats. In fp32 its GELU is a table in fp16, the rest differs in the order of sums; with narrow weights it rounds what
they are multiplied by, too."""
_MOST_TEXTS = 100
_LIKELIEST = 5
"""The tokens whose probabilities are compared."""


class _Answer(NamedTuple):
    """What llama.cpp made of a prompt."""

    prompt_tokens: int
    likeliest: list[tuple[int, float, bytes]]
    """Tokens, their log-probabilities, and what they stand for."""


def open_llama_cpp() -> Any:  # noqa: ANN401 - an optional library
    """llama.cpp as the library xllamacpp has it.

    Raises:
        MissingExtraError: when it, or the library that writes its files, is not installed.
    """
    try:
        import gguf  # noqa: F401 - writes them
        import xllamacpp
    except ImportError as problem:
        raise MissingExtraError(
            f"GGUF is written and checked by the packages gguf and xllamacpp ({problem})",
            hint="pip install 'mypt[export]'",
        ) from None
    return xllamacpp


@torch.inference_mode()
def check_by_llama_cpp(path: Path, model: GPT, tokenizer: Tokenizer) -> Checked:
    """Check that llama.cpp gives the model's probabilities after odd texts, and after tokens at every position.

    Args:
        path: the file.
        model: what was written to it.
        tokenizer: the model's.

    Returns:
        The largest difference of a log-probability, in nats.

    Raises:
        MyptError: when it cannot load the file, or says something else.
    """
    llama_cpp, tolerance = open_llama_cpp(), _TOLERANCES[model.dtype]
    program = f"llama.cpp ({llama_cpp.__name__} {llama_cpp.__version__})"
    written = _token_of_whole_characters(tokenizer)
    special_ids = set(tokenizer.spec.special_tokens.values())
    server, exact = _server(llama_cpp, path, model.config.block_size), model.float()
    worst = 0.0
    for prompt, ids in _prompts(tokenizer, model.config.block_size):
        logprobs_V = exact(torch.tensor([ids]))[0, -1, : tokenizer.vocab_size].log_softmax(0)
        answer = _answer(server, prompt, written)
        if answer is None or answer.prompt_tokens != len(ids):
            raise MyptError(f"{program} reads other tokens in {_shown(prompt)}")
        for token_id, logprob, piece in answer.likeliest:
            difference = abs(logprobs_V[token_id].item() - logprob)
            if not difference <= tolerance:
                raise MyptError(f"{program} says something else after {_shown(prompt)}, by {difference:.2g} nats")
            if piece != tokenizer.decode_bytes(token_id) and token_id not in special_ids:
                raise MyptError(f"{program} writes {piece!r} for the token {token_id}")
            worst = max(worst, difference)
    return Checked(program, worst)


def _server(llama_cpp: Any, path: Path, block_size: int) -> Any:  # noqa: ANN401 - an optional library's
    """The model in llama.cpp, without a word.

    Raises:
        MyptError: when it cannot be loaded.
    """
    settings = llama_cpp.CommonParams()
    settings.model.path = str(path)
    settings.verbosity = -1
    settings.n_ctx = min(block_size, MOST_TOKENS + 1)
    settings.n_gpu_layers = 0
    settings.warmup = settings.fit_params = False
    settings.cache_type_k = settings.cache_type_v = llama_cpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = llama_cpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    try:
        return llama_cpp.Server(settings)
    except RuntimeError as problem:
        raise MyptError(f"llama.cpp cannot load the export ({problem})") from None


def _prompts(tokenizer: Tokenizer, block_size: int) -> Iterator[tuple[str | list[int], list[int]]]:
    """Prompts, and the ids that they are: texts, and ids as they are."""
    texts = 0
    for text in odd_texts(tokenizer):
        ids = tokenizer.encode(text).tolist()
        if 0 < len(ids) < block_size and texts < _MOST_TEXTS:
            texts += 1
            yield text, ids
    ids = random_ids(block_size - 1, tokenizer.vocab_size)[0].tolist()
    yield ids, ids


def _answer(server: Any, prompt: str | list[int], written: int) -> _Answer | None:  # noqa: ANN401 - as above
    """What is likeliest after a prompt; None where it takes no such prompt.

    Args:
        server: llama.cpp.
        prompt: the text, or its ids.
        written: a token of whole characters: nothing is told of an answer that ends inside of one.
    """
    wanted = {"n_predict": 1, "n_probs": _LIKELIEST, "cache_prompt": False, "logit_bias": [[written, 1e6]]}
    told = server.handle_completions({"prompt": prompt, **wanted})
    if "choices" not in told:
        return None
    (first, *_) = told["choices"][0]["logprobs"]["content"]
    likeliest = [(each["id"], each["logprob"], bytes(each["bytes"])) for each in first["top_logprobs"]]
    return _Answer(told["usage"]["prompt_tokens"], likeliest)


def _token_of_whole_characters(tokenizer: Tokenizer) -> int:
    whole: dict[int, str] = {}
    for token_id in range(tokenizer.vocab_size):
        with suppress(UnicodeDecodeError):
            whole[token_id] = tokenizer.decode_bytes(token_id).decode()
    return max(whole, key=lambda token_id: (whole[token_id].isalnum(), bool(whole[token_id])))


def _shown(prompt: str | list[int]) -> str:
    return repr(prompt[:60]) if isinstance(prompt, str) else f"{len(prompt):,} tokens"
