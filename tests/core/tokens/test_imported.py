"""Tokenizer files of others: the same ids as their own library, or a refusal with the reason."""

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as OtherTokenizer
from tokenizers.models import BPE, WordPiece
from tokenizers.pre_tokenizers import ByteLevel, Digits, Split, Whitespace
from tokenizers.trainers import BpeTrainer

from mypt.core.tokens.build import bpe_table, build_tokenizer
from mypt.core.tokens.exported import as_hugging_face
from mypt.core.tokens.find import find_tokenizer
from mypt.core.tokens.imported import import_tokenizer
from mypt.core.tokens.patterns import CL100K_PATTERN, GPT2_PATTERN, GPT2_RELEASED_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN
from mypt.core.tokens.proofs import require_closed
from mypt.errors import DataError, UsageError
from mypt.records.tokenizer import BpeSpec, ByteSpec, CharSpec, Gpt2Spec, table_sha256
from support import VARIED, carried, tale

TEXT = [tale(300), "Größe мир 数据 12345 don't\n\n  x = f(y)\n" * 20]


def trained(pattern: str | None = None, specials: tuple[str, ...] = ("<|endoftext|>",)) -> OtherTokenizer:
    # A small BPE as people make them: special tokens come first.
    other = OtherTokenizer(BPE())
    other.pre_tokenizer = ByteLevel(add_prefix_space=False)
    if pattern:
        split = Split(Regex(pattern), behavior="isolated")
        other.pre_tokenizer = pre_tokenizers.Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])
    alphabet = ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=list(specials), show_progress=False)
    other.train_from_iterator(TEXT, trainer)
    return other


def saved(other: OtherTokenizer, folder: Path) -> Path:
    path = folder / "tokenizer.json"
    other.save(str(path))
    return path


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    path = saved(trained(), folder)
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


# Taken.


@pytest.mark.parametrize("pattern", [None, GPT2_RELEASED_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN])
def test_an_imported_table_gives_the_ids_of_its_library(tmp_path: Path, pattern: str | None) -> None:
    other = trained(pattern, ("<|endoftext|>", "<pad>"))
    spec = import_tokenizer(saved(other, tmp_path))
    tokenizer = build_tokenizer(spec)
    assert isinstance(spec, BpeSpec)
    assert spec.pattern == (pattern if pattern in {LLAMA3_PATTERN, QWEN2_PATTERN} else GPT2_PATTERN)
    assert spec.special_tokens == {"<|endoftext|>": 0, "<pad>": 1}
    assert tokenizer.end_of_text_id == 0
    assert tokenizer.vocab_size == other.get_vocab_size()

    @settings(max_examples=100, deadline=None)
    @given(text=st.text() | VARIED)
    def agree(text: str) -> None:
        if not any(name in text for name in ("<|endoftext|>", "<pad>")):
            assert tokenizer.encode(text).tolist() == other.encode(text).ids

    agree()


def test_special_tokens_stay_plain_text_in_an_imported_table(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(import_tokenizer(saved(trained(), tmp_path)))
    assert 0 not in tokenizer.encode("a<|endoftext|>b").tolist()


@pytest.mark.parametrize("name", ["vocab.bpe", "merges.txt", "headless.txt", "gpt2.tiktoken", "tokenizer.json"])
def test_gpt2s_table_is_gpt2_in_every_format(tmp_path: Path, name: str) -> None:
    merges = carried("vocab.bpe").read_bytes()
    path = tmp_path / name
    if name == "gpt2.tiktoken":
        lines = (b64encode(piece) + b" %d\n" % rank for rank, piece in enumerate(bpe_table(Gpt2Spec()).pieces))
        path.write_bytes(b"".join(lines))
    elif name == "tokenizer.json":
        vocabulary = json.loads(carried("encoder.json").read_text(encoding="utf-8"))
        pairs = [tuple(line.split()) for line in merges.decode().splitlines()[1:]]
        other = OtherTokenizer(BPE(vocabulary, pairs))  # pyrefly: ignore[bad-argument-type]
        other.add_special_tokens(["<|endoftext|>"])
        other.pre_tokenizer = ByteLevel(add_prefix_space=False)
        other.save(str(path))
    else:
        path.write_bytes(merges if name != "headless.txt" else merges.split(b"\n", 1)[1])
    assert import_tokenizer(path) == Gpt2Spec()


def test_merges_of_any_table_are_read(tmp_path: Path) -> None:
    other = trained()
    other.model.save(str(tmp_path))
    spec = import_tokenizer(tmp_path / "merges.txt")
    assert isinstance(spec, BpeSpec)
    assert spec.special_tokens == {"<|endoftext|>": len(spec.pieces)}
    assert len(spec.pieces) == other.get_vocab_size() - 1


def test_a_bare_table_takes_the_pattern_it_is_given(tmp_path: Path) -> None:
    pieces = bpe_table(Gpt2Spec()).pieces[:1000]
    path = tmp_path / "mine.tiktoken"
    path.write_bytes(b"".join(b64encode(piece) + b" %d\n" % rank for rank, piece in enumerate(pieces)))
    plain, other = import_tokenizer(path), import_tokenizer(path, CL100K_PATTERN)
    assert isinstance(plain, BpeSpec)
    assert isinstance(other, BpeSpec)
    assert (plain.pattern, other.pattern) == (GPT2_PATTERN, CL100K_PATTERN)
    assert table_sha256(other.decoded_pieces()) == table_sha256(pieces)


def test_our_own_file_is_read_as_it_is(tmp_path: Path) -> None:
    spec = import_tokenizer(saved(trained(), tmp_path))
    spec.write(tmp_path / "ours.json")
    assert import_tokenizer(tmp_path / "ours.json") == spec


# Refused.


def with_plain_token(other: OtherTokenizer) -> None:
    other.add_tokens([AddedToken("whole words", normalized=False)])


def with_prefix_space(other: OtherTokenizer) -> None:
    other.pre_tokenizer = ByteLevel(add_prefix_space=True)


def with_normalizer(other: OtherTokenizer) -> None:
    other.normalizer = normalizers.NFC()


def with_digits(other: OtherTokenizer) -> None:
    other.pre_tokenizer = pre_tokenizers.Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])


def with_words(other: OtherTokenizer) -> None:
    other.pre_tokenizer = Whitespace()


def with_lost_spaces(other: OtherTokenizer) -> None:
    split = Split(Regex(" "), behavior="removed")
    other.pre_tokenizer = pre_tokenizers.Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])


def with_two_splits(other: OtherTokenizer) -> None:
    split = Split(Regex("x+"), behavior="isolated")
    other.pre_tokenizer = pre_tokenizers.Sequence([split, ByteLevel(add_prefix_space=False)])


def with_joined_words(other: OtherTokenizer) -> None:
    split = Split(Regex(r"\p{L}+ \p{L}+|\s|\S"), behavior="isolated")
    other.pre_tokenizer = pre_tokenizers.Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])


def with_unmatched_text(other: OtherTokenizer) -> None:
    split = Split(Regex(r"\p{L}+|\s+"), behavior="isolated")
    other.pre_tokenizer = pre_tokenizers.Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_plain_token, "added token 'whole words'"),
        (with_prefix_space, "add_prefix_space"),
        (with_normalizer, "NFC normalizer"),
        (with_digits, "Digits"),
        (with_words, "Whitespace"),
        (with_lost_spaces, "split is not by"),
        (with_two_splits, "twice"),
        (with_unmatched_text, "leaves out"),
        (with_joined_words, "joins words over spaces"),
    ],
)
def test_what_ranks_cannot_say_is_refused_with_the_reason(
    tmp_path: Path, change: Callable[[OtherTokenizer], None], reason: str
) -> None:
    other = trained()
    change(other)
    path = saved(other, tmp_path)
    with pytest.raises(DataError, match=reason) as caught:
        import_tokenizer(path)
    assert str(path) in caught.value.message


def exchange_ids(content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    first, second = list(vocabulary)[300:302]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]


def test_exchanged_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="order of its ids is not the order of its merges"):
        import_tokenizer(changed(tmp_path, exchange_ids))


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ("model.dropout", 0.1, "dropout"),
        ("model.byte_fallback", True, "byte_fallback"),
        ("model.type", "Unigram", "Unigram"),
        ("model.vocab", None, "not a tokenizer.json"),
        ("model.vocab.zzzz", 5000, "hole"),
        ("model.vocab.☃☃", 400, "stands for no byte"),
        ("model.merges", [], "is not what merging"),
        ("model.merges", [["z", "z"]], "without an id"),
        ("decoder", {"type": "Nothing"}, "its own library cannot read it"),
        ("model", 5, "not a tokenizer.json"),
        ("pre_tokenizer", None, "no pre-tokenizer"),
    ],
)
def test_a_table_that_does_not_hold_together_is_refused(tmp_path: Path, place: str, value: object, reason: str) -> None:
    def change(content: dict[str, Any]) -> None:
        *path, last = place.split(".")
        for key in path:
            content = content[key]
        content[last] = value

    with pytest.raises(DataError, match=reason):
        import_tokenizer(changed(tmp_path, change))


def test_a_word_piece_tokenizer_is_refused(tmp_path: Path) -> None:
    path = saved(OtherTokenizer(WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]")), tmp_path)
    with pytest.raises(DataError, match="WordPiece"):
        import_tokenizer(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"garbage", b"two words\n", b"YQ== 1\n", b"#version: 0.2\na b c\n", b"\xff\xfe", b"{", b"{}", b"[1]"],
)
def test_a_file_that_is_no_tokenizer_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"some\.file"):
        import_tokenizer(path)


def test_a_table_without_all_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.tiktoken"
    path.write_bytes(b"YQ== 0\nYg== 1\n")
    reason = r"^\S+some\.tiktoken: cannot be used: 254 of the 256 single bytes are missing \(first 0x00\)$"
    with pytest.raises(DataError, match=reason):
        import_tokenizer(path)


def test_a_pattern_that_is_no_regular_expression_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "merges.txt"
    path.write_bytes(b"#version: 0.2\nh e\n")
    with pytest.raises(DataError, match="regular expression"):
        import_tokenizer(path, "(")
    with pytest.raises(UsageError, match="own pattern"):
        import_tokenizer(saved(trained(), tmp_path), "x")


# Finding by name.


def test_names_and_paths_find_tokenizers(tmp_path: Path) -> None:
    spec = import_tokenizer(saved(trained(), tmp_path))
    for number in (9, 10):
        (tmp_path / f"model/step-{number:08d}").mkdir(parents=True)
    spec.write(tmp_path / "model/step-00000010/tokenizer.json")
    for place in (tmp_path / "tokenizer.json", tmp_path, tmp_path / "model", tmp_path / "model/step-00000010"):
        assert find_tokenizer(str(place)) == spec
    assert find_tokenizer("gpt2") == Gpt2Spec()


@pytest.mark.parametrize(
    ("wanted", "hint"), [("gpt3", "mean gpt2"), ("byte2", "mean byte"), ("char", "model or dataset"), ("", "")]
)
def test_an_unknown_name_gets_a_suggestion(wanted: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_tokenizer(wanted)
    assert hint in caught.value.hint


def test_a_path_with_a_typo_gets_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(UsageError) as caught:
        find_tokenizer(str(tmp_path / "mine.jsn"))
    assert str(tmp_path / "mine.json") in caught.value.hint


def test_a_piece_beyond_any_word_is_refused_before_its_merges_are_looked_for() -> None:
    with pytest.raises(DataError, match="has 1,000,000 bytes"):
        require_closed([b"a" * 10**6])


def rewritten(spec: ByteSpec | CharSpec, **changes: Any) -> str:
    content = json.loads(as_hugging_face(spec).as_json())
    content["model"] |= changes.pop("model", {})
    return json.dumps(content | changes)


@pytest.mark.parametrize("spec", [ByteSpec(), CharSpec(chars=("b", "a", "é"))], ids=["bytes", "characters"])
def test_tokenizers_without_merges_come_back_as_they_were_written(tmp_path: Path, spec: ByteSpec | CharSpec) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(rewritten(spec))
    assert import_tokenizer(path) == spec
    before = json.loads('{"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}')
    for changes in (
        {"normalizer": {"type": "Lowercase"}}, {"pre_tokenizer": {"type": "Whitespace"}}, {"post_processor": before},
        {"model": {"type": "WordLevel"}}, {"model": {"type": "WordPiece"}}, {"model": {"unk_token": "a"}},
        {"model": {"byte_fallback": True}},
    ):  # fmt: skip
        path.write_text(rewritten(spec, **changes))
        with pytest.raises(DataError):
            import_tokenizer(path)
