"""Evaluating saved models: the right text, the right split, figures that compare."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

import mypt
from mypt.core.checkpoint.snapshot import Snapshot
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.device import choose_device
from mypt.core.evaluate.verb import evaluate
from mypt.core.train.run import train
from mypt.errors import CheckpointError, DataError, DivergedError, MemoryShortageError, UsageError
from mypt.events import Event, Noted, Scored, Scoring, Warned
from mypt.records.evaluation import EvaluationConfig
from mypt.records.run import RunConfig
from preparation import careless_disk, prepared
from support import nudged, seal, tale

CPU = choose_device("cpu")
EVEN = 10 * (32 * 20 + 1)
"""Characters of which a tenth is 20 windows of 32 side by side, and the token before them."""


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    careless_disk(monkeypatch)


def trained(run: RunConfig, directory: ModelDirectory, tokenization: str = "char", **changes: object) -> ModelDirectory:
    data = run.data.model_copy(update={"tokenization": tokenization})
    steps = {"max_iters": 4, "eval_interval": 4, "precision": "fp32", "compile": "off"}
    training = run.training.model_copy(update=steps | changes)
    list(train(run.model_copy(update={"training": training, "data": data}), directory))
    return directory


def beside(directory: ModelDirectory, name: str) -> ModelDirectory:
    return ModelDirectory(directory.path.parent, name)


def scored(directories: ModelDirectory | Sequence[ModelDirectory], **settings: object) -> list[Scored]:
    wanted = [directories] if isinstance(directories, ModelDirectory) else list(directories)
    config = EvaluationConfig.parse({"device": "cpu", **settings}, where="test")
    return [event for event in evaluate(config, wanted) if isinstance(event, Scored)]


def messages(directory: ModelDirectory, kind: type[Noted | Warned], **settings: object) -> list[str]:
    config = EvaluationConfig.parse({"device": "cpu", **settings}, where="test")
    return [event.message for event in evaluate(config, [directory]) if isinstance(event, kind)]


def test_over_all_windows_training_has_measured_the_same_bits(
    tiny_run: RunConfig, directory: ModelDirectory, text_file: Path, text: str
) -> None:
    text_file.write_text(text[:EVEN], encoding="utf-8")
    trained(tiny_run, directory, eval_iters=20)
    state = directory.states()[0].training()
    (found,) = scored(directory, batch_size=4)
    assert state.val_step == found.step == 4
    assert (found.loss, found.bits_per_byte) == (state.val_loss, state.bits_per_byte)
    assert found.predicted_tokens == 32 * 20


def test_each_figure_is_the_one_of_plain_forward_passes(
    tiny_run: RunConfig, directory: ModelDirectory, text: str
) -> None:
    trained(tiny_run, directory)
    (found,) = scored(directory, split="all")
    snapshot = Snapshot.of(directory.states()[0])
    model, chars = snapshot.load(CPU.torch).eval(), sorted(set(text))
    ids = torch.tensor([chars.index(char) for char in text])
    losses, hits = list[float](), list[int]()
    for start in range(0, len(ids) - 1, 32):
        window = ids[start : start + 33]
        with torch.no_grad():
            logits_TV = model(window[None, :-1])[0].double()
        losses.append(F.cross_entropy(logits_TV, window[1:], reduction="sum").item())
        hits.append(int((logits_TV.argmax(1) == window[1:]).sum()))
    count, text_bytes = len(text) - 1, len(text.encode())
    assert found.loss == pytest.approx(sum(losses) / count, rel=1e-6)
    assert found.accuracy == sum(hits) / count
    assert found.perplexity == math.exp(found.loss)
    predicted_bytes = text_bytes - len(text[0].encode())
    assert found.bits_per_byte == pytest.approx(sum(losses) / math.log(2) / predicted_bytes, rel=1e-6)
    assert (found.tokens, found.text_bytes) == (len(text), text_bytes)
    assert (found.predicted_tokens, found.predicted_bytes) == (count, predicted_bytes)


def test_two_evaluations_tell_the_same_bits_and_progress_only_grows(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    trained(tiny_run, directory)
    first, second = (scored(directory, stride=9)[0] for _ in range(2))
    figures = ("loss", "perplexity", "bits_per_byte", "accuracy", "predicted_tokens")
    assert [getattr(first, name) for name in figures] == [getattr(second, name) for name in figures]
    events = list(evaluate(EvaluationConfig(device="cpu"), [directory]))
    done = [event.done_tokens for event in events if isinstance(event, Scoring)]
    assert done[0] == 0
    assert done == sorted(done)
    assert done[-1] == first.predicted_tokens


def test_bytes_are_those_of_the_same_text_whatever_the_tokenizer(
    tiny_run: RunConfig, directory: ModelDirectory, text: str
) -> None:
    models = [
        trained(tiny_run, beside(directory, kind), kind, max_iters=1, eval_iters=1) for kind in ("char", "byte", "gpt2")
    ]
    found = scored([*models, models[0]], split="all")
    assert [event.model_name for event in found] == ["char", "char", "byte", "gpt2"]
    assert {event.text_bytes for event in found} == {len(text.encode())}
    by_name = {event.model_name: event for event in found}
    assert by_name["gpt2"].tokens < by_name["char"].tokens < by_name["byte"].tokens
    for event in found:
        bits = event.loss * event.predicted_tokens / math.log(2)
        assert event.bits_per_byte == pytest.approx(bits / event.predicted_bytes)


def test_the_splits_are_those_of_training(tiny_run: RunConfig, directory: ModelDirectory, text: str) -> None:
    trained(tiny_run, directory)
    tokens = {split: scored(directory, split=split)[0].tokens for split in ("val", "train", "all")}
    assert tokens == {"val": len(text) // 10, "train": len(text) - len(text) // 10, "all": len(text)}


def test_a_dataset_has_the_figures_of_its_text(tiny_run: RunConfig, directory: ModelDirectory, tmp_path: Path) -> None:
    trained(tiny_run, directory, "byte")
    files = [tmp_path / f"{number}.txt" for number in range(12)]
    for number, file in enumerate(files):
        file.write_text(tale(9, seed=number), encoding="utf-8")
    data = tiny_run.data.model_copy(
        update={"input_files": tuple(map(str, files)), "tokenization": "byte", "val_fraction": 0.1}
    )
    prepared(data, tmp_path / "data", 300)
    for split in ("val", "train"):
        (by_files,) = scored(directory, input_files=[str(file) for file in files], split=split)
        (by_dataset,) = scored(directory, dataset_dir=[str(tmp_path / "data")], split=split)
        assert by_files.loss == by_dataset.loss
    whole = scored(directory, dataset_dir=[str(tmp_path / "data")] * 2, split="all")[0]
    once = scored(directory, dataset_dir=[str(tmp_path / "data")], split="all")[0]
    assert whole.tokens == 2 * once.tokens
    assert once.text_bytes == sum(file.stat().st_size for file in files)


def test_without_a_text_it_is_the_first_models_own(
    tiny_run: RunConfig, directory: ModelDirectory, text_file: Path, tmp_path: Path
) -> None:
    trained(tiny_run, directory)
    assert messages(directory, Noted)[0] == f"the text that model was trained on: {text_file}"
    assert scored(directory)[0].text == (str(text_file),)
    assert not messages(directory, Warned)
    text_file.write_text(tale(300), encoding="utf-8")
    assert "it has changed since" in messages(directory, Warned)[0]
    text_file.rename(tmp_path / "away.txt")
    with pytest.raises(DataError, match=r"the text that model was trained on is not here: .*tale\.txt"):
        scored(directory)
    assert scored(directory, input_files=[str(tmp_path / "away.txt")])


def test_a_text_is_read_as_the_first_model_was_trained(
    tiny_run: RunConfig, directory: ModelDirectory, text_file: Path
) -> None:
    lower = tiny_run.model_copy(update={"data": tiny_run.data.model_copy(update={"normalize": ("lowercase",)})})
    trained(lower, directory)
    other = trained(tiny_run, beside(directory, "other"))
    shouted = text_file.with_name("shouted.txt")
    shouted.write_text(text_file.read_text(encoding="utf-8").upper(), encoding="utf-8")
    assert scored(directory, input_files=[str(shouted)])[0].loss == scored(directory)[0].loss
    config = EvaluationConfig(input_files=(str(text_file),), device="cpu")
    told = [event.message for event in evaluate(config, [directory, other]) if isinstance(event, Noted)]
    assert "as model was trained to; other had other settings" in told[0]


def test_a_named_text_is_read_in_its_own_format(
    tiny_run: RunConfig, directory: ModelDirectory, tmp_path: Path, text: str
) -> None:
    lines = [json.dumps({"text": line}) for line in text.splitlines() if line]
    (tmp_path / "own.jsonl").write_text("\n".join(lines), encoding="utf-8")
    data = {"input_files": (str(tmp_path / "own.jsonl"),), "text_format": "jsonl"}
    own = tiny_run.model_copy(update={"data": tiny_run.data.model_copy(update=data)})
    trained(own, directory, "byte")
    (tmp_path / "named.txt").write_text(text, encoding="utf-8")
    found = scored(directory, input_files=[str(tmp_path / "named.txt")], split="all")[0]
    assert found.text_bytes == len(text.encode())


def test_unknown_characters_are_named_or_left_out(
    tiny_run: RunConfig, directory: ModelDirectory, tmp_path: Path, text: str
) -> None:
    trained(tiny_run, directory)
    odd, plain = tmp_path / "odd.txt", tmp_path / "plain.txt"
    odd.write_text("Ω".join(text[:500]), encoding="utf-8")
    plain.write_text(text[:500], encoding="utf-8")
    with pytest.raises(DataError, match="'Ω'") as caught:
        scored(directory, input_files=[str(odd)])
    assert caught.value.hint == "Leave such characters out: --unknown skip"
    given = {"split": "all", "unknown": "skip"}
    skipped, expected = (scored(directory, input_files=[str(path)], **given)[0] for path in (odd, plain))
    assert (skipped.loss, skipped.text_bytes) == (expected.loss, expected.text_bytes)
    warned = messages(directory, Warned, input_files=[str(odd)], **given)
    assert warned == [f"characters that the vocabulary does not hold are left out: 998 of {odd.stat().st_size:,} bytes"]
    assert not messages(directory, Warned, input_files=[str(plain)], **given)


def test_an_unknown_character_is_told_before_other_models_are_scored(
    tiny_run: RunConfig, directory: ModelDirectory, tmp_path: Path
) -> None:
    of_bytes = trained(tiny_run, directory, "byte")
    of_letters = trained(tiny_run, beside(directory, "letters"))
    (tmp_path / "odd.txt").write_text("Ω" * 500, encoding="utf-8")
    config = EvaluationConfig(input_files=(str(tmp_path / "odd.txt"),), device="cpu")
    told: list[Event] = []
    with pytest.raises(DataError, match=r"letters: .*'Ω'"):
        told.extend(evaluate(config, [of_bytes, of_letters]))
    assert not any(isinstance(event, Scored) for event in told)


def test_a_short_split_is_refused_and_two_tokens_are_enough(
    tiny_run: RunConfig, directory: ModelDirectory, tmp_path: Path
) -> None:
    trained(tiny_run, directory)
    file = tmp_path / "short.txt"
    file.write_text("The", encoding="utf-8")
    with pytest.raises(DataError, match=r"short\.txt: the split 'val' has 0 tokens, and a score needs two"):
        scored(directory, input_files=[str(file)])
    assert scored(directory, input_files=[str(file)], split="all")[0].predicted_tokens == 2
    file.write_text("T", encoding="utf-8")
    with pytest.raises(DataError, match="has 1 tokens"):
        scored(directory, input_files=[str(file)], split="all")


def test_another_tokenizers_dataset_is_refused_before_the_work(
    tiny_run: RunConfig, directory: ModelDirectory, tmp_path: Path
) -> None:
    trained(tiny_run, directory)
    other = trained(tiny_run, beside(directory, "other"), "byte")
    prepared(tiny_run.data.model_copy(update={"tokenization": "byte"}), tmp_path / "data", 5000)
    events = evaluate(EvaluationConfig(dataset_dir=(str(tmp_path / "data"),), device="cpu"), [other, directory])
    seen = list[Scored]()
    with pytest.raises(DataError, match=r"model: .*its tokens are 'byte' tokens of another table") as caught:
        seen += [event for event in events if isinstance(event, Scored)]
    assert caught.value.exit_code == 3
    assert not seen


def test_one_name_that_fails_ends_all_before_the_work(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    trained(tiny_run, directory)
    events = evaluate(EvaluationConfig(device="cpu"), [directory, beside(directory, "nobody")])
    with pytest.raises(CheckpointError, match="nobody: no model of this name"):
        assert not [event for event in events if isinstance(event, Scored)]


def test_a_stride_beyond_the_context_is_refused(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    trained(tiny_run, directory)
    with pytest.raises(UsageError, match=r"--stride 33: windows of model are 32 tokens long") as caught:
        scored(directory, stride=33)
    assert "1 to 32" in caught.value.hint


def test_what_does_not_fit_says_how_less_does(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mypt.core.model.gpt import GPT

    trained(tiny_run, directory)

    def scores(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(GPT, "scores", scores)
    with pytest.raises(MemoryShortageError, match="model, 8 sequences of 32 tokens at a time") as caught:
        scored(directory, batch_size=8)
    assert "--batch-size 4" in caught.value.hint


def test_a_loss_that_is_no_number_is_an_error(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    from safetensors.torch import load_file, save_file

    trained(tiny_run, directory)
    state = directory.states()[0]
    tensors = load_file(state.path / "model.safetensors")
    tensors["final_norm.weight"].fill_(1e38)
    tensors["token_embedding.weight"].mul_(1e10)
    save_file(tensors, state.path / "model.safetensors", metadata={"format": "pt"})
    seal(state, "model.safetensors")
    with pytest.raises(DivergedError, match="the loss is"):
        scored(directory)


def test_the_newest_whole_state_is_scored(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    trained(tiny_run, directory, save_interval=2)
    (newest, _) = directory.states()
    before = scored(directory)[0]
    nudged(newest, "final_norm.weight")
    assert before.step == 4
    weights = newest.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert scored(directory)[0].step == 2
    assert sum("trying the one before it" in message for message in messages(directory, Warned)) == 1


def test_from_python(tiny_run: RunConfig, directory: ModelDirectory, text_file: Path) -> None:
    trained(tiny_run, directory)
    other = trained(tiny_run, beside(directory, "other"), "byte")
    root = directory.path.parent
    found = mypt.evaluate([other.name, directory.name], checkpoint_dir=root, device="cpu", split="all")
    assert [event.model_name for event in found] == ["other", "model"]
    (one,) = mypt.evaluate("model", input_files=str(text_file), checkpoint_dir=root, device="cpu", split="all")
    assert one.loss == found[1].loss
    with pytest.raises(UsageError, match="unknown key strid"):
        mypt.evaluate("model", checkpoint_dir=root, strid=3)


def test_documents_that_training_kept_apart_are_told_of(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    trained(tiny_run, directory, "byte", document_mask=True)
    assert "model: trained with documents kept apart" in messages(directory, Noted)[0]
    assert np.isfinite(scored(directory)[0].loss)
