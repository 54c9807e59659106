"""A conversation is one text that grows; each answer is what the model makes of all of it."""

from contextlib import closing

import pytest
import torch

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.generate.chat import Conversation
from mypt.core.generate.loaded import LoadedModel, load_model
from mypt.core.train.run import train
from mypt.errors import DataError, UsageError
from mypt.events import Generated, Token, Warned
from mypt.records.run import RunConfig
from mypt.records.sampling import SamplingConfig


@pytest.fixture
def loaded(tiny_run: RunConfig, directory: ModelDirectory) -> LoadedModel:
    list(train(tiny_run, directory))
    return load_model(directory, "cpu", print)


def chat(loaded: LoadedModel, beginning: str = "", **settings: object) -> Conversation:
    given = {"mode": "chat", "temperature": 0, "max_new_tokens": 12, **settings}
    return Conversation(loaded, SamplingConfig.parse(given, where="test"), beginning)


def answer(conversation: Conversation, message: str) -> str:
    return "".join(event.text for event in conversation.say(message) if isinstance(event, Token))


def test_an_answer_continues_all_that_was_said(loaded: LoadedModel) -> None:
    conversation = chat(loaded)
    first = answer(conversation, "The river")
    assert conversation.history == "The river\n" + first + "\n"
    before = conversation.history
    second = answer(conversation, "The house")
    assert second == loaded.generate(before + "The house\n", temperature=0, max_new_tokens=12, stop=["\n\n"])


def test_the_same_question_is_answered_anew_and_a_conversation_can_be_had_again(loaded: LoadedModel) -> None:
    first, second = chat(loaded, temperature=1.5), chat(loaded, temperature=1.5)
    answers = [answer(first, "The house") for _ in range(4)]
    assert len(set(answers)) == 4
    assert [answer(second, "The house") for _ in range(4)] == answers
    second.reset()
    assert answer(second, "The house") == answers[0]


def test_a_turn_can_have_another_form_and_its_stop_text_stays_in_the_history(loaded: LoadedModel) -> None:
    plain = loaded.generate("Q: tell\nA:", temperature=0, max_new_tokens=12, unknown="skip")
    stop = plain[4:6]
    conversation = chat(loaded, turn="Q: {message}\nA:", stop=[stop], unknown="skip")
    said = answer(conversation, "tell")
    assert said == plain[: plain.index(stop)]
    assert conversation.history == f"Q: tell\nA:{said}{stop}"


def test_an_answer_that_is_stopped_keeps_what_was_written(loaded: LoadedModel) -> None:
    conversation = chat(loaded)
    with closing(conversation.say("The step")) as events:
        shown = "".join(next(event.text for event in events if isinstance(event, Token)) for _ in range(4))
    assert len(shown) == 4
    assert conversation.history == "The step\n" + shown + "\n"
    assert answer(chat(loaded), "The step").startswith(shown)


def test_reset_forgets_all_but_the_beginning(loaded: LoadedModel) -> None:
    conversation = chat(loaded, "The loss counts.\n")
    first = answer(conversation, "The batch")
    assert conversation.history.startswith("The loss counts.\nThe batch\n")
    conversation.reset()
    assert conversation.history == "The loss counts.\n"
    assert answer(conversation, "The batch") == first


def test_a_message_that_cannot_be_encoded_was_not_said(loaded: LoadedModel) -> None:
    conversation = chat(loaded)
    answer(conversation, "The shard")
    before = conversation.history
    with pytest.raises(DataError, match="Ω"):
        answer(conversation, "Ωmega")
    assert conversation.history == before


def test_settings_change_for_the_answers_that_follow(loaded: LoadedModel) -> None:
    conversation = chat(loaded)
    conversation.set("max-new-tokens", "3")
    *_, last = conversation.say("The token")
    assert isinstance(last, Generated)
    assert len(last.token_ids) == 3
    conversation.set("stop", '["e"]')
    assert conversation.config.stops == ("e",)
    for name, value in (
        ("temprature", "1"),
        ("temperature", "-1"),
        ("top_k", "many"),
        ("mode", "qa"),
        ("turn", "x"),
        ("stop", "[" * 9999),
    ):
        with pytest.raises(UsageError, match="/set"):
            conversation.set(name, value)
    assert conversation.config.max_new_tokens == 3


def test_a_history_longer_than_the_window_is_cut_and_told_once(loaded: LoadedModel) -> None:
    conversation = chat(loaded)
    warned = [sum(isinstance(event, Warned) for event in conversation.say("The model reads it.")) for _ in range(4)]
    assert sum(warned) == 1
    window = loaded.model.config.block_size
    ids = loaded.tokenizer.encode(conversation.history + "The\n")[-window:]
    with torch.no_grad():
        expected = int(loaded.model(torch.from_numpy(ids.astype("int64"))[None])[0, -1].argmax())
    *_, last = conversation.say("The")
    assert isinstance(last, Generated)
    assert last.token_ids[0] == expected
