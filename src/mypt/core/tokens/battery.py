"""A fixed battery of odd texts: what two encoders must agree on before one may stand for the other."""

_WORDS = [
    "hello world",
    " the",
    "The ",
    "don't",
    "I'LL",
    "we've",
    "'S",
    "'s's",
    "naïve",
    "Größe",
    "ǅungla",
    "\uff21\uff22\uff23",
]
_NUMBERS = ["0", "42", "123", "1234567", " 3.14", "1,000", "½", "Ⅷ", "٣٤", "x²", "0x1F", "1e-5"]
_SPACES = [" ", "  ", "   x", "\t", "\n", "\n\n", " \n ", "\r\n", "\r", "x \n", "x\n\n\n  y", "\u00a0", "\u2003x"]
_SPACES += [
    "\u200b",
    "\uff21\uff22",
    "\u3000",
    "\u2028",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "  \n\t  ",
    "a  b   c",
    "end   ",
    "\n x\n",
]
_SCRIPTS = ["мир", "Ελλάδα", "数据", "日本語のテキスト", "한국어", "עברית", "العربية", "हिन्दी", "ไทย", "ქართული", "🏳️‍🌈"]
_MARKS = [
    "e\u0301",
    "\u0301",
    "a\u0301\u0302b",
    "𝄞",
    "👩‍👩‍👧",
    "☕",
    "🇫🇷",
    "\ufeff",
    "\ufffd",
    "\0",
    "\x7f",
    "\U0010ffff",
]
_SIGNS = [
    "...",
    "!?",
    "--",
    "___",
    "a_b",
    "$$$",
    "<|endoftext|>",
    "x<|endoftext|>y",
    "http://x.y/?a=b&c#d",
    "[]{}",
    "//\n",
]
_CODE = [
    "def f(x):\n    return x\n",
    "if (a){\n\t\tb;\n\t}\r\n",
    "<p>a</p>",
    "a=b;c",
    "\\n",
    '"q"',
    "`r`",
    "#!/bin/sh\n",
]
_LONG = ["a" * 3000, "1" * 3000, " " * 3000 + "x", "\n" * 3000 + "x", ". " * 1500, "é" * 1500, "ab" * 1500, "中" * 1500]

# All that Unicode calls white, two side by side: patterns differ in where they cut those.
_BLANKS = [chr(code) for code in range(0x3001) if chr(code).isspace()]

_SHORT = [*_WORDS, *_NUMBERS, *_SPACES, *_SCRIPTS, *_MARKS, *_SIGNS, *_CODE]

BATTERY: tuple[str, ...] = (
    "",
    *_SHORT,
    *(first + second for first in _SHORT for second in _SHORT[::3]),
    *(first + second for first in _BLANKS for second in _BLANKS),
    *_LONG,
    *("".join(map(chr, range(start, start + 256))) for start in range(0, 0x3000, 256)),
)
"""Each odd text alone, many of them side by side, all white space, long runs, and whole blocks of Unicode."""
