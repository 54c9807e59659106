"""Byte-pair tables of any origin: what libraries make of them, and what a spec refuses."""

import json
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext import openai_public

from mypt.core.tokens.base import Tokenizer, decode
from mypt.core.tokens.battery import BATTERY
from mypt.core.tokens.build import bpe_table, build_tokenizer, choose_encoder
from mypt.core.tokens.encoders import BpeTable, GigatokenEncoder, TiktokenEncoder, proven_encoder
from mypt.core.tokens.patterns import (
    CL100K_PATTERN,
    GIGATOKEN_SCHEMES,
    GPT2_PATTERN,
    GPT2_RELEASED_PATTERN,
    LLAMA3_PATTERN,
    O200K_PATTERN,
    QWEN2_PATTERN,
)
from mypt.errors import DataError
from mypt.records.tokenizer import BpeSpec, ByteSpec, CharSpec, Gpt2Spec, TokenizerSpec, read_tokenizer_spec
from support import VARIED, a_second

GPT2_PIECES = bpe_table(Gpt2Spec()).pieces
PATTERNS = {"gpt2": GPT2_PATTERN, "llama3": LLAMA3_PATTERN, "qwen2": QWEN2_PATTERN, "o200k": O200K_PATTERN}


def bpe_spec(pieces: int = 2000, specials: dict[str, int] | None = None, pattern: str = GPT2_PATTERN) -> BpeSpec:
    # The beginning of GPT-2's table is a table of its own.
    names = {"<|endoftext|>": pieces} if specials is None else specials
    return BpeSpec.of(pattern, GPT2_PIECES[:pieces], names, next(iter(names), None))


# Ids.


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS.keys())
@settings(max_examples=100, deadline=None)
@given(text=st.text() | VARIED)
def test_gigatoken_gives_the_ids_that_tiktoken_gives(
    encoders: dict[str, tuple[TiktokenEncoder, GigatokenEncoder]], pattern: str, text: str
) -> None:
    reference, fast = encoders[pattern]
    assert np.array_equal(fast.encode(text), reference.encode(text))


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS.keys())
def test_white_space_of_all_kinds_has_the_ids_that_tiktoken_gives(
    encoders: dict[str, tuple[TiktokenEncoder, GigatokenEncoder]], pattern: str
) -> None:
    reference, fast = encoders[pattern]
    blanks = [chr(code) for code in range(0x3001) if chr(code).isspace()]
    for first, second in product(["", "a", "1", ".", "\r", *blanks], ["", *blanks]):
        for text in (first + second, f"a{first}{second}b", f"{first}{second}\n", f"\n{first}{second}"):
            assert np.array_equal(fast.encode(text), reference.encode(text)), text


@pytest.fixture(scope="module")
def encoders() -> dict[str, tuple[TiktokenEncoder, GigatokenEncoder]]:
    tables = {pattern: BpeTable(pattern, GPT2_PIECES) for pattern in PATTERNS.values()}
    return {pattern: (TiktokenEncoder(table), GigatokenEncoder(table)) for pattern, table in tables.items()}


@pytest.fixture(scope="module")
def both() -> list[Tokenizer]:
    return [build_tokenizer(bpe_spec(), "tiktoken"), build_tokenizer(bpe_spec(), "gigatoken")]


@settings(max_examples=100, deadline=None)
@given(text=st.text() | VARIED)
def test_text_comes_back_from_its_ids_none_of_them_special(both: list[Tokenizer], text: str) -> None:
    for tokenizer in both:
        ids = tokenizer.encode(text)
        assert ids.dtype == np.uint16
        assert tokenizer.end_of_text_id not in ids.tolist()
        assert decode(tokenizer, ids.tolist()) == text
        assert tokenizer.bytes_per_id[ids].sum() == len(text.encode())
        assert np.array_equal(tokenizer.encode_known(text), ids)


@pytest.mark.parametrize(
    ("spec", "encoder"),
    [
        (Gpt2Spec(), "tiktoken"),
        (Gpt2Spec(), "gigatoken"),
        (bpe_spec(), "tiktoken"),
        (bpe_spec(), "gigatoken"),
        (ByteSpec(), "tiktoken"),
        (CharSpec(chars=("\n", "a", "b")), "tiktoken"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_a_batch_is_its_texts_one_by_one(spec: TokenizerSpec, encoder: str) -> None:
    tokenizer = build_tokenizer(spec, "gigatoken" if encoder == "gigatoken" else "tiktoken")
    for texts in (list[str](), [""], ["a", "", "ab\nba", "b" * 500]):
        ids, lengths = tokenizer.encode_batch(texts)
        singles = [tokenizer.encode(text) for text in texts]
        assert ids.tolist() == [token_id for single in singles for token_id in single.tolist()]
        assert lengths.tolist() == [single.size for single in singles]
        assert (ids.dtype, lengths.dtype) == (tokenizer.encode("a").dtype, np.int64)


def test_the_encoder_tells_its_name_and_version() -> None:
    assert build_tokenizer(bpe_spec()).encoder == f"tiktoken {tiktoken.__version__}"
    assert build_tokenizer(bpe_spec(), "gigatoken").encoder.startswith("gigatoken 0.")
    assert build_tokenizer(ByteSpec()).encoder == "byte"
    assert build_tokenizer(CharSpec(chars=("a",))).encoder == "char"


@pytest.mark.parametrize("encoder", ["tiktoken", "gigatoken"])
def test_special_tokens_take_their_ids_and_pieces_the_rest(encoder: str) -> None:
    specials = {"<|endoftext|>": 0, "<pad>": 3, "<far>": 1010}
    tokenizer = build_tokenizer(bpe_spec(1000, specials), "gigatoken" if encoder == "gigatoken" else "tiktoken")
    plain = build_tokenizer(bpe_spec(1000, {}))
    assert tokenizer.vocab_size == 1011
    assert tokenizer.end_of_text_id == 0
    assert plain.end_of_text_id is None
    shifted = [token_id + 1 + (token_id >= 2) for token_id in plain.encode('!"#$% the <pad> <|endoftext|>').tolist()]
    assert tokenizer.encode('!"#$% the <pad> <|endoftext|>').tolist() == shifted
    assert [tokenizer.decode_bytes(token_id) for token_id in (0, 1, 2, 3, 4, 1005, 1010)] == [
        b"", b"!", b'"', b"", b"#", b"", b"",
    ]  # fmt: skip
    assert decode(tokenizer, shifted) == '!"#$% the <pad> <|endoftext|>'


@pytest.mark.parametrize("encoder", ["tiktoken", "gigatoken"])
def test_what_tiktoken_cannot_cut_both_refuse(encoder: str) -> None:
    tokenizer = build_tokenizer(bpe_spec(300), "gigatoken" if encoder == "gigatoken" else "tiktoken")
    with pytest.raises(DataError, match="cannot cut"):
        tokenizer.encode("x" + " " * 1_000_000 + "a")
    assert decode(tokenizer, tokenizer.encode("x" + " " * 600_000 + "a").tolist()).endswith("  a")
    with pytest.raises(DataError, match="surrogate"):
        tokenizer.encode("a\udcff")


# Choosing the library.


def test_gigatoken_is_chosen_where_it_agrees() -> None:
    for spec in (Gpt2Spec(), bpe_spec()):
        assert choose_encoder(spec, ["Some text.", ""], "auto") == "gigatoken"
        assert choose_encoder(spec, [], "tiktoken") == "tiktoken"
    assert choose_encoder(ByteSpec(), [], "gigatoken") == choose_encoder(CharSpec(chars=("a",)), [], "auto")


def test_a_pattern_that_gigatoken_does_not_know_stays_with_tiktoken() -> None:
    spec = bpe_spec(pattern=r"\S+|\s+")
    assert choose_encoder(spec, [], "auto") == "tiktoken"
    with pytest.raises(DataError, match="pattern"):
        choose_encoder(spec, [], "gigatoken")


def test_a_piece_that_no_merge_makes_stays_with_tiktoken() -> None:
    # gigatoken would abort while it loads such a table.
    spec = BpeSpec.of(GPT2_PATTERN, (*GPT2_PIECES[:256], b"abc"), {}, None)
    assert choose_encoder(spec, [], "auto") == "tiktoken"
    assert build_tokenizer(spec).encode("abc xabc").tolist() == [256, 220, 87, 64, 65, 66]
    with pytest.raises(DataError, match="no merge makes"):
        choose_encoder(spec, [], "gigatoken")


def test_a_library_that_gives_other_ids_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    # Cut by another scheme than the table's pattern says: the self-check must notice.
    monkeypatch.setitem(GIGATOKEN_SCHEMES, GPT2_PATTERN, "gpt4")
    table = BpeTable(GPT2_PATTERN, GPT2_PIECES)
    assert proven_encoder(table, [], "auto") == "tiktoken"
    with pytest.raises(DataError, match="different ids"):
        proven_encoder(table, [], "gigatoken")


def test_a_difference_in_the_samples_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mypt.core.tokens.encoders.BATTERY", ())
    monkeypatch.setitem(GIGATOKEN_SCHEMES, GPT2_PATTERN, "gpt4")
    table = BpeTable(GPT2_PATTERN, GPT2_PIECES)
    assert proven_encoder(table, ["plain words"], "auto") == "gigatoken"
    assert proven_encoder(table, ["plain words", "1234567"], "auto") == "tiktoken"


@pytest.mark.parametrize("pair", [(GPT2_PATTERN, "gpt4"), (LLAMA3_PATTERN, "qwen2"), (LLAMA3_PATTERN, "o200k")])
def test_the_battery_tells_every_scheme_from_the_others(monkeypatch: pytest.MonkeyPatch, pair: tuple[str, str]) -> None:
    monkeypatch.setitem(GIGATOKEN_SCHEMES, *pair)
    assert proven_encoder(BpeTable(pair[0], GPT2_PIECES), [], "auto") == "tiktoken"


def test_without_gigatoken_auto_is_tiktoken_and_a_wish_is_exit_7() -> None:
    code = (
        "import sys; sys.modules['gigatoken'] = None\n"
        "from mypt.core.tokens.build import choose_encoder\nfrom mypt.errors import MissingExtraError\n"
        "from mypt.records.tokenizer import Gpt2Spec\n"
        "print(choose_encoder(Gpt2Spec(), [], 'auto'))\n"
        "try: choose_encoder(Gpt2Spec(), [], 'gigatoken')\n"
        "except MissingExtraError as problem: print(problem.exit_code, problem.hint)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == ["tiktoken", "7 Install it: pip install 'mypt[fast]'"]


# Patterns.


@pytest.mark.parametrize(("name", "ours"), [("cl100k_base", CL100K_PATTERN), ("o200k_base", O200K_PATTERN)])
def test_our_patterns_are_the_published_ones(monkeypatch: pytest.MonkeyPatch, name: str, ours: str) -> None:
    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", no_table)
    assert openai_public.ENCODING_CONSTRUCTORS[name]()["pat_str"] == ours


def no_table(_url: str, expected_hash: str) -> dict[bytes, int]:
    return {}


def test_gpt2s_two_spellings_cut_alike() -> None:
    assert cuts(GPT2_PATTERN, BATTERY) == cuts(GPT2_RELEASED_PATTERN, BATTERY)


def cuts(pattern: str, texts: tuple[str, ...]) -> list[list[str]]:
    return [regex.findall(pattern, text) for text in texts]


# tokenizer.json


@settings(max_examples=30, deadline=None)
@given(
    merged=st.lists(st.binary(min_size=2, max_size=5), unique=True, max_size=20),
    specials=st.dictionaries(st.text(min_size=1, max_size=5), st.integers(0, 300), max_size=3).filter(
        lambda ids: len(set(ids.values())) == len(ids)
    ),
)
def test_a_written_table_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, merged: list[bytes], specials: dict[str, int]
) -> None:
    pieces = [*(bytes([byte]) for byte in range(256)), *merged]
    spec = BpeSpec.of(GPT2_PATTERN, pieces, specials, next(iter(specials), None))
    path = tmp_path_factory.mktemp("spec") / "tokenizer.json"
    spec.write(path)
    assert read_tokenizer_spec(path) == spec
    assert spec.decoded_pieces() == pieces
    ids = [token_id for token_id in range(spec.vocab_size) if token_id not in specials.values()]
    assert spec.vocab_size == max([*ids[: len(pieces)], *specials.values()]) + 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pattern": "x"}, "sha256"),
        ({"special_tokens": {"<|endoftext|>": 301}}, "sha256"),
        ({"end_of_text": None}, "sha256"),
        ({"sha256": "0" * 64}, "sha256"),
        ({"pieces": ["IQ=="]}, "sha256"),
        ({"pieces": "x"}, "pieces"),
        ({"extra": 1}, "unknown key"),
    ],
)
def test_a_tampered_table_is_refused_by_file_name(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(bpe_spec(300).as_json()) | change))
    with pytest.raises(DataError, match=reason) as caught:
        read_tokenizer_spec(path)
    assert str(path) in caught.value.message
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("pieces", "specials", "reason"),
    [
        (GPT2_PIECES[:255], {}, "single bytes are missing"),
        ((*GPT2_PIECES[:256], b"!"), {}, "twice"),
        ((*GPT2_PIECES[:256], b""), {}, "empty"),
        (GPT2_PIECES[:256], {"a": 3, "b": 3}, "share an id"),
        (GPT2_PIECES[:256], {"a": -1}, "special_tokens"),
    ],
)
def test_what_can_be_no_table_is_refused(pieces: tuple[bytes, ...], specials: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        BpeSpec.of(GPT2_PATTERN, pieces, specials, None)


def test_a_flipped_letter_anywhere_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    text = bpe_spec(300).as_json()
    for position in range(text.index("pattern"), len(text) - 3, 37):
        path.write_text(text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :])
        with pytest.raises(DataError):
            read_tokenizer_spec(path)


def test_a_table_of_gpt2s_size_is_read_fast(tmp_path: Path) -> None:
    bpe_spec(50_000).write(tmp_path / "tokenizer.json")
    started_s = time.process_time()
    spec = read_tokenizer_spec(tmp_path / "tokenizer.json")
    assert time.process_time() - started_s < 2 * a_second()
    assert spec.vocab_size == 50_001
