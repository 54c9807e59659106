"""A tokenizer learned from a text: the library's merges, tiktoken's ids, the same for the same text."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as OtherTokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from mypt.core.data.train_tokenizer import train_tokenizer
from mypt.core.tokens.base import Tokenizer, decode
from mypt.core.tokens.build import build_tokenizer
from mypt.errors import DataError
from mypt.events import Event, TextSampled, TokenizerWritten
from mypt.records.tokenizer import BpeSpec, TokenizerConfig, read_tokenizer_spec
from support import VARIED, tale

# Words of a text in several scripts, so that merges reach over the bytes of characters.
WORDS = "мир данные 数据 日本語 naïve café Größe 12345 don't I'll x=f(y) \n\n\t--> ☕👩‍👩‍👧 e\u0301 "


@pytest.fixture(scope="module")
def corpus() -> str:
    return tale(1500) + WORDS * 30 + tale(300, seed=8).upper()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, corpus: str) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text(corpus, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def spec(path: Path) -> BpeSpec:
    spec = learned(path.with_name("tokenizer.json"), path, vocab_size=500)
    assert isinstance(spec, BpeSpec)
    return spec


@pytest.fixture(scope="module")
def engines(spec: BpeSpec) -> list[Tokenizer]:
    return [build_tokenizer(spec, "tiktoken"), build_tokenizer(spec, "gigatoken")]


@pytest.fixture(scope="module")
def library(corpus: str) -> OtherTokenizer:
    # The same training, by hand.
    other = OtherTokenizer(BPE())
    other.pre_tokenizer = ByteLevel(add_prefix_space=False)
    alphabet = ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=499, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    other.train_from_iterator([corpus], trainer)
    return other


def events_of(out: Path, *paths: Path, **settings: object) -> list[Event]:
    config = TokenizerConfig.parse({"input_files": list(map(str, paths)), **settings}, where="test")
    return list(train_tokenizer(config, out))


def learned(out: Path, *paths: Path, **settings: object) -> object:
    events_of(out, *paths, **settings)
    return read_tokenizer_spec(out)


@settings(max_examples=200, deadline=None)
@given(text=st.text() | VARIED)
def test_both_engines_give_the_ids_of_the_library(engines: list[Tokenizer], library: OtherTokenizer, text: str) -> None:
    expected = library.encode(text).ids
    for engine in engines:
        assert engine.encode(text).tolist() == expected
        assert decode(engine, expected) == text


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text("ab ", min_size=50, max_size=400), probe=st.text("ab ", max_size=60), merges=st.integers(0, 30))
def test_repeats_of_few_letters_are_learned_like_the_library_learns_them(
    tmp_path: Path, text: str, probe: str, merges: int
) -> None:
    source, out = tmp_path / "few.txt", tmp_path / "few.json"
    source.write_text(text)
    out.unlink(missing_ok=True)
    try:
        spec = learned(out, source, vocab_size=257 + merges)
    except DataError as problem:
        assert "the text yields only" in problem.message  # noqa: PT017 - not every text has so many pairs
        return
    assert isinstance(spec, BpeSpec)
    assert decode(build_tokenizer(spec), build_tokenizer(spec).encode(probe).tolist()) == probe


def test_end_of_text_is_the_last_id_and_the_size_is_the_one_asked_for(spec: BpeSpec) -> None:
    tokenizer = build_tokenizer(spec)
    assert tokenizer.vocab_size == 500
    assert tokenizer.end_of_text_id == 499
    assert 499 not in tokenizer.encode("<|endoftext|>").tolist()


def test_a_tokenizer_of_the_text_makes_fewer_tokens_than_bytes(path: Path, tmp_path: Path) -> None:
    written = events_of(tmp_path / "t.json", path, vocab_size=500)[-1]
    assert isinstance(written, TokenizerWritten)
    assert written.bytes_per_token > 2
    assert written.sample_bytes == path.stat().st_size


def test_the_same_text_gives_the_same_file_in_any_order_of_files(tmp_path: Path) -> None:
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text(tale(2000), encoding="utf-8")
    second.write_text(tale(2000, seed=3).upper(), encoding="utf-8")
    for options in ({"vocab_size": 400}, {"vocab_size": 300, "sample_bytes": 20_000}):
        for out, paths in (("a", (first, second)), ("b", (second, first)), ("c", (first, second))):
            learned(tmp_path / f"{out}{options['vocab_size']}.json", *paths, **options)
    for size in (400, 300):
        files = {(tmp_path / f"{out}{size}.json").read_bytes() for out in "abc"}
        assert len(files) == 1


def test_a_large_text_is_sampled_by_seed(tmp_path: Path) -> None:
    source = tmp_path / "large.txt"
    source.write_text("".join(tale(400, seed=number) for number in range(20)), encoding="utf-8")
    size = source.stat().st_size
    taken = []
    for seed in (1, 2, 3):
        out = tmp_path / f"{seed}.json"
        written = events_of(out, source, vocab_size=280, sample_bytes=size // 5, seed=seed)[-1]
        assert isinstance(written, TokenizerWritten)
        taken.append(written.sample_bytes)
    assert len(set(taken)) > 1
    assert all(size // 15 < count < size // 2 for count in taken)


def test_progress_ends_with_the_whole_text(path: Path, tmp_path: Path) -> None:
    told = [event for event in events_of(tmp_path / "t.json", path, vocab_size=300) if isinstance(event, TextSampled)]
    assert told[-1].done_bytes == told[-1].total_bytes == path.stat().st_size


def test_a_char_tokenizer_knows_every_character_of_the_text(path: Path, tmp_path: Path, corpus: str) -> None:
    learned(tmp_path / "t.json", path, kind="char")
    tokenizer = build_tokenizer(read_tokenizer_spec(tmp_path / "t.json"))
    assert tokenizer.encode(corpus).size == len(corpus)
    assert tokenizer.vocab_size == len(set(corpus))


def test_records_and_compressed_files_are_read_as_datasets_read_them(tmp_path: Path) -> None:
    texts = [tale(200, seed=number) for number in range(3)]
    lines = "".join(json.dumps({"body": text}) + "\n" for text in texts)
    (tmp_path / "some.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "plain.txt").write_text("".join(texts), encoding="utf-8")
    records = learned(tmp_path / "a.json", tmp_path / "some.jsonl.gz", vocab_size=300, text_field="body")
    assert records == learned(tmp_path / "b.json", tmp_path / "plain.txt", vocab_size=300)


# Refused.


def test_more_ids_than_the_text_yields_are_refused_with_the_number_that_works(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="yields only") as caught:
        events_of(tmp_path / "t.json", path, vocab_size=60_000)
    works = int(caught.value.hint.split()[-1].rstrip("."))
    assert not (tmp_path / "t.json").exists()
    learned(tmp_path / "t.json", path, vocab_size=works)


def test_text_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bad.txt").write_bytes(b"abc \xff def " * 20)
    with pytest.raises(DataError, match="empty"):
        events_of(tmp_path / "t.json", tmp_path / "empty.txt", vocab_size=300)
    with pytest.raises(DataError, match=r"bad\.txt: not valid UTF-8 at byte 4"):
        events_of(tmp_path / "t.json", tmp_path / "bad.txt", vocab_size=257)
    events_of(tmp_path / "t.json", tmp_path / "bad.txt", vocab_size=257, encoding_errors="replace")


def test_what_is_there_is_not_touched(path: Path, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("mine")
    with pytest.raises(DataError, match="already there"):
        events_of(tmp_path / "t.json", path, vocab_size=300)
    assert (tmp_path / "t.json").read_text() == "mine"
