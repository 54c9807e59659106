"""llama.cpp loads a GGUF file, and has to say what the model says."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from mypt.core.exchange.comparison import MOST_TOKENS, Checked, odd_texts, random_ids, require_numbers
from mypt.core.model.gpt import GPT
from mypt.core.tokens.base import Tokenizer
from mypt.errors import MemoryShortageError, MissingExtraError, MyptError
from mypt.records.export import Answers, Questions

_TOLERANCES = {torch.float32: 1e-2, torch.float16: 5e-2, torch.bfloat16: 3e-1}
"""Nats. In fp32 its GELU is a table in fp16, the rest differs in the order of sums; with narrow weights it rounds what
they are multiplied by, too."""
_LIKELIEST = 20
"""The tokens whose probabilities are compared, after a prompt."""
_PROMPTS = 20
_MOST_SHOWN = 300
_LEAST = -50.0
"""Nats. What is less likely is nothing in fp32, where it is computed as a probability."""


def require_llama_cpp() -> None:
    """Look for the libraries that write GGUF files and run them.

    Raises:
        MissingExtraError: when one is not installed.
    """
    missing = [name for name in ("gguf", "xllamacpp") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"GGUF needs the package {' and '.join(missing)}", hint="pip install 'mypt[export]'")


def check_by_llama_cpp(path: Path, model: GPT, tokenizer: Tokenizer) -> Checked:
    """Check that llama.cpp gives the tokenizer's ids and the model's probabilities.

    Args:
        path: the file.
        model: what was written to it; it is turned to fp32.
        tokenizer: the model's.

    Returns:
        The largest difference of a log-probability, in nats.

    Raises:
        MyptError: when llama.cpp cannot load the file, or says something else.
    """
    program, tolerance = f"llama.cpp (xllamacpp {version('xllamacpp')})", _TOLERANCES[model.dtype]
    ids = {text: tokenizer.encode(text).tolist() for text in odd_texts(tokenizer)}
    prompts = _prompts(ids.values(), model.config.block_size, tokenizer.vocab_size)
    answers = _ask(path, model.config.block_size, list(ids), prompts, _token_of_whole_characters(tokenizer))
    for (text, wanted), found in zip(ids.items(), answers.tokens, strict=True):
        if [piece.token_id for piece in found] != wanted:
            raise MyptError(f"{program} gives other ids for {text[:60]!r}")
        if any(bytes(piece.content) != tokenizer.decode_bytes(piece.token_id) for piece in found):
            raise MyptError(f"{program} gives another text for the ids of {text[:60]!r}")
    logprobs = _logprobs(model.float(), prompts, tokenizer.vocab_size)
    difference = max(map(_difference, logprobs, answers.logprobs))
    if not difference <= tolerance:
        raise MyptError(f"{program} gives other probabilities, by up to {difference:.2g} nats")
    return Checked(program, difference)


def _prompts(ids: Iterable[list[int]], block_size: int, vocab_size: int) -> list[list[int]]:
    """Some of the texts, and tokens by chance up to the end of the window, or the thousandth."""
    short = (each for each in ids if 0 < len(each) < min(block_size, MOST_TOKENS))
    return [*islice(short, _PROMPTS), random_ids(block_size - 1, vocab_size)[0].tolist()]


@torch.inference_mode()
def _logprobs(model: GPT, prompts: Iterable[list[int]], vocab_size: int) -> list[Tensor]:
    """Log-probabilities of what comes after each prompt, shape (V,)."""
    logits = [model(torch.tensor([prompt]))[0, -1, :vocab_size] for prompt in prompts]
    require_numbers(*logits)
    return [each.log_softmax(0) for each in logits]


def _difference(wanted_V: Tensor, found: Mapping[int, float]) -> float:
    pairs = [(wanted_V[token_id].item(), logprob) for token_id, logprob in found.items()]
    return max(abs(max(wanted, _LEAST) - max(logprob, _LEAST)) for wanted, logprob in pairs)


def _ask(path: Path, block_size: int, texts: list[str], prompts: list[list[int]], whole: int) -> Answers:
    """Let llama.cpp answer, in a process of its own: what it does not like may end the process.

    Raises:
        MemoryShortageError: when its process was killed, as systems do that are out of memory.
        MyptError: when it does not answer.
    """
    questions = Questions(
        path=str(path),
        context_tokens=min(block_size, MOST_TOKENS + 1),
        texts=tuple(texts),
        prompts=tuple(map(tuple, prompts)),
        likeliest=_LIKELIEST,
        whole=whole,
    )
    # -P: a file of the user's that is called as a library is, in this folder, is none of it.
    child = subprocess.run(
        [sys.executable, "-P", "-m", "mypt.core.exchange.llama_cpp_child"],
        input=questions.model_dump_json().encode(),
        capture_output=True,
        check=False,
    )
    if os.name == "posix" and child.returncode == -signal.SIGKILL:
        raise MemoryShortageError("the process of llama.cpp was killed: out of memory, most likely")
    if child.returncode:
        lines = child.stderr.decode(errors="replace").splitlines()
        told = [line.strip() for line in lines if "GGML_ASSERT" in line or "Error: " in line]
        reason = told[-1][:_MOST_SHOWN] if told else f"exit code {child.returncode}"
        raise MyptError(f"llama.cpp cannot load it ({reason})")
    answers = Answers.parse(child.stdout, where="llama.cpp", error=MyptError)
    if (len(answers.tokens), len(answers.logprobs)) != (len(texts), len(prompts)) or not all(answers.logprobs):
        raise MyptError("llama.cpp left questions unanswered")
    return answers


def _token_of_whole_characters(tokenizer: Tokenizer) -> int:
    whole: dict[int, str] = {}
    for token_id in range(tokenizer.vocab_size):
        with suppress(UnicodeDecodeError):
            whole[token_id] = tokenizer.decode_bytes(token_id).decode()
    return max(whole, key=lambda token_id: (whole[token_id].isalnum(), bool(whole[token_id])))
