"""Compiled code reads tokens as the model does; it is used when it does, and only then."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from ctypes import CDLL
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from generating import CPU, a_model, plain_letters, samples
from mypt.core.device import Device, choose_device
from mypt.core.generate.compiled import choose_reader
from mypt.core.generate.decoder import Decoder
from mypt.core.generate.native.code import CODE
from mypt.core.generate.native.finder import NativeFinder
from mypt.core.generate.native.reader import NativeReader
from mypt.core.generate.reader import ModelReader
from mypt.core.generate.sampler import likeliest
from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT
from mypt.core.model.int8 import quantize
from mypt.core.model.layers import Attention
from mypt.core.native import library
from mypt.core.native.library import SHARED, UnavailableError, library_for, open_library, targets
from mypt.errors import DivergedError, UsageError
from mypt.records.model import FamilyName, ModelConfig
from support import stirred

TARGETS = targets()
pytestmark = pytest.mark.skipif(not (TARGETS and shutil.which("gcc")), reason="no C compiler for this processor")

LONGEST = 64
KINDS = ["bf16", "fp32", "int8"]


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """Every family, with sizes that are no multiples of anything."""
    family: FamilyName = draw(st.sampled_from(["gpt2", "mypt-v1", "modern"]))
    n_kv_head = draw(st.integers(1, 3))
    n_head = n_kv_head * draw(st.integers(1, 3)) if family == "modern" else n_kv_head
    width = 2 * draw(st.integers(1, 36))
    sizes: dict[str, Any] = {"n_layer": draw(st.integers(1, 2)), "n_head": n_head, "n_embd": n_head * width}
    own: dict[str, Any] = {"n_kv_head": n_kv_head, "n_inner": draw(st.integers(1, 90))} if family == "modern" else {}
    if family == "gpt2":
        own["bias"] = draw(st.booleans())
    return ModelConfig(family=family, block_size=LONGEST, vocab_size=draw(st.integers(1, 70)), **sizes, **own)


def a_model_of(config: ModelConfig, kind: str) -> GPT:
    torch.manual_seed(3)
    gpt = stirred(GPT(config), 0.2).requires_grad_(False)  # noqa: FBT003 - torch's own
    if kind == "int8":
        quantize(gpt)
    return gpt.to(torch.bfloat16) if kind == "bf16" else gpt


def a_reader(gpt: GPT, rows: int, target: tuple[str, ...] = (), dtype: torch.dtype | None = None) -> NativeReader:
    """What reads by compiled code alone."""
    cache = KeyValueCache(gpt.config, rows, LONGEST, torch.device("cpu"), dtype or gpt.dtype)
    cache.memory.fill_(torch.nan)  # what was never written must never be read
    code = library_for(CODE, target) if target else open_library(CODE)
    reader = NativeReader(code, gpt, cache, ModelReader(gpt, cache, torch.device("cpu")))
    reader.longest_read = LONGEST
    return reader


def read_in_pieces(reader: NativeReader, row: int, ids: Sequence[int], sizes: Sequence[int]) -> None:
    for size in sizes:
        if piece := ids[:size]:
            reader.read(row, piece)
        ids = ids[size:]
    assert not ids


def ids_of(gpt: GPT, length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, gpt.config.vocab_size, length).tolist()


@pytest.mark.parametrize("target", TARGETS, ids=" ".join)
@settings(max_examples=60, deadline=None)
@given(configs(), st.sampled_from(KINDS), st.integers(2, LONGEST), st.integers(1, 2))
def test_compiled_code_gives_the_logits_of_the_model(
    target: tuple[str, ...], config: ModelConfig, kind: str, length: int, threads: int
) -> None:
    gpt, before = a_model_of(config, kind), torch.get_num_threads()
    ids = ids_of(gpt, length)
    torch.set_num_threads(threads)
    try:
        reader = a_reader(gpt, 2, target, torch.float32)
        read_in_pieces(reader, 1, ids[:-1], [1, 30, 32])
        read_in_pieces(reader, 0, ids[:-1], [LONGEST])
        found = reader.step([ids[-1]] * 2)
    finally:
        torch.set_num_threads(before)
    with torch.inference_mode():
        expected = gpt.float()(torch.tensor([ids]))[0, -1].numpy()
    # One number that becomes its neighbour, for a last bit of what was summed in another order, may change many others.
    allowed = 0.1 * max(1, expected.std()) if kind == "int8" else 1e-4
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=allowed)
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("target", TARGETS, ids=" ".join)
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(1, 70))
def test_whole_numbers_are_multiplied_as_the_model_does(target: tuple[str, ...], width: int, vocab_size: int) -> None:
    config = ModelConfig(n_layer=1, n_head=1, n_embd=width, block_size=LONGEST, vocab_size=vocab_size)
    gpt = a_model_of(config, "int8")
    with torch.inference_mode():
        for name, tensor in gpt.state_dict().items():
            if name.startswith("blocks."):
                tensor.zero_()  # so nothing but the head rounds
        hidden = gpt.hidden(torch.tensor([[0]]))
        expected = gpt.logits(hidden)[0, 0].numpy()
        neighbour = hidden.abs().max() / 127 * gpt.token_embedding(torch.arange(vocab_size)).abs().max()
    np.testing.assert_allclose(a_reader(gpt, 1, target).step([0])[0], expected, rtol=1e-5, atol=float(neighbour))


@pytest.mark.parametrize("family", ["gpt2", "mypt-v1", "modern"])
def test_keys_and_values_in_bf16_are_those_of_fp32_rounded(family: FamilyName) -> None:
    gpt = a_model(12, family, block_size=LONGEST)
    narrow, wide = a_reader(gpt, 1, dtype=torch.bfloat16), a_reader(gpt, 1)
    for reader in (narrow, wide):
        reader.read(0, [5])  # what is first sees itself alone, and so is not rounded before it is stored
    stored, exact = (reader._cache.memory[0, :, 0, :, 0] for reader in (narrow, wide))
    torch.testing.assert_close(stored, exact.to(torch.bfloat16), rtol=0, atol=0)
    for reader in (narrow, wide):
        read_in_pieces(reader, 0, ids_of(gpt, 40), [20, 20])
    found, expected = narrow.step([3]), wide.step([3])
    assert 0 < np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("target", TARGETS, ids=" ".join)
@settings(max_examples=40, deadline=None)
@given(
    configs(),
    st.sampled_from(KINDS),
    st.lists(st.integers(1, 40), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
def test_a_token_has_the_same_bits_alone_and_among_others_and_in_a_prompt(
    target: tuple[str, ...], config: ModelConfig, kind: str, lengths: list[int], chance: Any
) -> None:
    gpt = a_model_of(config, kind)
    texts = [ids_of(gpt, length, seed) for seed, length in enumerate(lengths)]
    together = a_reader(gpt, len(texts), target)
    for row, text in enumerate(texts):
        middle = chance.randint(0, 32)
        read_in_pieces(together, row, text[:-1], [middle, 20, 20])
    found = together.step([text[-1] for text in texts])
    for row in chance.sample(range(len(texts)), min(3, len(texts))):
        alone = a_reader(gpt, 1, target)
        for token in texts[row][:-1]:
            alone.read(0, [token])
        np.testing.assert_array_equal(alone.step(texts[row][-1:])[0], found[row])


def test_a_long_prompt_is_read_by_the_model_into_the_same_cache() -> None:
    gpt = a_model(12, block_size=LONGEST)
    ids = ids_of(gpt, 60)
    reader, plain = a_reader(gpt, 1), a_reader(gpt, 1)
    with torch.inference_mode():
        reader.read(0, ids[:50])
    reader.read(0, ids[50:59])
    read_in_pieces(plain, 0, ids[:59], [25, 25, 9])
    np.testing.assert_allclose(reader.step(ids[59:]), plain.step(ids[59:]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["gpt2", "mypt-v1", "modern"])
def test_a_number_that_is_none_is_never_hidden(family: str, kind: str, bad: float) -> None:
    config = ModelConfig.parse({"family": family, "n_head": 2, "n_embd": 32, "vocab_size": 41, "n_layer": 2}, where="")
    gpt = a_model_of(config, kind)
    numbers, texts = gpt.state_dict(), [[1, 2, each] for each in range(6)]
    head = "token_embedding" if "head.weight" not in numbers else "head"
    rows = f"{head}.scale" if kind == "int8" else f"{head}.weight"
    norms = ["blocks.0.attention_norm.weight", "blocks.1.mlp_norm.weight", "final_norm.weight"]
    # A row of the head that is infinite may give minus infinity, which is a score: never.
    places = [(norm, 3) for norm in norms] + [(rows, place) for place in (0, 20, 40) if bad != torch.inf]
    for name, place in places:
        damaged = numbers[name].view(len(numbers[name]), -1)[place]
        kept = damaged.clone()
        with torch.inference_mode():
            damaged.fill_(bad)
        decoder = Decoder(gpt, choose_reader(CPU, "on"), len(texts), 20)
        for row, text in enumerate(texts):
            decoder.begin(row, text)
        with pytest.raises(DivergedError):
            decoder.step(texts)
        with torch.inference_mode():
            damaged.copy_(kept)


def test_scores_of_any_size_are_those_of_the_model() -> None:
    """Softmax and activations of huge numbers: e to their power does not fit."""
    gpt = a_model(12, size=30.0, block_size=LONGEST)
    ids = ids_of(gpt, 40)
    reader = a_reader(gpt, 1)
    read_in_pieces(reader, 0, ids[:-1], [20, 20])
    with torch.inference_mode():
        expected = gpt(torch.tensor([ids]))[0, -1].numpy()
    np.testing.assert_allclose(reader.step(ids[-1:])[0], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("held", "token"), [(0, 12), (0, -1), (LONGEST, 3)])
def test_what_is_not_the_models_is_not_read(held: int, token: int) -> None:
    reader = a_reader(a_model(12, block_size=LONGEST), 1)
    read_in_pieces(reader, 0, [3] * held, [32, 32])
    for read in (lambda: reader.read(0, [token]), lambda: reader.step([token])):
        with pytest.raises(IndexError):
            read()


@pytest.mark.parametrize("target", TARGETS, ids=" ".join)
@settings(max_examples=150, deadline=None)
@given(st.integers(2, 3000), st.integers(1, 3), st.integers(0, 2**32), st.data())
def test_the_likeliest_are_those_that_numpy_finds(
    target: tuple[str, ...], vocab_size: int, rows: int, seed: int, data: st.DataObject
) -> None:
    chance, count = np.random.default_rng(seed), data.draw(st.integers(1, vocab_size - 1))
    logits = chance.standard_normal((rows, vocab_size + 7), np.float32)[:, :vocab_size]
    if data.draw(st.booleans()):
        logits = (logits * 2).round() / np.float32(2)  # many are equal, and zero has both signs
    logits[chance.random(logits.shape) < data.draw(st.sampled_from([0, 0.5, 0.99]))] = -np.inf
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    find = NativeFinder(library_for(CODE, target), library)
    torch.set_num_threads(before)
    find(logits, vocab_size - 1)  # what an earlier call left in the same room changes nothing
    for ours, theirs in zip(find(logits, count), likeliest(logits, count), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_greedy_texts_and_draws_are_those_of_the_model() -> None:
    gpt, letters = a_model(12, block_size=32), plain_letters("abcdefghijkl")
    compiled = choose_reader(CPU, "on")
    for wanted in ({"temperature": 0}, {"temperature": 1.0, "seed": 5}, {"beams": 3}, {"temperature": 0.9, "top_k": 3}):
        found, expected = (
            samples(gpt, letters, ["ab", "lkjih"], device, max_new_tokens=60, **wanted) for device in (compiled, CPU)
        )
        assert [each.text for each in found] == [each.text for each in expected]


class TestKeeping:
    """The library is compiled once, and run only where it is right and nobody else could have changed it."""

    @pytest.fixture(autouse=True)
    def _empty(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("MYPT_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("CC", raising=False)
        open_library.cache_clear()
        yield
        open_library.cache_clear()

    @staticmethod
    def kept(tmp_path: Path) -> list[Path]:
        return sorted((tmp_path / "cache" / "native").iterdir())

    def test_it_is_compiled_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        open_library(CODE)
        (made,) = self.kept(tmp_path)
        open_library.cache_clear()
        monkeypatch.setenv("CC", "no-such-compiler")
        open_library(CODE)
        assert self.kept(tmp_path) == [made]

    def test_a_changed_one_is_not_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        open_library(CODE)
        (made,) = self.kept(tmp_path)
        data = bytearray(made.read_bytes())
        data[len(data) // 2] ^= 1
        made.unlink()  # this process still runs it
        made.write_bytes(bytes(data))
        open_library.cache_clear()
        monkeypatch.setenv("CC", "no-such-compiler")
        with pytest.raises(UnavailableError, match="no C compiler"):
            open_library(CODE)

    def test_one_that_others_may_write_is_not_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        open_library(CODE)
        (made,) = self.kept(tmp_path)
        made.chmod(made.stat().st_mode | stat.S_IWOTH)
        open_library.cache_clear()
        monkeypatch.setenv("CC", "no-such-compiler")
        with pytest.raises(UnavailableError, match="no C compiler"):
            open_library(CODE)

    @pytest.mark.parametrize(
        ("right", "wrong"),
        [
            ("if (then == ADD) y += load(place, FP32);", ""),
            ("(x + 0.044715f * x * x * x)", "x"),
            ("if (m->bias) y += load(m->bias + row, FP32);", ""),
            ("norm->weight[k] + (norm->bias ? norm->bias[k] : 0)", "norm->weight[k]"),
            ("second * cosines[p] + first", "second * cosines[p] - first"),
            ("norm(h < H ? &layer->query_norm : &layer->key_norm, head, D, head);", ""),
            ("if (then == GATE) y *= activated(load(place, FP32), activation);", ""),
            ("h / (H / G)) *", "h % G) *"),
            ("int64_t from = (rows[n] * G", "int64_t from = (0 * G"),
            ("y = y * load(m->scale + row, FP32) * scales[n];", "y = y * scales[n];"),
            ("(Bits)y - excess[n]", "(Bits)y - 0 * excess[n]"),
            ("nearest(load(x + k, FP32) / scale)", "nearest(0.5f * load(x + k, FP32) / scale)"),
            ("return LANES == 16 ? merged(sums[0], sums[1], 1, kind) : sums[0];", "return sums[0];"),
            ("y = y * r * r + r + 1.0f;", "y = y * r * r + 1.0f;"),
            ("if (above >= wanted) mark |= bit;", "if (above > wanted) mark |= bit;"),
            ("float scale = 1 / sqrtf(D)", "float scale = NAN"),
            ("seen = places[n] + 1", "seen = places[n] + 1 - (places[n] > 20)"),
        ],
    )
    def test_code_that_computes_something_else_is_not_kept(self, tmp_path: Path, right: str, wrong: str) -> None:
        changed = tmp_path / "changed"
        shutil.copytree(CODE.folder, changed)
        shutil.copy(SHARED / "numbers.h", changed)  # a file beside the one that includes it comes first
        (holder,) = (path for path in changed.glob("*.[ch]") if right in path.read_text())
        holder.write_text(holder.read_text().replace(right, wrong))
        with pytest.raises(UnavailableError, match=r"does not agree|no numbers"):
            open_library(replace(CODE, folder=changed))
        assert [path.name.split("-")[0] for path in self.kept(tmp_path)] == ["refused"]

    def test_what_did_not_agree_is_not_compiled_again_by_the_same_compiler(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_library: CDLL) -> None:
            raise UnavailableError("it does not agree, says this test")

        code = replace(CODE, require_agreement=refuse)
        for name in ("one", "other"):
            compiler = tmp_path / name
            compiler.write_text(f'#!/bin/sh\necho ran >> {tmp_path}/{name}.log\nexec gcc "$@"\n')
            compiler.chmod(0o755)
            monkeypatch.setenv("CC", str(compiler))
            for told in ("it does not agree, says this test$", "so it was the last time"):
                with pytest.raises(UnavailableError, match=told):
                    open_library(code)
            # Once for each file, and once for all.
            files = len(list(CODE.folder.glob("*.c"))) + 1
            assert (tmp_path / f"{name}.log").read_text() == "ran\n" * files

    def test_a_library_of_something_else_is_passed_over(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        open_library(CODE)
        (made,) = self.kept(tmp_path)
        other = tmp_path / "other.c"
        other.write_text("int mypt_read(void) { return 1; }")
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", "other.so", "other.c"], cwd=tmp_path, check=True)
        data = (tmp_path / "other.so").read_bytes()
        made.unlink()
        made.with_name(f"{made.name.rsplit('-', 1)[0]}-{library._hash(data)}.so").write_bytes(data)
        self.kept(tmp_path)[0].chmod(0o700)
        open_library.cache_clear()
        assert choose_reader(CPU, "auto").compiled
        script = "while [ $1 != -o ]; do shift; done; cp"
        (tmp_path / "cc").write_text(f"#!/bin/sh\n{script} {tmp_path}/other.so $2\n")
        (tmp_path / "cc").chmod(0o755)
        shutil.rmtree(tmp_path / "cache")
        open_library.cache_clear()
        monkeypatch.setenv("CC", str(tmp_path / "cc"))
        assert choose_reader(CPU, "auto") == CPU

    @pytest.mark.parametrize(
        ("compiler", "reason"),
        [("no-such-compiler", "there is no C compiler no-such-compiler"), ("false", "false failed: no message")],
    )
    def test_without_a_compiler_the_model_reads(
        self, monkeypatch: pytest.MonkeyPatch, compiler: str, reason: str
    ) -> None:
        monkeypatch.setenv("CC", compiler)
        assert choose_reader(CPU, "auto") == CPU
        with pytest.raises(UsageError, match=f"--compile on: no compiled code: {reason}"):
            choose_reader(CPU, "on")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_that_cannot_be_written_is_a_reason(self, tmp_path: Path) -> None:
        (tmp_path / "cache").mkdir(mode=0o500)
        assert choose_reader(CPU, "auto") == CPU

    def test_a_file_in_the_folders_place_is_a_reason(self, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("no folder")
        assert choose_reader(CPU, "auto") == CPU

    def test_what_cannot_be_read_or_loaded_is_passed_over(self, tmp_path: Path) -> None:
        open_library(CODE)
        (made,) = self.kept(tmp_path)
        key = made.name.rsplit("-", 1)[0]
        (made.parent / f"{key}-0.so").symlink_to("nowhere")
        (made.parent / f"{key}-1.so").mkdir()
        broken = b"no library"
        (made.parent / f"{key}-{library._hash(broken)}.so").write_bytes(broken)
        (made.parent / f"{key}-{library._hash(broken)}.so").chmod(0o700)
        made.unlink()
        open_library.cache_clear()
        assert choose_reader(CPU, "on").compiled

    def test_the_folder_is_closed_to_others(self, tmp_path: Path) -> None:
        folder = tmp_path / "cache" / "native"
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        open_library(CODE)
        assert folder.stat().st_mode & 0o777 == 0o700

    def test_a_compiler_may_write_in_any_encoding(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        odd = tmp_path / "odd"
        odd.write_text("#!/bin/sh\nprintf '\\351 note\\n' >&2\nexit 1\n")
        odd.chmod(0o755)
        monkeypatch.setenv("CC", str(odd))
        with pytest.raises(UnavailableError, match="odd failed: \ufffd note"):
            open_library(CODE)

    def test_torchs_defaults_change_nothing(self) -> None:
        gpt = a_model(12, "modern", block_size=LONGEST)
        expected = a_reader(gpt, 1).step([3])
        open_library.cache_clear()
        shutil.rmtree(library.cache_folder())
        torch.set_default_dtype(torch.float64)
        try:
            with torch.device("meta"):
                open_library(CODE)
                reader = a_reader(gpt, 1)
        finally:
            torch.set_default_dtype(torch.float32)
        np.testing.assert_array_equal(reader.step([3]), expected)

    def test_nothing_is_drawn_from_torchs_generator(self) -> None:
        torch.manual_seed(7)
        expected: NDArray[Any] = torch.rand(3).numpy()
        torch.manual_seed(7)
        open_library(CODE)
        np.testing.assert_array_equal(torch.rand(3).numpy(), expected)


@pytest.mark.parametrize("has_bf16", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_read_by_compiled_code_up_to_a_length(
    kind: str, monkeypatch: pytest.MonkeyPatch, *, has_bf16: bool
) -> None:
    def computes_bf16(_device: torch.device) -> bool:
        return has_bf16

    monkeypatch.setattr("mypt.core.generate.native.reader.computes_bf16", computes_bf16)
    longest = {"fp32": 64, "int8": 256, "bf16": 32 if has_bf16 else 1000}[kind]
    config = ModelConfig(n_layer=1, n_head=1, n_embd=8, block_size=1100, vocab_size=8)
    gpt, cpu = a_model_of(config, kind), torch.device("cpu")
    cache, read = KeyValueCache(config, 1, 1100, cpu, gpt.dtype), list[int]()
    by_model = ModelReader(gpt, cache, cpu)
    reader = NativeReader(open_library(CODE), gpt, cache, by_model)

    def note(_row: int, ids: Sequence[int]) -> None:
        read.append(len(ids))

    monkeypatch.setattr(by_model, "read", note)
    for length in (longest, longest + 1):
        cache.forget(0)
        reader.read(0, [1] * length)
    assert read == [longest + 1]


@pytest.mark.parametrize("target", TARGETS, ids=" ".join)
def test_keys_and_values_are_rounded_to_bf16_as_torch_rounds(target: tuple[str, ...]) -> None:
    """Also those that lie between two numbers: then to the even one."""
    gpt = a_model_of(ModelConfig(n_layer=1, n_head=1, n_embd=8, block_size=8, vocab_size=8, bias=True), "fp32")
    between = torch.tensor([1 + 2**-8, 1 + 2**-7 + 2**-8, -1 - 2**-8, -1 - 3 * 2**-8, 3.0, 1e15, 2**-130, -7.0])
    attention = gpt.blocks[0].attention
    assert isinstance(attention, Attention)
    assert attention.query_key_value.bias is not None
    attention.query_key_value.weight.zero_()
    attention.query_key_value.bias.copy_(between.repeat(3))
    cache = KeyValueCache(gpt.config, 1, 8, torch.device("cpu"), torch.bfloat16)
    reader = NativeReader(library_for(CODE, target), gpt, cache, ModelReader(gpt, cache, torch.device("cpu")))
    reader.step([3])
    for part in cache.memory[0, :, 0, 0, 0]:
        assert torch.equal(part.view(torch.int16), between.bfloat16().view(torch.int16))


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_too_large_to_be_normed_give_no_numbers(kind: str) -> None:
    gpt = a_model_of(ModelConfig(n_layer=1, n_head=1, n_embd=8, block_size=8, vocab_size=8), kind)
    assert gpt.position_embedding is not None
    gpt.position_embedding.weight.mul_(1e37)
    with pytest.raises(DivergedError):
        a_reader(gpt, 1).step([3])


def test_recordings_are_taken_where_they_are_asked_for() -> None:
    gpu = Device("cuda", 0, "bf16")
    assert choose_reader(gpu, "auto") == gpu == choose_reader(gpu, "off")
    assert choose_reader(gpu, "on").compiled


def test_other_devices_and_types_are_read_by_the_model() -> None:
    half = choose_device("cpu", "fp16")
    assert choose_reader(half, "auto") == half
    assert choose_reader(CPU, "off") == CPU
    with pytest.raises(UsageError, match="nor for fp16 on CPUs"):
        choose_reader(half, "on")
