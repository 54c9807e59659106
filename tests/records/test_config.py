"""A config is read, layered and refused: each fault names the key, the value and what is allowed."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mypt.errors import DataError, UsageError
from mypt.records.presets import find_config, load_preset, preset_names
from mypt.records.resolve import Layer, dotted_layer, overrides_layer, resolve
from mypt.records.run import RunConfig, TrainingConfig
from mypt.records.sampling import SamplingConfig


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        resolve([Layer("file", values)], where="my.json")
    return caught.value.message


def config_file(folder: Path, content: str | bytes, name: str = "config.json") -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def resolve_file(reference: str) -> RunConfig:
    where, values = find_config(reference)
    return resolve([Layer(where, values)], where=where).config


# What is wrong, where, and what would be right.


@pytest.mark.parametrize(
    ("values", "near"),
    [
        ({"model": {"n_emb": 384}}, "unknown key model.n_emb: did you mean model.n_embd?"),
        ({"training": {"max_iter": 5}}, "unknown key training.max_iter: did you mean training.max_iters?"),
        ({"learning_rate": 0.1}, "unknown key learning_rate: did you mean training.learning_rate?"),
        ({"modle": {}}, "unknown key modle: did you mean model?"),
        ({"model": {"max_iters": 5}}, "unknown key model.max_iters: did you mean training.max_iters?"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_key(values: dict[str, Any], near: str) -> None:
    assert refusal(values) == f"my.json: {near}"


def test_an_unknown_key_like_nothing_is_refused_with_the_known_ones() -> None:
    message = refusal({"qqqqqqqq": 1})
    assert "unknown key qqqqqqqq" in message
    assert all(key in message for key in ("name", "model", "training", "data"))


def test_a_key_is_never_told_to_be_the_group_it_stands_in() -> None:
    assert not refusal({"model": {"x": 1}}).endswith("did you mean model?")


@pytest.mark.parametrize(
    ("values", "key", "value"),
    [
        ({"model": {"n_embd": "384"}}, "model.n_embd", '"384"'),
        ({"model": {"n_embd": 384.0}}, "model.n_embd", "384.0"),
        ({"model": {"n_embd": None}}, "model.n_embd", "null"),
        ({"model": {"bias": 1}}, "model.bias", "1"),
        ({"model": 3}, "model", "3"),
        ({"training": {"learning_rate": "fast"}}, "training.learning_rate", '"fast"'),
        ({"training": {"device": 0}}, "training.device", "0"),
        ({"data": {"input_files": "a.txt"}}, "data.input_files", '"a.txt"'),
        ({"data": {"input_files": ["a.txt", 3]}}, "data.input_files.1", "3"),
    ],
)
def test_a_wrong_type_is_refused_with_its_key_and_value(values: dict[str, Any], key: str, value: str) -> None:
    assert f"my.json: {key} = {value}: should be " in refusal(values)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("key", ["training.learning_rate", "training.grad_clip", "model.dropout", "data.val_fraction"])
def test_numbers_that_are_none_are_refused(key: str, number: float) -> None:
    with pytest.raises(UsageError, match=f"{key} = .*finite"):
        resolve([dotted_layer("file", {key: number})], where="my.json")


@pytest.mark.parametrize("key", ["model.n_layer", "training.max_iters", "training.seed", "training.save_interval"])
def test_true_is_no_whole_number(key: str) -> None:
    with pytest.raises(UsageError, match=f"{key} = true: should be a valid integer .allowed: whole number"):
        resolve([dotted_layer("file", {key: True})], where="my.json")


def test_true_is_no_number() -> None:
    assert "training.learning_rate = true" in refusal({"training": {"learning_rate": True}})


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("model.n_layer", 0, "whole number ≥ 1 and ≤ 1000"),
        ("model.n_layer", 1001, "whole number ≥ 1 and ≤ 1000"),
        ("model.block_size", 1, "whole number ≥ 2 and ≤ 1048576"),
        ("model.dropout", 1.0, "number ≥ 0.0 and < 1.0"),
        ("training.learning_rate", 0, "number > 0 and ≤ 10"),
        ("training.learning_rate", -1e-3, "number > 0 and ≤ 10"),
        ("training.save_interval", 0, "whole number ≥ 1 and ≤ 1000000000"),
        ("training.seed", 2**63, "whole number ≥ 0 and < 9223372036854775808"),
        ("training.precision", "fp8", "auto, fp32, bf16, fp16"),
        ("data.encoding_errors", "ignore", "strict, replace"),
        ("data.val_fraction", 1.0, "number ≥ 0 and < 1"),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_range(key: str, value: object, allowed: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve([dotted_layer("file", {key: value})], where="my.json")
    assert caught.value.message.startswith(f"my.json: {key} = {json.dumps(value)}: should be ")
    assert caught.value.message.endswith(f"(allowed: {allowed})")


def test_an_optional_sampling_value_out_of_range_is_refused_with_the_range() -> None:
    with pytest.raises(UsageError, match=r"top_k = 0: .*\(allowed: whole number ≥ 1 and ≤ 4194304\)"):
        SamplingConfig.parse({"top_k": 0}, where="flags")


def test_heads_that_do_not_divide_the_width_are_refused_with_the_nearest_that_do() -> None:
    message = refusal({"model": {"n_embd": 384, "n_head": 7}})
    assert "n_embd = 384 is not divisible by n_head = 7" in message
    assert "nearest: n_head = 6" in message


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"n_kv_head": 2}, "family gpt2 has no n_kv_head (families that have it: modern)"),
        ({"n_inner": 704}, "family gpt2 has no n_inner (families that have it: modern)"),
        ({"rope_base": 1000.0}, "family gpt2 has no rope_base (families that have it: modern)"),
        ({"family": "mypt-v1", "n_kv_head": 6}, "family mypt-v1 has no n_kv_head (families that have it: modern)"),
        ({"family": "modern", "bias": True}, "family modern has no bias (families that have it: gpt2, mypt-v1)"),
        ({"family": "modern", "n_kv_head": 4}, "n_head = 6 is not divisible by n_kv_head = 4"),
        ({"family": "modern", "n_kv_head": 12}, "n_head = 6 is not divisible by n_kv_head = 12"),
        ({"family": "modern", "n_embd": 18}, "n_embd = 18 over n_head = 6 makes heads 3 wide"),
        ({"family": "modern", "rope_base": 0.5}, "model.rope_base = 0.5: should be"),
        ({"family": "qwen3"}, "(allowed: gpt2, modern, mypt-v1)"),
    ],
)
def test_what_a_family_does_not_have_is_refused(model: dict[str, Any], said: str) -> None:
    assert said in refusal({"model": model})


def test_a_preset_of_one_family_may_be_made_another() -> None:
    modern = dotted_layer("flag", {"model.family": "modern", "model.n_kv_head": 2})
    config, _ = resolve([Layer(*find_config("small")), modern], where="x")
    assert (config.model.family, config.model.n_embd) == ("modern", load_preset("small").model.n_embd)


def test_another_family_leaves_behind_what_only_the_weaker_one_had() -> None:
    biased = dotted_layer("file", {"model.family": "gpt2", "model.bias": True, "model.n_layer": 3})
    grouped = dotted_layer("file", {"model.family": "modern", "model.n_kv_head": 1})
    for layers, kept in (([grouped, biased], {"bias": True}), ([biased, grouped], {"n_kv_head": 1})):
        model = resolve(layers, where="x").config.model
        assert ({"n_layer": 3} | kept).items() <= model.model_dump().items()
    with pytest.raises(UsageError, match="family modern has no bias"):
        resolve([biased, grouped, dotted_layer("flag", {"model.bias": True})], where="x")


def test_text_and_a_dataset_together_are_refused() -> None:
    assert "not both" in refusal({"data": {"input_files": ["a.txt"], "dataset_dir": "d"}})


def test_every_fault_is_told_at_once() -> None:
    message = refusal({"model": {"n_layer": 0, "n_embd": "wide"}, "training": {"batchsize": 4}})
    assert len(message.splitlines()) == 4
    assert all(key in message for key in ("model.n_layer", "model.n_embd", "training.batch_size"))


def test_a_long_value_is_shown_short() -> None:
    assert len(refusal({"model": {"n_layer": "x" * 10_000}})) < 300


# Files.


@pytest.mark.parametrize("content", ["", "{", "{'a': 1}", '{"model": {}}x', b"\xff\xfe\x00", "[1, 2]", "3", "null"])
def test_a_file_that_is_no_json_object_is_refused_by_name(tmp_path: Path, content: str | bytes) -> None:
    path = config_file(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        find_config(path)
    assert caught.value.message.startswith(f"{path}: ")


def test_a_record_that_is_no_object_is_refused_in_a_whole_sentence() -> None:
    with pytest.raises(UsageError) as caught:
        RunConfig.parse("[1]", where="my.json")
    assert ":  =" not in caught.value.message


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + b'{"model": {"n_layer": 3}}'
    path = config_file(tmp_path, content)
    assert resolve_file(path).model.n_layer == 3
    assert RunConfig.read(Path(path)).model.n_layer == 3


@pytest.mark.parametrize("depth", [150, 400, 900, 100_000])
def test_a_deeply_nested_file_is_refused(tmp_path: Path, depth: int) -> None:
    path = config_file(tmp_path, '{"model":' * depth + "1" + "}" * depth)
    with pytest.raises(UsageError, match=r"config\.json: "):
        resolve_file(path)


def test_settings_nested_deeper_than_python_recurses_are_refused() -> None:
    values: dict[str, Any] = {}
    for _ in range(5000):
        values = {"model": values}
    with pytest.raises(UsageError, match=r"my\.json: "):
        RunConfig.parse(values, where="my.json")
    with pytest.raises(UsageError, match=r"my\.json: "):
        resolve([Layer("file", values)], where="my.json")


def test_a_missing_record_is_refused_with_the_callers_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: cannot read it \(No such file"):
        RunConfig.read(tmp_path / "none.json", error=DataError)


def test_a_written_config_is_read_back_equal(tmp_path: Path) -> None:
    for name in preset_names():
        load_preset(name).write(tmp_path / "again.json")
        assert RunConfig.read(tmp_path / "again.json") == load_preset(name)


def test_the_originals_flat_config_is_understood(tmp_path: Path) -> None:
    flat = {
        "name": "mine", "description": "old", "batch_size": 8, "block_size": 64, "vocab_size": 100, "n_embd": 48,
        "n_head": 4, "n_layer": 2, "dropout": 0.2, "bias": True, "device": "cpu",
    }  # fmt: skip
    config = resolve_file(config_file(tmp_path, json.dumps(flat)))
    assert (config.name, config.description) == ("mine", "old")
    assert (config.training.batch_size, config.training.device) == (8, "cpu")
    model = config.model.model_dump()
    assert {key: model[key] for key in model if key in flat} == {key: flat[key] for key in model if key in flat}
    assert config.training.max_iters == RunConfig().training.max_iters


def test_a_typo_in_a_flat_config_is_refused_with_the_nearest_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown key n_headd: did you mean model\.n_head\?"):
        resolve_file(config_file(tmp_path, '{"n_embd": 384, "n_headd": 6}'))


# Names and paths.


SMALL = ["small", "SMALL", "small.json", "presets/small.json", "configs/small.json", "/no/such/small.json"]


@pytest.mark.parametrize("reference", SMALL)
def test_a_preset_is_found_by_name_and_by_any_path_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    monkeypatch.chdir(tmp_path)
    where, values = find_config(reference)
    assert where == "preset small"
    assert RunConfig.parse(values, where=where) == load_preset("small")


def test_every_preset_is_found_by_the_path_in_the_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(preset_names()) == 12
    for name in preset_names():
        assert resolve_file(f"presets/{name}.json") == resolve_file(name) == load_preset(name)


def test_a_file_that_exists_wins_over_the_preset_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "presets").mkdir()
    config_file(tmp_path, '{"model": {"n_layer": 7}}', "presets/small.json")
    assert resolve_file("presets/small.json").model.n_layer == 7
    assert resolve_file("small") == load_preset("small")


@pytest.mark.parametrize("reference", ["smal", "presets/smal.json", "smol"])
def test_a_reference_that_fits_nothing_is_refused_with_the_nearest_preset(reference: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_config(reference)
    assert caught.value.message.startswith(reference)
    assert "Did you mean small?" in caught.value.hint
    assert all(name in caught.value.hint for name in preset_names())


@pytest.mark.parametrize("reference", ["no-such-thing", "x" * 5000, "a\0b", "", "."])
def test_no_reference_crashes(reference: str) -> None:
    with pytest.raises(UsageError):
        find_config(reference)


def test_an_unknown_preset_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="smal"):
        load_preset("smal")


# Layers.


def test_without_layers_every_key_is_the_default() -> None:
    config, sources = resolve([], where="nothing")
    assert config == RunConfig()
    assert set(sources.values()) == {"default"}
    assert {"model.n_embd", "training.save_interval", "data.input_files"} <= set(sources)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["training.max_iters", "training.batch_size", "model.n_layer", "data.val_fraction"]),
            st.integers(1, 100),
        ),
        max_size=5,
    )
)
def test_the_last_layer_that_gives_a_value_wins_and_is_named(layers: list[dict[str, int]]) -> None:
    given_layers = [
        {key: value / 200 if key == "data.val_fraction" else value for key, value in layer.items()} for layer in layers
    ]
    config, sources = resolve(
        [dotted_layer(f"layer {number}", layer) for number, layer in enumerate(given_layers)], where="layers"
    )
    dumped = config.model_dump()
    for key in ("training.max_iters", "training.batch_size", "model.n_layer", "data.val_fraction"):
        group, name = key.split(".")
        holders = [number for number, layer in enumerate(given_layers) if key in layer]
        if holders:
            assert dumped[group][name] == given_layers[holders[-1]][key]
            assert sources[key] == f"layer {holders[-1]}"
        else:
            assert sources[key] == "default"
    assert sources["training.seed"] == "default"


def test_layers_are_not_changed_by_resolving() -> None:
    weak, strong = {"model": {"n_layer": 2}}, {"model": {"n_layer": 3, "n_embd": 12}}
    resolve([Layer("weak", weak), Layer("strong", strong)], where="x")
    assert weak == {"model": {"n_layer": 2}}
    assert strong == {"model": {"n_layer": 3, "n_embd": 12}}


# --set


def test_set_reads_json_values_and_falls_back_to_text() -> None:
    layer = overrides_layer(
        [
            "training.weight_decay=0.05", "training.max_iters = 7", "model.bias=true", "training.device=cuda:1",
            'name="quoted"', 'data.input_files=["a.txt", "b=c.txt"]', "training.save_interval=null", "description=a=b",
        ]
    )  # fmt: skip
    config, sources = resolve([layer], where="flags")
    assert config.training.weight_decay == pytest.approx(0.05)
    assert (config.training.max_iters, config.training.device, config.training.save_interval) == (7, "cuda:1", None)
    assert (config.model.bias, config.name, config.description) == (True, "quoted", "a=b")
    assert config.data.input_files == ("a.txt", "b=c.txt")
    assert sources["training.weight_decay"] == "--set"
    assert sources["training.beta1"] == "default"


def test_of_two_assignments_the_later_wins() -> None:
    layer = overrides_layer(["training.max_iters=5", "training.batch_size=2", "training.max_iters=6"])
    assert layer.values == {"training": {"max_iters": 6, "batch_size": 2}}


def test_a_set_group_and_a_set_key_of_it_are_merged() -> None:
    layer = overrides_layer(['model={"n_layer": 2, "n_head": 3}', "model.n_head=1"])
    assert layer.values == {"model": {"n_layer": 2, "n_head": 1}}


@pytest.mark.parametrize(
    "assignment", ["", "=", "=5", "training", "training.max_iters", ".a=5", "a..b=5", "a.=5", " =5"]
)
def test_an_assignment_that_is_none_is_refused_with_an_example(assignment: str) -> None:
    with pytest.raises(UsageError, match=r"training\.weight_decay=0\.05"):
        overrides_layer([assignment])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.learning_rate=NaN", "training.learning_rate = NaN: .*finite"),
        ("training.max_iters=1e3", r"training.max_iters = 1000\.0"),
        ("training.max_iters=" + "9" * 5000, "training.max_iters = .*whole number"),
        ("training.wd=0.1", "unknown key training.wd"),
        ("model=" + '{"a":' * 100_000, "model = "),
    ],
)
def test_a_wrong_assignment_is_refused_with_its_key(assignment: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve([overrides_layer([assignment])], where="flags")


# A learning rate is the optimizer's.


SAVED_MUON = Layer("model m", {"training": {"optimizer": "muon", "learning_rate": 0.03}}, is_whole=True)
PRESET = Layer("preset small", {"training": {"learning_rate": 1e-3}}, is_whole=True)
WANTS_MUON = dotted_layer("flag", {"training.optimizer": "muon"})
WANTS_RATE = dotted_layer("environment", {"training.learning_rate": 0.02})


@pytest.mark.parametrize(
    ("layers", "rate", "source"),
    [
        ([], 6e-4, "default"),
        ([WANTS_MUON], 0.04, "default"),
        ([PRESET], 1e-3, "preset small"),
        ([PRESET, WANTS_MUON], 0.04, "default"),
        ([PRESET, WANTS_RATE, WANTS_MUON], 0.02, "environment"),
        ([SAVED_MUON], 0.03, "model m"),
        ([SAVED_MUON, PRESET], 0.03, "model m"),
        ([SAVED_MUON, PRESET, WANTS_MUON], 0.03, "model m"),
        ([SAVED_MUON, dotted_layer("flag", {"training.optimizer": "adamw"})], 6e-4, "default"),
    ],
)
def test_a_learning_rate_written_for_another_optimizer_does_not_count(
    layers: list[Layer], rate: float, source: str
) -> None:
    resolved = resolve(layers, where="settings")
    assert resolved.config.training.learning_rate == rate
    assert resolved.sources["training.learning_rate"] == source


def test_a_wrong_field_is_the_only_fault_where_the_learning_rate_follows_from_the_optimizer() -> None:
    assert refusal({"training": {"optimizer": "sgd"}}) == (
        """my.json: training.optimizer = "sgd": should be 'adamw' or 'muon' (allowed: adamw, muon)"""
    )
    assert refusal({"training": {"max_iters": 0}}).count("\n") == 0


def test_a_state_that_knows_of_no_optimizer_is_adamws_with_cosine() -> None:
    old = TrainingConfig.parse({"learning_rate": 0.01}, where="training_state.json")
    assert (old.optimizer, old.schedule, old.learning_rate) == ("adamw", "cosine", 0.01)
