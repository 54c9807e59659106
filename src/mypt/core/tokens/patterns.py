"""Published pre-tokenizer patterns: how text is cut into words before bytes are merged."""

from tiktoken_ext.openai_public import r50k_pat_str

GPT2_PATTERN: str = r50k_pat_str
"""GPT-2's, as tiktoken spells it."""

GPT2_RELEASED_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
"""The same cuts, as GPT-2 was released and as Hugging Face files spell it."""

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_LETTERS = r"[^\r\n\p{L}\p{N}]?"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SPACES = r"\s+(?!\S)|\s+"

LLAMA3_PATTERN = (
    rf"(?i:{_CONTRACTIONS})|{_LETTERS}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|{_SPACES}"
)
"""Llama 3's, which is cl100k_base's as first published."""

CL100K_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
"""cl100k_base's as tiktoken has it today: spaces and newlines at the very end of a text are one word."""

QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
"""Qwen 2's and 3's: as Llama 3's, one digit at a time."""

O200K_PATTERN = "|".join(
    [
        rf"{_LETTERS}{_UPPER}*{_LOWER}+(?i:{_CONTRACTIONS})?",
        rf"{_LETTERS}{_UPPER}+{_LOWER}*(?i:{_CONTRACTIONS})?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        _SPACES,
    ]
)
"""o200k_base's."""

GIGATOKEN_SCHEMES = {
    GPT2_PATTERN: "gpt2",
    LLAMA3_PATTERN: "gpt4",
    QWEN2_PATTERN: "qwen2",
    O200K_PATTERN: "o200k",
}
"""gigatoken cuts by built-in schemes only; each is checked against the pattern before it is used."""
