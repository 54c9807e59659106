"""The arithmetic of models, and manifests that vouch for themselves."""

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mypt.errors import CheckpointError, DataError
from mypt.records.budget import generation_memory, kv_cache_bytes, training_flops_per_token
from mypt.records.checkpoint import CheckpointManifest, FileInfo
from mypt.records.dataset import DATASET_FILE, DatasetManifest, ShardInfo, SourceInfo, read_dataset_manifest
from mypt.records.memory import StepShape, TrainingMemory
from mypt.records.model import FAMILIES, FamilyName, ModelConfig
from mypt.records.presets import load_preset, preset_names
from mypt.records.reports import ParamsReport, params_report, preset_entry
from mypt.records.run import TrainingConfig
from mypt.records.text import TextConfig


def training_memory(model: ModelConfig, batch_size: int, precision: str = "fp32", **how: Any) -> TrainingMemory:
    return StepShape(model=model, batch_size=batch_size, precision=precision, **how).memory()


def reckoned(model: ModelConfig, training: TrainingConfig, precision: str = "fp32", **how: Any) -> ParamsReport:
    return params_report(model, training, StepShape.of(model, training, precision, on_gpu=False, compiled=False, **how))


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    family: FamilyName = draw(st.sampled_from(list(FAMILIES)))
    own: dict[str, Any] = {"bias": draw(st.booleans())}
    group, kv_heads = 1, draw(st.integers(1, 8))
    if family == "modern":
        group = draw(st.integers(1, 4))
        own = {
            "n_kv_head": draw(st.sampled_from([None, kv_heads] if group == 1 else [kv_heads])),
            "n_inner": draw(st.none() | st.integers(1, 300)),
            "rope_base": draw(st.sampled_from([1000.0, 1e6])),
        }
    n_head = group * kv_heads
    return ModelConfig(
        family=family,
        n_layer=draw(st.integers(1, 12)),
        n_head=n_head,
        n_embd=n_head * 2 * draw(st.integers(1, 32)),
        block_size=draw(st.integers(2, 512)),
        vocab_size=draw(st.integers(1, 2000)),
        dropout=draw(st.sampled_from([0.0, 0.1])),
        **own,
    )


@pytest.mark.parametrize("name", [name for name in preset_names() if not name.startswith("char")])
def test_a_preset_has_the_parameters_its_name_promises(name: str) -> None:
    millions = load_preset(name).model.parameters / 1e6
    if name == "tiny":
        assert int(millions * 10) == 114
    else:
        promised = 40 if name == "small" else int(name.partition("M")[0])
        assert millions == pytest.approx(promised, rel=0.02)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("tiny", (4, 4, 192, 128)),
        ("small", (12, 6, 384, 256)),
        ("150M", (16, 12, 768, 256)),
        ("150M_1024", (16, 12, 768, 1024)),
        ("200M", (16, 14, 896, 256)),
        ("200M_1024", (16, 14, 896, 1024)),
        ("250M", (16, 16, 1024, 256)),
        ("250M_1024", (16, 16, 1024, 1024)),
        ("350M_1024", (24, 16, 1024, 1024)),
        ("500M_1024", (22, 20, 1280, 1024)),
    ],
)
def test_the_presets_have_the_shapes_of_the_design(name: str, shape: tuple[int, int, int, int]) -> None:
    model = load_preset(name).model
    assert (model.n_layer, model.n_head, model.n_embd, model.block_size) == shape
    assert (model.family, model.vocab_size, model.bias) == ("gpt2", 50_304, False)


def test_presets_are_listed_smallest_first() -> None:
    parameters = [load_preset(name).model.parameters for name in preset_names()]
    assert parameters == sorted(parameters)
    assert preset_names()[:3] == ["char-quick", "char", "tiny"]


def test_gpt2_itself_has_124_439_808_parameters() -> None:
    gpt2 = ModelConfig(n_layer=12, n_head=12, n_embd=768, block_size=1024, vocab_size=50_257, bias=True)
    assert gpt2.parameters == 124_439_808


def weights(model: ModelConfig) -> Iterator[tuple[int, ...]]:
    # Shapes of all weights, written out layer by layer.
    if model.family == "modern":
        yield from modern_weights(model)
        return
    family, width = FAMILIES[model.family], model.n_embd
    yield model.vocab_size, width
    yield model.block_size, width
    everywhere = model.bias or family.always_biased
    for _ in range(model.n_layer):
        yield from [(width,)] * (4 if everywhere else 2)
        yield 3 * width, width
        yield from [(3 * width,)] * model.bias
        yield width, width
        yield 4 * width, width
        yield width, 4 * width
        yield from [(width,), (4 * width,), (width,)] * everywhere
    yield from [(width,)] * (2 if everywhere else 1)
    if not family.tied_head:
        yield model.vocab_size, width
        yield (model.vocab_size,)


def modern_weights(model: ModelConfig) -> Iterator[tuple[int, ...]]:
    width, head = model.n_embd, model.n_embd // model.n_head
    yield from [(model.vocab_size, width)] * 2
    for _ in range(model.n_layer):
        yield from [(width,), (width,), (head,), (head,)]
        yield from [(width, width)] * 2
        yield from [((model.n_kv_head or model.n_head) * head, width)] * 2
        yield from [(model.inner_width, width)] * 3
    yield (width,)


@given(models())
def test_the_closed_form_counts_what_the_written_out_shapes_count(model: ModelConfig) -> None:
    counted = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in weights(model))
    assert model.parameters == counted == model.parameter_count.total


@given(models(), st.integers(1, 8), st.sampled_from(["fp32", "bf16", "fp16"]))
def test_more_of_anything_never_costs_less(model: ModelConfig, batch_size: int, precision: str) -> None:
    training = TrainingConfig(batch_size=batch_size)
    base = reckoned(model, training, precision)
    for change in ("n_layer", "block_size", "vocab_size", "n_embd"):
        # The width grows by whole heads, and these by pairs.
        step = 2 * model.n_head if change == "n_embd" else 1
        bigger = reckoned(model.model_copy(update={change: getattr(model, change) + step}), training, precision)
        # Rotary positions are no weights.
        if change != "block_size" or not FAMILIES[model.family].rotary:
            assert bigger.parameters > base.parameters
            assert bigger.training_memory_bytes > base.training_memory_bytes
            assert bigger.optimal_tokens > base.optimal_tokens
        assert bigger.training_memory_bytes >= base.training_memory_bytes
        assert bigger.generation_memory_bytes > base.generation_memory_bytes
        assert bigger.training_flops_per_token >= base.training_flops_per_token


@given(models(), st.integers(1, 8))
def test_a_bigger_batch_costs_activations_and_logits_and_nothing_else(model: ModelConfig, batch_size: int) -> None:
    one, many = training_memory(model, 1), training_memory(model, batch_size)
    assert many.activations == batch_size * one.activations
    assert one.logits <= many.logits <= batch_size * one.logits
    assert many[:4] == one[:4]


@given(models(), st.sampled_from(["bf16", "fp16"]))
def test_two_bytes_halve_activations_and_cost_a_copy_and_dropout_never_needs_less_than_none(
    model: ModelConfig, precision: str
) -> None:
    narrow, wide = training_memory(model, 4, precision), training_memory(model, 4, "fp32")
    assert 2 * narrow.activations == wide.activations
    assert wide.weights <= narrow.weights <= 1.5 * wide.weights
    assert narrow.optimizer == wide.optimizer
    without = model.model_copy(update={"dropout": 0.0})
    assert training_memory(model, 4).peak >= training_memory(without, 4).peak


@given(models())
def test_muon_keeps_less_and_takes_more_in_its_update(model: ModelConfig) -> None:
    adamw, muon = training_memory(model, 1), training_memory(model, 1, optimizer="muon")
    blocks = 4 * (model.parameter_count.attention + model.parameter_count.mlp)
    assert muon.optimizer == adamw.optimizer - blocks
    # fp16 does not hold the numbers that directions are made of.
    narrow = [training_memory(model, 1, precision, optimizer="muon").peak for precision in ("bf16", "fp16")]
    assert narrow[0] <= narrow[1]
    assert muon.peak >= muon.process + 2 * muon.weights + muon.optimizer + muon.snapshot + blocks


@given(models(), st.integers(1, 4), st.sampled_from(["fp32", "bf16"]))
def test_checkpoints_keep_an_input_a_block_and_pieces_keep_their_gradients(
    model: ModelConfig, batch_size: int, precision: str
) -> None:
    whole, checkpointed = (training_memory(model, batch_size, precision, checkpointed=is_on) for is_on in (False, True))
    inputs = model.n_layer * batch_size * model.block_size * model.n_embd * {"fp32": 4, "bf16": 2}[precision]
    assert inputs <= checkpointed.activations < whole.activations
    assert checkpointed[:4] == whole[:4]
    deep = model.model_copy(update={"n_layer": 24, "vocab_size": 1, "block_size": 256})
    assert training_memory(deep, 8, checkpointed=True).peak < training_memory(deep, 8).peak
    in_pieces = training_memory(model, batch_size, precision, accumulates=True)
    assert whole.peak < in_pieces.peak <= whole.peak + whole.gradients + whole.weights


@given(models(), st.integers(1, 64), st.sampled_from(["fp32", "bf16"]), st.booleans())
def test_of_a_gpu_only_its_own_memory_counts(
    model: ModelConfig, batch_size: int, precision: str, accumulates: bool
) -> None:
    shape: dict[str, Any] = {"precision": precision, "accumulates": accumulates}
    written = training_memory(model, batch_size, on_gpu=True, **shape)
    compiled = training_memory(model, batch_size, on_gpu=True, compiled=True, **shape)
    assert (written.process, written.snapshot) == (0, 0)
    assert compiled.peak <= written.peak < training_memory(model, batch_size + 1, on_gpu=True, **shape).peak
    on_cpu = training_memory(model, batch_size, **shape)
    assert on_cpu.evaluation == 0
    with_cuda = training_memory(model, batch_size, cuda_build=True, **shape)
    assert with_cuda.peak - on_cpu.peak == with_cuda.process - on_cpu.process == 340 * 2**20
    assert training_memory(model, batch_size, on_gpu=True, cuda_build=True, **shape) == written


@given(models())
def test_training_holds_four_copies_of_the_weights_and_generation_one(model: ModelConfig) -> None:
    training, generation = training_memory(model, 1), generation_memory(model)
    assert training.weights + training.optimizer + training.gradients == 4 * generation.weights
    assert generation.weights == 4 * model.parameters
    numbers = 2 * model.n_layer * model.block_size * (model.n_kv_head or model.n_head) * model.head_width
    assert generation.kv_cache == kv_cache_bytes(model) == 4 * numbers


@given(models())
def test_parts_of_a_report_add_up_to_its_totals(model: ModelConfig) -> None:
    report = reckoned(model, TrainingConfig(batch_size=2))
    assert sum(report.parameters_by_part.values()) == report.parameters
    assert max(report.training_memory_by_part.values()) < report.training_memory_bytes
    assert sum(report.generation_memory_by_part.values()) == report.generation_memory_bytes


def test_a_tied_head_costs_flops_but_no_parameters() -> None:
    tied, untied = ModelConfig(vocab_size=50_000), ModelConfig(family="mypt-v1", vocab_size=50_000)
    assert tied.parameter_count.head == 0
    assert untied.parameter_count.head == 50_000 * (untied.n_embd + 1)
    assert training_flops_per_token(tied) > 6 * 50_000 * tied.n_embd


def test_the_modern_head_is_its_own_and_costs_no_bias() -> None:
    model = ModelConfig(family="modern", vocab_size=50_000)
    assert model.parameter_count.head == model.parameter_count.token_embedding == 50_000 * model.n_embd
    assert model.parameter_count.position_embedding == 0


@pytest.mark.parametrize(("n_embd", "inner"), [(16, 64), (128, 320), (192, 512), (256, 704), (768, 2048)])
def test_the_inner_width_of_swiglu_is_about_eight_thirds_in_whole_tiles(n_embd: int, inner: int) -> None:
    model = ModelConfig(family="modern", n_head=4, n_embd=n_embd)
    assert model.inner_width == inner
    assert model.model_copy(update={"n_inner": 5}).inner_width == 5


@given(models())
def test_a_config_is_written_with_the_fields_of_its_family_and_read_back_equal(model: ModelConfig) -> None:
    written = json.loads(model.as_json())
    assert ("bias" in written) == (model.family != "modern")
    assert {"n_kv_head", "n_inner", "rope_base"} & set(written) == FAMILIES[model.family].own_fields - {"bias"}
    assert ModelConfig.parse(written, where="config.json") == model


def test_a_presets_row_agrees_with_its_report() -> None:
    for name in preset_names():
        preset = load_preset(name)
        report, entry = reckoned(preset.model, preset.training, kernels=True), preset_entry(name, preset)
        assert entry.parameters == report.parameters
        assert entry.training_memory_bytes == report.training_memory_bytes
        assert entry.generation_memory_bytes == report.generation_memory_bytes


def test_two_architectures_differ_exactly_where_they_differ() -> None:
    one = ModelConfig()
    assert one.differences(one) == {}
    other = one.model_copy(update={"n_layer": 3, "bias": True})
    assert one.differences(other) == {"n_layer": (12, 3), "bias": (False, True)}


# Manifests.

HASH = "0123456789abcdef" * 4


def dataset_manifest() -> DatasetManifest:
    shards = [
        ShardInfo(path=f"train/shard-{number:05d}.bin", dtype="uint16", tokens=10 + number, documents=1, sha256=HASH)
        for number in range(2)
    ]
    return DatasetManifest(
        mypt_version="1.0", tokenizer_sha256=HASH, vocab_size=257, end_of_text_id=256, split_by="tail",
        text=TextConfig(),
        tokens_per_shard=100, sources=(SourceInfo(path="a.txt", size_bytes=21),),
        train=tuple(shards), val=(shards[0].model_copy(update={"path": "val/shard-00000.bin"}),),
    ).sealed()  # fmt: skip


def checkpoint_manifest() -> CheckpointManifest:
    manifest = CheckpointManifest(
        step=7, files={name: FileInfo(size_bytes=size, sha256=HASH) for size, name in enumerate("ab")}
    )
    return manifest.sealed()


def other_value(value: Any) -> Any:
    # A different value that the same field would also accept, where it accepts two.
    twins = {"uint16": "uint32", "strict": "replace", HASH: HASH.replace("f", "e")}
    if isinstance(value, str):
        return twins.get(value, f"{value}x")
    if value is None:
        return 5
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value / 2


def tampered(tree: Any) -> Iterator[Any]:
    # Every tree that differs from `tree` in one value, one missing entry or one renamed key.
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else None
    if keys is None:
        yield other_value(tree)
        return
    for key in keys:
        for changed in tampered(tree[key]):
            twin = copy.deepcopy(tree)
            twin[key] = changed
            yield twin
        twin = copy.deepcopy(tree)
        del twin[key]
        yield twin
    if isinstance(tree, list) and len(tree) > 1:
        yield tree[::-1]


def test_an_untouched_manifest_is_accepted(tmp_path: Path) -> None:
    manifest = dataset_manifest()
    manifest.write(tmp_path / DATASET_FILE)
    assert read_dataset_manifest(tmp_path) == manifest
    checkpoint_manifest().write(tmp_path / "manifest.json")
    assert CheckpointManifest.read(tmp_path / "manifest.json") == checkpoint_manifest()


def test_a_dataset_manifest_tells_any_change_of_any_field(tmp_path: Path) -> None:
    manifest = dataset_manifest()

    changed = list(tampered(manifest.model_dump(mode="json")))
    assert len(changed) > 50
    by_checksum = 0
    for twin in changed:
        (tmp_path / DATASET_FILE).write_text(json_of(twin), encoding="utf-8")
        with pytest.raises(DataError) as caught:
            read_dataset_manifest(tmp_path)
        by_checksum += "checksum" in caught.value.message
    assert by_checksum > 30


def test_a_checkpoint_manifest_tells_any_change_of_any_field() -> None:
    tree = checkpoint_manifest().model_dump(mode="json")
    changed = [twin for twin in tampered(tree) if twin != {key: tree[key] for key in tree if key != "format_version"}]
    assert len(changed) > 10
    for twin in changed:
        with pytest.raises(CheckpointError):
            CheckpointManifest.parse(twin, where="manifest.json", error=CheckpointError)
    renamed = copy.deepcopy(tree)
    renamed["files"]["c"] = renamed["files"].pop("b")
    with pytest.raises(CheckpointError, match="checksum"):
        CheckpointManifest.parse(renamed, where="manifest.json", error=CheckpointError)


@settings(max_examples=20)
@given(st.permutations(list(dataset_manifest().model_dump(mode="json"))), st.sampled_from([None, 2, "\t"]))
def test_a_checksum_sees_the_content_and_not_its_layout(keys: list[str], indent: int | str | None) -> None:
    tree = dataset_manifest().model_dump(mode="json")
    text = json_of({key: tree[key] for key in keys}, indent)
    again = DatasetManifest.parse(text, where="dataset.json", error=DataError)
    assert again.sealed().checksum == tree["checksum"]


def test_a_manifest_of_a_version_that_knew_fewer_fields_is_still_sealed() -> None:
    manifest = dataset_manifest()
    older = manifest.model_dump(mode="json", exclude={"counts", "checksum"})
    canonical = json.dumps(older, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    older["checksum"] = hashlib.sha256(canonical).hexdigest()
    read = DatasetManifest.parse(older, where="dataset.json")
    assert read.counts == manifest.counts
    assert read.train == manifest.train


def test_a_checksum_does_not_depend_on_the_order_of_the_files() -> None:
    manifest = checkpoint_manifest()
    turned = manifest.model_copy(update={"files": dict(reversed(manifest.files.items()))})
    assert list(turned.files) != list(manifest.files)
    assert turned.sealed().checksum == manifest.sealed().checksum


def test_a_directory_without_a_manifest_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a"):
        read_dataset_manifest(tmp_path)


def json_of(tree: Any, indent: int | str | None = None) -> str:
    return json.dumps(tree, indent=indent)
