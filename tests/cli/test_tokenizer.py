"""mypt tokenizer, as a user drives it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer as OtherTokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from commands import without
from conftest import clean_environment
from support import Mypt, a_second, carried, tale

TINY = ("--config-file", "tiny", "--set", "model.n_layer=2", "--set", "model.n_head=2", "--set", "model.n_embd=16")
SHORT = (*TINY, "--block-size", "32", "--batch-size", "4", "--eval-interval", "10", "--eval-iters", "2")


@pytest.fixture
def trained(mypt: Mypt, text_file: Path) -> Path:
    run = mypt("tokenizer", "train", text_file, "--vocab-size", "300", "--out", "mine/t.json")
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
    assert "300 ids" in run.stderr
    return text_file.parent / "mine/t.json"


# The whole way.


def test_a_trained_tokenizer_serves_datasets_training_and_generation(mypt: Mypt, trained: Path, tmp_path: Path) -> None:
    prepared = mypt("prepare-dataset", "tale.txt", "--out-dir", "set", "--tokenization", trained)
    assert prepared.returncode == 0, prepared.stderr
    assert (tmp_path / "set/tokenizer.json").read_bytes() == trained.read_bytes()
    for command in (
        ("train", "--dataset-dir", "set", "--model-name", "b", "--max-iters", "2", *SHORT),
        ("generate", "b", "--prompt", "The <|endoftext|> naïve ☕", "--max-new-tokens", "5"),
    ):
        run = mypt(*command)
        assert run.returncode == 0, run.stderr
    shown = json.loads(mypt("inspect", "b", "--json").stdout)
    assert (shown["tokenizer"], shown["vocab_size"], shown["config"]["vocab_size"]) == ("bpe", 300, 320)
    for place in ("set", "b", "checkpoints/b"):
        assert mypt("tokenizer", "test", place).stdout == mypt("tokenizer", "test", trained).stdout


# train


def test_training_tells_events_as_json(mypt: Mypt, text_file: Path) -> None:
    run = mypt("tokenizer", "train", text_file, "--vocab-size", "280", "--out", "t.json", "--json")
    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["text_sampled", "tokenizer_written"]
    assert events[-1]["vocab_size"] == 280
    assert run.stderr == ""


def test_the_number_of_threads_changes_nothing(mypt: Mypt, trained: Path, text_file: Path) -> None:
    for threads in ("1", "3"):
        arguments = ("tokenizer", "train", text_file, "--vocab-size", "300", "--out", f"{threads}.json")
        assert mypt(*arguments, env={"RAYON_NUM_THREADS": threads}).returncode == 0
        assert (text_file.parent / f"{threads}.json").read_bytes() == trained.read_bytes()


def test_of_a_stream_the_beginning_is_the_sample(text_file: Path, trained: Path) -> None:
    # The text is smaller than the sample: the stream gives the same table as the file.
    command = [sys.executable, "-m", "mypt", "tokenizer", "train", "-", "--vocab-size", "300", "--out"]
    with text_file.open("rb") as stream:
        subprocess.run([*command, "all.json"], stdin=stream, cwd=text_file.parent, env=clean_environment(), check=True)
        stream.seek(0)
        few = [*command, "few.json", "--sample-bytes", "9000", "--json"]
        told = subprocess.run(
            few, stdin=stream, cwd=text_file.parent, env=clean_environment(), check=True, capture_output=True
        )
    assert (text_file.parent / "all.json").read_bytes() == trained.read_bytes()
    assert 9000 <= json.loads(told.stdout.splitlines()[-1])["sample_bytes"] < 12_000


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--vocab-size", "300"), 2, "no text"),
        (("tale.txt",), 2, "--vocab-size"),
        (("tale.txt", "--kind", "char", "--vocab-size", "300"), 2, "--vocab-size"),
        (("tale.txt", "--vocab-size", "256"), 2, "≥ 257"),
        (("tale.txt", "--vocab-size", "300", "--kind", "wordpiece"), 2, "bpe, char"),
        (("tale.txt", "--vocab-size", "300", "--sample-bytes", "much"), 2, "2GB"),
        (("tale.txt", "--vocab-size", "50000"), 3, "yields only"),
        (("none.txt", "--vocab-size", "300"), 3, "none.txt"),
    ],
)
def test_what_cannot_be_trained_is_said(
    mypt: Mypt, text_file: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    refused = mypt("tokenizer", "train", "--out", "t.json", *arguments)
    assert refused.returncode == code
    assert words in refused.stderr
    assert not (text_file.parent / "t.json").exists()


def test_a_missing_library_is_exit_7_with_the_install_line(text_file: Path) -> None:
    arguments = ("tokenizer", "train", text_file, "--vocab-size", "300", "--out", "t.json")
    refused = without("tokenizers", *arguments, cwd=text_file.parent)
    assert refused.returncode == 7
    assert "pip install 'mypt[tokenizer]'" in refused.stderr


def test_a_char_tokenizer_needs_no_library(text_file: Path) -> None:
    made = without(
        "tokenizers", "tokenizer", "train", text_file, "--kind", "char", "--out", "t.json", cwd=text_file.parent
    )
    assert made.returncode == 0, made.stderr


# show, test, import


def test_gpt2_gives_the_published_ids_soon_without_torch_or_network(mypt: Mypt, tmp_path: Path) -> None:
    before = os.times()
    shown = mypt("tokenizer", "test", "gpt2")
    after = os.times()
    used_s = after.children_user + after.children_system - before.children_user - before.children_system
    assert used_s < 2 * a_second()
    assert shown.stdout == "31373 995\n"
    assert "hello| world" in shown.stderr
    cut_off = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import atexit; atexit.register(lambda: print({'torch', 'awkward'} & set(sys.modules)))\n"
        "sys.argv = ['mypt', 'tokenizer', 'test', 'gpt2']\nfrom mypt.cli.app import main\nmain()"
    )
    environment = clean_environment() | {"MYPT_OFFLINE": "0"}
    child = [sys.executable, "-c", cut_off]
    alone = subprocess.run(child, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert alone.stdout == "31373 995\nset()\n"


def test_a_text_is_encoded_as_it_is(mypt: Mypt, trained: Path) -> None:
    shown = json.loads(mypt("tokenizer", "test", trained, "a\n<|endoftext|> ☕", "--json").stdout)
    assert shown["schema"] == 1
    assert shown["round_trip"]
    assert "".join(shown["pieces"][:3]) == "a\n<"
    assert 299 not in shown["ids"]


def test_text_outside_a_char_vocabulary_is_exit_3(mypt: Mypt, text_file: Path) -> None:
    mypt("tokenizer", "train", text_file, "--kind", "char", "--out", "t.json")
    refused = mypt("tokenizer", "test", "t.json", "☕")
    assert refused.returncode == 3
    assert "☕" in refused.stderr


@pytest.mark.parametrize("wanted", ["gpt2", "byte", "mine/t.json"])
def test_show_tells_what_is_inside(mypt: Mypt, trained: Path, wanted: str) -> None:
    shown = json.loads(mypt("tokenizer", "show", wanted, "--json").stdout)
    sizes = {"gpt2": 50_257, "byte": 257, "mine/t.json": 300}
    assert shown["schema"] == 1
    assert shown["vocab_size"] == sizes[wanted]
    assert shown["end_of_text_id"] == sizes[wanted] - 1
    assert shown["special_tokens"] == {"<|endoftext|>": sizes[wanted] - 1}
    table = mypt("tokenizer", "show", wanted).stdout
    assert f"{sizes[wanted]:,} ids" in table
    assert shown["file_sha256"] in table


def test_the_hash_that_is_shown_is_the_files(mypt: Mypt, trained: Path) -> None:
    from mypt.durable import sha256_of

    assert json.loads(mypt("tokenizer", "show", trained, "--json").stdout)["file_sha256"] == sha256_of(trained)


def test_a_damaged_tokenizer_is_exit_3_by_name(mypt: Mypt, trained: Path) -> None:
    trained.write_text(trained.read_text().replace("IQ==", "IQ=A"))
    refused = mypt("tokenizer", "show", trained)
    assert refused.returncode == 3
    assert "t.json" in refused.stderr


def test_tables_of_others_are_imported_and_used_directly(mypt: Mypt, tmp_path: Path) -> None:
    other = OtherTokenizer(BPE())
    other.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(
        vocab_size=320, special_tokens=["<s>"], initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    other.train_from_iterator([tale(400)], trainer)
    other.save(str(tmp_path / "tokenizer.json"))
    made = mypt("tokenizer", "import", "tokenizer.json", "--out", "ours.json")
    assert made.returncode == 0, made.stderr
    expected = " ".join(map(str, other.encode("The river keeps it.").ids)) + "\n"
    for place in ("ours.json", "tokenizer.json", "."):
        assert mypt("tokenizer", "test", place, "The river keeps it.").stdout == expected
    assert mypt("tokenizer", "import", "tokenizer.json", "--out", "ours.json").returncode == 3


def test_gpt2s_own_file_becomes_gpt2(mypt: Mypt, tmp_path: Path) -> None:
    made = mypt("tokenizer", "import", carried("vocab.bpe"), "--out", "t.json")
    assert "gpt2 tokenizer" in made.stderr
    assert json.loads((tmp_path / "t.json").read_text())["kind"] == "gpt2"


def test_every_command_has_help(mypt: Mypt) -> None:
    for command in ("train", "show", "test", "import"):
        shown = mypt("tokenizer", command, "--help")
        assert shown.returncode == 0
        assert "Usage:" in shown.stdout
