"""A process in which llama.cpp answers questions about a GGUF file: JSON on stdin, JSON on stdout.

llama.cpp ends the whole process where a file breaks one of its rules, and it serves on a port of this machine.
"""

import json
import sys
from http.client import HTTPConnection
from importlib import import_module
from typing import Any

from mypt.records.export import Answers, Piece, Questions


def main() -> None:
    """Answer."""
    questions = Questions.parse(sys.stdin.buffer.read(), where="questions")
    server = _server(questions)
    connection = HTTPConnection(server.listening_address.removeprefix("http://"))
    tokens = tuple(_tokens(connection, text) for text in questions.texts)
    logprobs = tuple(_logprobs(server, questions, prompt) for prompt in questions.prompts)
    print(Answers(tokens=tokens, logprobs=logprobs).model_dump_json())  # noqa: T201 - the answer


def _server(questions: Questions) -> Any:  # noqa: ANN401 - an optional library's
    """The model in llama.cpp, without a word, on the CPU, with keys and values in fp32."""
    xllamacpp: Any = import_module("xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path = questions.path
    settings.verbosity = -1
    settings.n_ctx = questions.context_tokens
    settings.n_gpu_layers = 0
    settings.warmup = settings.fit_params = False
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return xllamacpp.Server(settings)


def _tokens(connection: HTTPConnection, text: str) -> tuple[Piece, ...]:
    """The tokens of a text."""
    wanted = {"content": text, "add_special": True, "with_pieces": True}
    connection.request("POST", "/tokenize", json.dumps(wanted), {"Content-Type": "application/json"})
    told = json.load(connection.getresponse())["tokens"]
    return tuple(Piece(token_id=each["id"], content=_bytes(each["piece"])) for each in told)


def _bytes(piece: str | list[int]) -> tuple[int, ...]:
    """What stands for whole characters is told as text."""
    return tuple(piece.encode() if isinstance(piece, str) else piece)


def _logprobs(server: Any, questions: Questions, prompt: tuple[int, ...]) -> dict[int, float]:  # noqa: ANN401 - as above
    wanted = {
        "prompt": list(prompt),
        "n_predict": 1,
        "n_probs": questions.likeliest,
        "cache_prompt": False,
        "logit_bias": [[questions.whole, 1e30]],  # decides what is written, not what is told of probabilities
    }
    told = server.handle_completions(wanted)
    if "error" in told:
        raise RuntimeError(told["error"]["message"])
    (first, *_) = told["choices"][0]["logprobs"]["content"]
    return {each["id"]: each["logprob"] or 0.0 for each in first["top_logprobs"]}  # what is no number comes as null


if __name__ == "__main__":
    main()
