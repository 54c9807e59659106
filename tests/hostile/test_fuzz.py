"""Whatever is typed, exported or written into a config: an answer, or one message that says what is wrong.

Every option of every command and every variable; ten times as many cases with MYPT_CHAOS=1.
"""

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commandline import Option, Outcome, every_option, run_in_process
from support import Mypt

_MANY = 10 if os.environ.get("MYPT_CHAOS") else 1
_LIMIT_S = 20.0  # far below what any number may make of it, far above a first trial of precisions

# What keeps each command from real work: its options, and what stands in its arguments' places.
GUARDS: dict[tuple[str, ...], tuple[list[str], list[str]]] = {
    ("quickstart",): (["--text=nosuch"], []),
    ("train",): (["--dry-run"], ["text.txt"]),
    ("generate",): ([], ["nosuch"]),
    ("evaluate",): ([], ["nosuch"]),
    ("quantize",): ([], ["nosuch"]),
    ("export",): ([], ["nosuch"]),
    ("import",): ([], ["nosuch"]),
    ("convert-legacy",): ([], ["nosuch"]),
    ("prepare-dataset",): (["--out-dir=out"], ["nosuch.txt"]),
    ("import-dataset",): (["--out-dir=out"], ["nosuch"]),
    ("compress",): ([], ["nosuch"]),
    ("inspect",): ([], ["nosuch"]),
    ("verify",): ([], ["nosuch"]),
    ("params",): ([], []),
    ("bench",): (["--against=nosuch"], ["char-quick"]),
    ("configs",): ([], []),
    ("tokenizer", "train"): (["--out=o.json", "--vocab-size=300"], ["nosuch.txt"]),
    ("tokenizer", "show"): ([], ["byte"]),
    ("tokenizer", "test"): ([], ["byte", "text"]),
    ("tokenizer", "import"): (["--out=o.json"], ["nosuch"]),
}

NUMBERS = [
    *(
        "0",
        "1",
        "2",
        "4",
        "12",
        "0.5",
        "1e-3",
        "-1",
        "-0",
        "nan",
        "NaN",
        "inf",
        "-Infinity",
        "1e309",
        "-1e309",
        "1e-400",
    ),
    *(
        "9" * 30,
        "9" * 5000,
        "-" + "9" * 5000,
        str(2**63),
        str(2**64),
        "0x10",
        "1_000",
        "٣",
        "²",
        "1,5",
        "1e3",
        "1.0",
        "true",
    ),
]
WORDS = [
    *(
        "",
        " ",
        "null",
        "[]",
        "{}",
        "[" * 5000,
        '{"a":1}',
        "\x1b[31mred",
        "a\nb",
        "a\rb",
        "a\tb",
        "\x07",
        "\u202egpj",
        "\x9b31m",
    ),
    *(
        "\udcff",
        "\ud800",
        "a\udc80b",
        "../x",
        "/x",
        "~",
        "~nosuch",
        "~nosuch/x.txt",
        "a/b",
        "x" * 300,
        "x" * 5000,
        "con",
    ),
    *(
        "NUL.txt",
        ".",
        "..",
        "./",
        ".hidden",
        "-x",
        "%s %d {0} {x}",
        "[bold]x[/]",
        "*",
        "**",
        "[a-",
        "hf://",
        "hf://x/y",
    ),
    *(
        "/dev/null",
        "/proc/self/mem",
        "small",
        "tiny",
        "gpt2",
        "char",
        "byte",
        "cpu",
        "auto",
        "fp32",
        "cuda:99",
        "cuda:" + "9" * 5000,
    ),
    *(
        "training.max_iters=5",
        "training.max_iters=NaN",
        "model.n_layer=1e400",
        "a." * 3000 + "b=1",
        "=",
        "a=b=c",
        "model=3",
    ),
]
WITH_NUL = ["a\0b", "\0"]
ODD = st.sampled_from(NUMBERS + WORDS) | st.text(max_size=30) | st.integers().map(str) | st.floats().map(str)


@pytest.fixture(autouse=True, scope="module")
def _awake() -> None:
    """Import what commands import at their first call: its time is not theirs."""
    run_in_process("generate", "nosuch")


def fuzz(check: Callable[..., None], cases: int, **parts: st.SearchStrategy[Any]) -> None:
    """Try `check` on so many cases; whatever is drawn is tried in the folder of the test."""
    checks = list(HealthCheck)
    settings(max_examples=cases * _MANY, deadline=None, database=None, suppress_health_check=checks)(
        given(**parts)(check)
    )()


@pytest.fixture(autouse=True)
def _in_an_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    # Deep enough that '..' and '../..' are empty too: next to tmp_path other tests have their files.
    here = tmp_path / "above" / "over" / "here"
    here.mkdir(parents=True)
    (here / "text.txt").write_text("A text.", encoding="utf-8")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in os.environ:
        if name.startswith("MYPT_"):
            monkeypatch.delenv(name)


def require_one_message(outcome: Outcome, *told: str) -> None:
    """The law: an answer, or one message with the right exit code and without what acts on a terminal."""
    assert "Traceback" not in outcome.err
    assert "This is a bug" not in outcome.err
    assert outcome.code in {0, 2, 3, 4}
    assert not set(outcome.err) & set(_ACTING), outcome.err
    assert outcome.cpu_s < _LIMIT_S
    if outcome.code:
        assert [line for line in outcome.err.splitlines() if line.startswith("Error: ")] == [outcome.err.split("\n")[0]]
        assert len(outcome.err) < 20_000
    if outcome.code == 2:
        words = outcome.err.lower().replace("_", "-").replace(" ", "-")
        assert any(each in words for each in told), outcome.err


_ACTING = [chr(code) for code in (*range(9), *range(11, 32), *range(127, 160), 0x202E)]


def names_of(option: Option) -> list[str]:
    """What a message may call an option: its name, its field, or its place among the arguments."""
    plain = (option.name or option.field).strip("-")
    guards = [guard.strip("-").split("=")[0] for guard in GUARDS[option.command][0]]
    return [plain, option.field.replace("_", "-").strip("-"), *ALIASES.get(plain, []), *ANY, *guards]


# Where a message speaks of the value and not of its option.
ALIASES = {
    "set": ["unknown-key", "model-=", "training"],
    "model-name": ["two-model-names", "not-both", "neither-a-config-file-nor-a-preset"],
    "init-from-model": ["model-name"],
    "legacy-checkpoint": ["model-name"],
    "out": ["model-name"],
    "wanted": ["tokenizer"],
    "target": ["model-name"],
    "names": ["model-name", "two-model-names", "plain-arguments-are-models"],
    "name": ["model-name", "neither-a-config-file-nor-a-preset"],
    "source": ["file"],
}
ANY = ["file-name-too-long", "cannot-read-it", "codec-can't-encode", "embedded-null"]


def test_every_command_is_guarded_and_so_every_option_is_tried() -> None:
    assert {option.command for option in every_option()} == set(GUARDS)


@pytest.mark.long
def test_odd_values_of_every_option_give_an_answer_or_one_message() -> None:
    seen: Counter[int] = Counter()

    def check(option: Option, value: str) -> None:
        given_options, arguments = GUARDS[option.command]
        if option.name is None:
            words = [*given_options, "--", *arguments[: option.place], value]
        else:
            words = [*given_options, option.name if option.is_switch else f"{option.name}={value}", *arguments]
        outcome = run_in_process(*option.command, *words)
        require_one_message(outcome, *names_of(option))
        seen[outcome.code] += 1

    fuzz(check, 800, option=st.sampled_from(every_option()), value=ODD | st.sampled_from(WITH_NUL))
    assert min(seen[0], seen[2], seen[3] + seen[4]) >= 20, seen


def test_odd_values_of_every_variable_give_an_answer_or_one_message() -> None:
    seen: Counter[int] = Counter()

    def check(option: Option, value: str) -> None:
        given_options, arguments = GUARDS[option.command]
        outcome = run_in_process(*option.command, *given_options, *arguments, env={str(option.variable): value})
        require_one_message(outcome, *names_of(option))
        seen[outcome.code] += 1

    exported = [option for option in every_option() if option.variable]
    values = ODD.filter(lambda text: "\0" not in text and not set(text) & set(map(chr, range(0xD800, 0xDC80))))
    fuzz(check, 300, option=st.sampled_from(exported), value=values)
    assert min(seen[0], seen[2]) >= 10, seen


def test_the_real_command_says_what_it_says_in_this_process(mypt: Mypt, tmp_path: Path) -> None:
    chance = random.Random(11)
    light = [option for option in every_option() if option.command[0] in {"params", "configs", "inspect", "verify"}]
    words = [word for word in NUMBERS + WORDS if "\ud800" not in word and len(word) < 5000]
    codes: Counter[int] = Counter()
    # One cache, so that one trial decides the precision for both: on a busy machine two may decide otherwise.
    places = {"HOME": str(tmp_path / "home"), "MYPT_CACHE": str(tmp_path / "cache")}
    for _ in range(24):
        option, value = chance.choice(light), chance.choice(words)
        line = [*option.command, "--", value]
        if option.name is not None:
            line = [*option.command, option.name if option.is_switch else f"{option.name}={value}"]
        real, here = mypt(*line, cwd=Path.cwd(), env=places), run_in_process(*line, env=places)
        assert (real.returncode, real.stdout) == (here.code, here.out), line
        assert real.stderr.replace("python -m mypt", "mypt") == here.err.replace("python -m mypt", "mypt"), line
        codes[real.returncode] += 1
    assert min(codes[0], codes[2]) > 1, codes


# Each of these once ended in a traceback, in silence, or in words about something else.
FOUND = {
    "quickstart --minutes=nan": (2, "--minutes"),
    "quickstart --seed=9223372036854775808": (2, "seed = 9223372036854775808"),
    "quickstart --device=" + "x" * 40: (2, "device = "),
    "generate nosuch --device=cuda:" + "9" * 5000: (2, "this machine does not have it"),
    "generate nosuch --device=": (2, "this machine does not have it"),
    "tokenizer train text.txt --out=o --vocab-size=300 --sample-bytes=" + "9" * 5000: (2, "--sample-bytes"),
    "tokenizer show ~nosuch": (2, "no such tokenizer"),
    "prepare-dataset text.txt --out-dir=out --tokenization=~nosuch": (2, "no such tokenizer"),
    "compress .": (3, "no dataset"),
    "train text.txt --dry-run --global-batch-tokens=9223372036854775808": (2, "--global-batch-tokens"),
    "train text.txt --dry-run --init-from-model=": (2, "model name ''"),
    "train text.txt --dry-run --init-from-model=nobody": (4, "checkpoints/nobody: no model of this name"),
    "train text.txt --dry-run --config-file=": (2, "'': neither a config file nor a preset"),
    "params --config-file=": (2, "'': neither a config file nor a preset"),
    "train text.txt --dry-run --set " + "a." * 3000 + "b=1": (2, "no key is that deep"),
    'train text.txt --dry-run --set data.input_files=["\udcff"]': (2, "data.input_files.0 = "),
    "inspect " + "x" * 5000: (2, "File name too long"),
    "--\x1b[31m": (2, r"\x1b[31m"),
}


@pytest.mark.parametrize("line", FOUND, ids=lambda line: line[:60].encode("unicode_escape").decode())
def test_what_was_found_broken_once_is_one_message(line: str) -> None:
    outcome = run_in_process(*line.split(" "))
    code, words = FOUND[line]
    assert outcome.code == code, outcome.err
    assert words in outcome.err
    assert len(outcome.err) < 1000
    assert "\x1b" not in outcome.err
