"""Generation against a plain reference, past the window, with seeds, stops and odd prompts."""

import itertools

import pytest
import torch

from generating import distribution
from mypt.core.device import choose_device
from mypt.core.generate.decoder import Decoder
from mypt.core.generate.stream import generate
from mypt.core.model.gpt import GPT
from mypt.core.tokens.base import decode
from mypt.core.tokens.byte import ByteTokenizer
from mypt.core.tokens.char import CharTokenizer
from mypt.errors import DataError, DivergedError
from mypt.events import Generated, Token, Warned
from mypt.records.model import FAMILIES, FamilyName, ModelConfig
from mypt.records.sampling import SamplingConfig
from mypt.records.tokenizer import CharSpec
from support import stirred

CPU = choose_device("cpu")
BLOCK_SIZE = 16


def model(family: FamilyName = "gpt2", vocab_size: int = 320, *, scale: float = 20.0) -> GPT:
    """A random model whose choices are clear: larger weights make sharper distributions."""
    torch.manual_seed(3)
    built = GPT(
        ModelConfig(family=family, n_layer=2, n_head=2, n_embd=16, block_size=BLOCK_SIZE, vocab_size=vocab_size)
    ).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(scale if parameter.dim() > 1 else 1)
    return stirred(built, size=0.02 * scale) if family == "modern" else built


def last(gpt: GPT, prompt: str, **settings: object) -> Generated:
    config = SamplingConfig.parse(settings, where="test")
    return [e for e in generate(gpt, ByteTokenizer(), [prompt], config, CPU) if isinstance(e, Generated)][-1]


def reference_greedy(gpt: GPT, ids: list[int], count: int, kept: int) -> list[int]:
    """Read the whole context again for every token; when it is full, restart from the newest `kept`."""
    context, start = list(ids), max(0, len(ids) - BLOCK_SIZE)
    new = []
    with torch.no_grad():
        for _ in range(count):
            if len(context) - start > BLOCK_SIZE:
                start = len(context) - kept
            logits = gpt(torch.tensor([context[start:]]))[0, -1, :257]
            if int(logits.argmax()) == 256:
                break
            context.append(int(logits.argmax()))
            new.append(context[-1])
    return new


@pytest.mark.parametrize(
    ("family", "kept"), [("gpt2", BLOCK_SIZE // 2), ("mypt-v1", BLOCK_SIZE), ("modern", BLOCK_SIZE // 2)]
)
@pytest.mark.parametrize("prompt", ["a", "hello world", "x" * (BLOCK_SIZE - 1), "y" * BLOCK_SIZE, "long prompt " * 5])
def test_greedy_text_equals_the_plain_reference_past_the_window(family: FamilyName, kept: int, prompt: str) -> None:
    gpt = model(family)
    expected = reference_greedy(gpt, list(prompt.encode()), 60, kept)
    assert list(last(gpt, prompt, temperature=0, max_new_tokens=60).token_ids) == expected


def test_each_token_is_read_once_while_the_window_has_room() -> None:
    gpt = model()
    read: list[int] = []

    def note(_module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        read.append(arguments[0].shape[1])

    gpt.token_embedding.register_forward_pre_hook(note)
    decoder = Decoder(gpt, CPU, 1, 16)
    decoder.begin(0, list(range(4)))
    for length in range(4, 13):
        decoder.step([list(range(length))])
    assert read == [3, *[1] * 9]


def test_the_same_seed_gives_the_same_text_and_another_seed_another() -> None:
    gpt = model(scale=1.0)
    texts = [last(gpt, "seed", seed=seed, max_new_tokens=30).token_ids for seed in (1, 1, 2)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_sample_n_is_the_same_however_many_are_drawn() -> None:
    gpt = model(scale=1.0)
    config = SamplingConfig(num_samples=3, max_new_tokens=20)
    drawn = [e for e in generate(gpt, ByteTokenizer(), ["x"], config, CPU) if isinstance(e, Generated)]
    assert [event.sample for event in drawn] == [0, 1, 2]
    assert len({event.token_ids for event in drawn}) == 3
    assert drawn[0].token_ids == last(gpt, "x", max_new_tokens=20).token_ids


def test_tokens_in_the_stream_join_to_the_text() -> None:
    gpt = model(scale=1.0)
    events = list(generate(gpt, ByteTokenizer(), ["é"], SamplingConfig(max_new_tokens=50), CPU))
    end = events[-1]
    assert isinstance(end, Generated)
    assert "".join(event.text for event in events if isinstance(event, Token)) == end.text
    assert end.text == decode(ByteTokenizer(), list(end.token_ids))


@pytest.mark.parametrize("family", FAMILIES)
def test_padded_ids_are_never_produced(family: FamilyName) -> None:
    gpt = model(family, vocab_size=5000, scale=0.01)  # nearly uniform over 5,000 rows, of which 257 are tokens
    ids = last(gpt, "", max_new_tokens=200, temperature=5.0).token_ids
    assert len(ids) > 0
    assert max(ids) < 257


def test_end_of_text_ends_a_sample() -> None:
    gpt = model()
    with torch.no_grad():
        gpt.token_embedding.weight[256] = 0
        gpt.final_norm.weight.zero_()  # all logits equal zero, but for the one that is raised below
    hidden = torch.zeros(16)
    hidden[0] = 1
    gpt.final_norm.bias = torch.nn.Parameter(hidden)
    with torch.no_grad():
        gpt.token_embedding.weight[:, 0] = 0
        gpt.token_embedding.weight[256, 0] = 9
    result = last(gpt, "x", temperature=0)
    assert result.stopped_by == "end of text"
    assert result.text == ""


def test_a_stop_text_ends_a_sample_and_is_not_part_of_it() -> None:
    gpt = model()
    whole = last(gpt, "hello", temperature=0, max_new_tokens=40).text
    stop = whole[5:8]
    stopped = last(gpt, "hello", temperature=0, max_new_tokens=40, stop=[stop])
    assert stopped.text == whole[: whole.index(stop)]
    assert stopped.stopped_by == "stop text"


def test_qa_mode_wraps_the_prompt() -> None:
    config = SamplingConfig(mode="qa")
    assert config.prompt_for("Why?") == "<Question> Why? </Question>\n<Answer> "
    assert config.stops == ("</Answer>",)


def test_a_prompt_longer_than_the_window_is_cut_with_a_warning() -> None:
    gpt = model()
    events = list(
        generate(
            gpt, ByteTokenizer(), ["z" * 40 + "tail of sixteen."], SamplingConfig(temperature=0, max_new_tokens=1), CPU
        )
    )
    assert isinstance(events[0], Warned)
    direct = last(gpt, "tail of sixteen.", temperature=0, max_new_tokens=1)
    assert isinstance(events[-1], Generated)
    assert events[-1].token_ids == direct.token_ids


def test_unknown_characters_are_an_error_or_skipped() -> None:
    tokenizer = CharTokenizer(CharSpec(chars=tuple("abc\n")))
    gpt = model(vocab_size=4)
    with pytest.raises(DataError, match="'x'"):
        list(generate(gpt, tokenizer, ["abxc"], SamplingConfig(), CPU))
    skipped = list(
        generate(gpt, tokenizer, ["abxc"], SamplingConfig(unknown="skip", temperature=0, max_new_tokens=5), CPU)
    )
    plain = list(generate(gpt, tokenizer, ["abc"], SamplingConfig(temperature=0, max_new_tokens=5), CPU))
    assert isinstance(skipped[-1], Generated)
    assert isinstance(plain[-1], Generated)
    assert skipped[-1].token_ids == plain[-1].token_ids


def test_an_empty_prompt_starts_from_end_of_text() -> None:
    gpt = model()
    with torch.no_grad():
        logits = gpt(torch.tensor([[256]]))[0, -1, :257]
    first = last(gpt, "", temperature=0, max_new_tokens=1)
    assert list(first.token_ids) == [int(logits.argmax())]


@pytest.mark.parametrize(("top_k", "top_p"), list(itertools.product([None, 1, 5], [None, 0.3, 0.9])))
def test_sampled_ids_are_always_among_the_allowed(top_k: int | None, top_p: float | None) -> None:
    gpt = model(scale=1.0)
    config = SamplingConfig(top_k=top_k, top_p=top_p, max_new_tokens=40)
    ids = last(gpt, "q", **config.model_dump(exclude_none=True)).token_ids
    context = list(b"q")
    with torch.no_grad():
        for token_id in ids[: BLOCK_SIZE - 1]:
            logits_V = gpt(torch.tensor([context]))[0, -1, :257].numpy()
            assert distribution(logits_V, config)[token_id] > 0
            context.append(token_id)


def test_scores_that_are_no_numbers_end_it_with_a_message() -> None:
    gpt = model()
    with torch.no_grad():
        gpt.final_norm.weight.fill_(torch.inf)
    for name, value in {"temperature": 0, "seed": 2, "beams": 2}.items():
        with pytest.raises(DivergedError, match="no numbers"):
            last(gpt, "x", **{name: value})
