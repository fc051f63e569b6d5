from typing import Any

import pytest
from torch import Tensor

from groundup.data.instructions import encode_prompt
from groundup.decoding.answer_config import ChatConfig
from groundup.decoding.chat import Chat
from groundup.decoding.config import SamplingConfig
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.prompts import PROMPT_STYLES, Message, get_style
from groundup.tokenizers import BPETokenizer
from tests.assistants import Scripted, lively_model

GREEDY = SamplingConfig(max_new_tokens=40)


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def scripted(
    tokenizer: BPETokenizer,
    *answers: str,
    style: str = "plain",
    system: str | None = None,
    context: int = 640,
    config: SamplingConfig = GREEDY,
) -> tuple[Chat, Scripted]:
    model = Scripted(tokenizer, answers, context)
    return Chat(model, tokenizer, get_style(style), config, system=system), model


@pytest.mark.parametrize("style", PROMPT_STYLES)
def test_the_model_reads_the_conversation_in_its_style(tokenizer: BPETokenizer, style: str) -> None:
    chat, model = scripted(tokenizer, " the fox ", "over", "dog", style=style, system="Be kind.")
    assert "".join(chat.ask("Who?")) == " the fox "
    assert "".join(chat.ask("Where?")) == "over"
    system: Message = {"role": "system", "content": "Be kind."}
    said = [system, user("Who?"), assistant("the fox"), user("Where?")]
    for prompt, messages in zip(model.prompts, (said[:2], said), strict=True):
        assert prompt == encode_prompt(messages, tokenizer, get_style(style))
    assert chat.messages() == [*said, assistant("over")]
    chat.reset()
    assert chat.messages() == [system]
    chat.system = None
    "".join(chat.ask("Whom?"))
    assert model.prompts[2] == encode_prompt([user("Whom?")], tokenizer, get_style(style))


def test_pieces_are_whole_characters_and_come_as_they_are_written(
    tokenizer: BPETokenizer,
) -> None:
    text = "a 👩‍🚀 née 日本 🙂🏽"
    chat, _ = scripted(tokenizer, text)
    pieces = []
    for piece in (answer := chat.ask("?")):
        pieces.append(piece)
        assert answer.text == "".join(pieces) and answer.finish_reason is None
    assert "".join(pieces) == text and "�" not in text
    assert len(tokenizer.encode(text)) > len(pieces) > 5
    assert answer.finish_reason == "end_of_text"


def test_an_answer_ends_before_a_stop_string(tokenizer: BPETokenizer) -> None:
    chat, _ = scripted(tokenizer, "Yes.\n<|im_end|>more", style="chatml")
    answer = chat.ask("?")
    assert "".join(answer) == "Yes.\n" and answer.finish_reason == "stop"
    assert chat.turns == [("?", "Yes.")]


def test_the_oldest_whole_turns_are_forgotten(tokenizer: BPETokenizer) -> None:
    size = len(encode_prompt([user("ab"), assistant("cd"), user("ab")], tokenizer, PLAIN))
    first = len(encode_prompt([user("ab")], tokenizer, PLAIN))
    turn = size - first
    # Room for the system message, three turns, and a quarter for the answer.
    system = len(tokenizer.encode("You!\n"))
    context = next(n for n in range(999) if n - n // 4 >= system + first + 2 * turn)
    chat, model = scripted(
        tokenizer, *["cd"] * 9, system="You!", context=context, config=SamplingConfig(99)
    )
    forgotten = []
    for _ in range(6):
        "".join(chat.ask("ab"))
        forgotten.append(chat.forgotten)
    assert forgotten == [0, 0, 0, 1, 2, 3]
    assert [len(prompt) for prompt in model.prompts] == [
        system + first + kept * turn for kept in (0, 1, 2, 2, 2, 2)
    ]
    head: Message = {"role": "system", "content": "You!"}
    seen = [head, *[user("ab"), assistant("cd")] * 2, user("ab")]
    assert model.prompts[-1] == encode_prompt(seen, tokenizer, PLAIN)
    assert len(chat.messages()) == 13  # the forgotten turns are no secret
    chat.reset()
    assert chat.forgotten == 0


PLAIN = get_style("plain")


def test_a_message_longer_than_the_context_changes_nothing(tokenizer: BPETokenizer) -> None:
    chat, _ = scripted(tokenizer, "one", "two", context=40)
    "".join(chat.ask("a"))
    with pytest.raises(UserError, match=r"context of 40 leaves 30 for that: shorten the message$"):
        chat.ask("long " * 40)
    assert chat.forgotten == 0 and chat.turns == [("a", "one")]
    assert "".join(chat.ask("b")) == "two"
    chat.system = "long " * 40
    with pytest.raises(UserError, match="shorten the message or the system message"):
        chat.ask("b")


def test_an_answer_ends_where_the_context_is_full(tokenizer: BPETokenizer) -> None:
    chat, model = scripted(tokenizer, "ab" * 90, context=40, config=SamplingConfig(99))
    answer = chat.ask("hi")
    text = "".join(answer)
    assert answer.finish_reason == "length"
    # The last token is written but never read.
    assert len(model.prompts[0]) + model.written - 1 == 40 and text.startswith("abab")
    chat, model = scripted(tokenizer, "ab" * 90, config=SamplingConfig(3))
    "".join(chat.ask("hi"))
    assert model.written == 3


def test_a_stopped_answer_stays_as_far_as_it_came(tokenizer: BPETokenizer) -> None:
    chat, model = scripted(tokenizer, "the lazy dog", "yes")
    answer = chat.ask("Who?")
    pieces = [next(iter(answer)) for _ in range(3)]
    answer.stop()
    answer.stop()
    assert list(answer) == [] and answer.finish_reason is None
    assert chat.turns == [("Who?", "".join(pieces).strip())]
    assert "".join(chat.ask("Go on")) == "yes"
    said = [user("Who?"), assistant("".join(pieces).strip()), user("Go on")]
    assert model.prompts[1] == encode_prompt(said, tokenizer, PLAIN)


def test_ctrl_c_while_the_model_computes(tokenizer: BPETokenizer) -> None:
    model = Scripted(tokenizer, ["qwxyz", "", " \n"], interrupt_at=3)
    chat = Chat(model, tokenizer, PLAIN, GREEDY)
    with pytest.raises(KeyboardInterrupt):
        list(chat.ask("one"))
    assert chat.turns == [("one", "qw")]
    model.interrupt_at = None
    for text in ("two", "three"):  # a turn without an answer is none
        assert not "".join(chat.ask(text)).strip()
    model.interrupt_at = 1
    with pytest.raises(KeyboardInterrupt):
        list(chat.ask("four"))
    chat.ask("five").stop()
    assert chat.turns == [("one", "qw")]


def test_one_random_generator_for_all_answers(tokenizer: BPETokenizer) -> None:
    model = lively_model(tokenizer, context_length=400)

    def answers(config: SamplingConfig) -> list[str]:
        chat, texts = Chat(model, tokenizer, PLAIN, config), []
        for _ in range(2):
            texts.append("".join(chat.ask("Who?")))
            chat.reset()
        return texts

    seeded = ChatConfig(max_new_tokens=12, temperature=1.5, seed=1)
    first, second = answers(seeded)
    assert first != second and answers(seeded) == [first, second]
    assert answers(GREEDY)[0] == answers(GREEDY)[1]
    with pytest.raises(UserError, match="top_p is 2.0"):
        Chat(model, tokenizer, PLAIN, ChatConfig(top_p=2.0))


def test_a_turn_computes_only_what_is_new_in_it(tokenizer: BPETokenizer) -> None:
    model = Counted(lively_model(tokenizer, context_length=400).cfg).eval()
    chat = Chat(model, tokenizer, get_style("chatml"), SamplingConfig(max_new_tokens=9))
    computed, lengths = [], []
    for turn in range(5):
        model.tokens = 0
        lengths.append(len(chat._encode(f"What is {turn}?", chat.turns)))
        "".join(chat.ask(f"What is {turn}?"))
        computed.append(model.tokens)
    # The message and the answer before it with what stands around them, and the new answer.
    for turn in range(1, 5):
        assert computed[turn] <= lengths[turn] - lengths[turn - 1] + 9
    assert lengths[4] > 3 * computed[4]
    answers = [answer for _, answer in chat.turns]
    fresh = Chat(model, tokenizer, get_style("chatml"), SamplingConfig(max_new_tokens=9))
    fresh.turns = chat.turns[:-1]
    assert "".join(fresh.ask("What is 4?")).strip() == answers[-1]


class Counted(GPTModel):
    """Counts the tokens that it computes."""

    tokens = 0

    def forward(self, in_idx: Tensor, *args: Any, **options: Any) -> Tensor:
        self.tokens += in_idx.numel()
        return super().forward(in_idx, *args, **options)
