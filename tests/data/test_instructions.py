import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from groundup.config import IGNORE_INDEX, TrainOn
from groundup.data.instruction_files import split_instructions
from groundup.data.instructions import (
    Example,
    InstructionDataset,
    collate_examples,
    custom_collate_fn,
    drop_unlearnable,
    encode_entry,
    encode_prompt,
)
from groundup.errors import UserError
from groundup.prompts import PROMPT_STYLES, format_input, get_style
from groundup.tokenizers import BPETokenizer, get_gpt2_tokenizer
from groundup.tokenizers.vocabulary import Vocabulary

EOT = 50256
COURSE_BATCH = [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]
COURSE_INPUTS = [[0, 1, 2, 3, 4], [5, 6, EOT, EOT, EOT], [7, 8, 9, EOT, EOT]]
COURSE_TARGETS = [[1, 2, 3, 4, EOT], [6, EOT, -100, -100, -100], [8, 9, EOT, -100, -100]]

BATCHES = st.lists(
    st.lists(st.integers(0, EOT - 1), min_size=1, max_size=12), min_size=1, max_size=5
)
LIMITS = st.none() | st.integers(1, 14)


def the_courses_collate(
    batch: list[list[int]], allowed_max_length: int | None
) -> tuple[list[list[int]], list[list[int]]]:
    """What the course's function returns, on lists."""
    length = max(len(item) for item in batch) + 1
    inputs, targets = [], []
    for item in batch:
        padded = item + [EOT] * (length - len(item))
        target = padded[1:]
        first = target.index(EOT)
        target[first + 1 :] = [-100 if t == EOT else t for t in target[first + 1 :]]
        inputs.append(padded[:-1][:allowed_max_length])
        targets.append(target[:allowed_max_length])
    return inputs, targets


def as_lists(batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[list[Any], list[Any]]:
    assert all(tensor.dtype == torch.long for tensor in batch)
    return batch[0].tolist(), batch[1].tolist()


def examples_of(batch: list[list[int]], prompt: int = 1) -> list[Example]:
    """Examples that end with end-of-text, of which the first ``prompt`` ids are the prompt."""
    return [Example([*item, EOT], [(min(prompt, len(item)), len(item) + 1)]) for item in batch]


@pytest.fixture(scope="module")
def entries(data_dir: Path) -> list[dict[str, str]]:
    return json.loads((data_dir / "instruction-data.json").read_text(encoding="utf-8"))


def test_the_courses_example_batch() -> None:
    assert as_lists(custom_collate_fn(COURSE_BATCH)) == (COURSE_INPUTS, COURSE_TARGETS)
    cut = as_lists(custom_collate_fn(COURSE_BATCH, allowed_max_length=3))
    assert cut == ([row[:3] for row in COURSE_INPUTS], [row[:3] for row in COURSE_TARGETS])
    inputs, targets = custom_collate_fn([[1], [2, 3]], pad_token_id=0, ignore_index=-1)
    assert inputs.tolist() == [[1, 0], [2, 3]] and targets.tolist() == [[0, -1], [3, 0]]


@given(BATCHES, LIMITS)
def test_collate_is_the_courses(batch: list[list[int]], limit: int | None) -> None:
    expected = the_courses_collate(batch, limit)
    assert as_lists(custom_collate_fn(batch, allowed_max_length=limit)) == expected
    ours = collate_examples(examples_of(batch), EOT, train_on="all", max_length=limit)
    assert as_lists(ours) == expected


def test_an_end_of_text_within_a_row_is_no_padding() -> None:
    _, targets = custom_collate_fn([[1, EOT, 2], [3]])
    assert targets.tolist() == [[EOT, 2, EOT], [EOT, -100, -100]]


def test_the_device_is_the_asked_one() -> None:
    inputs, targets = custom_collate_fn([[1, 2]], device="meta")
    assert inputs.device.type == targets.device.type == "meta"


@given(BATCHES, st.integers(1, 12))
def test_only_the_prompt_is_masked(batch: list[list[int]], prompt: int) -> None:
    examples = examples_of(batch, prompt)
    inputs, everything = collate_examples(examples, EOT, train_on="all")
    same, targets = collate_examples(examples, EOT, train_on="response")
    assert torch.equal(inputs, same)
    for row, example in enumerate(examples):
        begin, end = example.responses[0]
        assert (targets[row, : begin - 1] == IGNORE_INDEX).all()
        assert torch.equal(targets[row, begin - 1 :], everything[row, begin - 1 :])
        assert targets[row, end - 2] == EOT  # the one that teaches the model to stop


def test_truncation_cuts_the_end_of_the_response() -> None:
    example = Example([1, 2, 3, 4, EOT], [(2, 5)])
    for limit, expected in {9: [-100, 3, 4, EOT], 4: [-100, 3, 4, EOT], 3: [-100, 3, 4]}.items():
        inputs, targets = collate_examples([example], EOT, train_on="response", max_length=limit)
        assert targets.tolist() == [expected]
        assert inputs.tolist() == [[1, 2, 3, 4][:limit]]


@given(BATCHES, LIMITS, st.integers(1, 12), st.sampled_from(["all", "response"]))
def test_an_example_is_dropped_if_and_only_if_it_has_no_target(
    batch: list[list[int]], limit: int | None, prompt: int, train_on: TrainOn
) -> None:
    examples = examples_of(batch, prompt)
    kept, dropped = drop_unlearnable(examples, limit, train_on)
    assert len(kept) + dropped == len(examples)
    for example in examples:
        _, targets = collate_examples([example], EOT, train_on=train_on, max_length=limit)
        assert (example in kept) == bool((targets != IGNORE_INDEX).any())


def test_a_prompt_as_long_as_the_limit_is_learnable() -> None:
    example = Example([1, 2, 3, 4, EOT], [(3, 5)])
    assert drop_unlearnable([example], 3, "response") == ([example], 0)
    assert drop_unlearnable([example], 2, "response") == ([], 1)
    assert drop_unlearnable([example], 2, "all") == ([example], 0)
    assert drop_unlearnable([example], None, "response") == ([example], 0)


def test_the_courses_prompt() -> None:
    entry = {"instruction": "Spell.", "input": "Ocassion", "output": "Occasion."}
    assert format_input(entry) == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nSpell.\n\n### Input:\nOcassion"
    )
    assert format_input({**entry, "input": ""}).endswith("### Instruction:\nSpell.")


def test_the_courses_dataset() -> None:
    tokenizer = get_gpt2_tokenizer()
    entry = {"instruction": "Convert 45 kilometers to meters.", "input": "", "output": "45000."}
    dataset = InstructionDataset([entry], tokenizer)
    text = format_input(entry) + "\n\n### Response:\n45000."
    assert len(dataset) == 1 and dataset.data == [entry]
    assert dataset[0] == dataset.encoded_texts[0] == tokenizer.encode(text)
    phi3 = InstructionDataset([entry], tokenizer, style="phi3")
    assert tokenizer.decode(phi3[0]) == (
        "<|user|>\nConvert 45 kilometers to meters.\n<|assistant|>\n45000."
    )
    with pytest.raises(UserError, match="unknown prompt style 'phi'; did you mean 'phi3'"):
        InstructionDataset([entry], tokenizer, style="phi")


def test_on_the_courses_data_the_ids_are_the_courses(entries: list[dict[str, str]]) -> None:
    """Although prompt and response are encoded apart."""
    tokenizer = get_gpt2_tokenizer()
    dataset = InstructionDataset(entries, tokenizer)
    examples = [encode_entry(entry, tokenizer, get_style("alpaca")) for entry in entries]
    assert [example.ids for example in examples] == [[*ids, EOT] for ids in dataset.encoded_texts]
    batch = [example.ids[:-1] for example in examples[:8]]
    ours = collate_examples(examples[:8], EOT, train_on="all")
    assert as_lists(ours) == as_lists(custom_collate_fn(batch))


def test_the_shapes_that_the_course_prints(entries: list[dict[str, str]]) -> None:
    dataset = InstructionDataset(split_instructions(entries).train, get_gpt2_tokenizer())
    collate = partial(custom_collate_fn, allowed_max_length=1024)
    torch.manual_seed(123)
    loader = DataLoader(dataset, 8, collate_fn=collate, shuffle=True, drop_last=True)
    shapes = [tuple(inputs.shape) for inputs, targets in loader if targets.shape == inputs.shape]
    assert len(shapes) == 116
    assert shapes[:6] == [(8, 61), (8, 76), (8, 73), (8, 68), (8, 65), (8, 72)]


@pytest.mark.parametrize("style", PROMPT_STYLES.values(), ids=lambda style: style.name)
@given(
    contents=st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=6).filter(
        lambda texts: len(texts) % 2 == 0
    )
)
def test_an_example_begins_with_the_prompts_of_its_responses(
    style: Any, contents: list[str], tokenizer: BPETokenizer
) -> None:
    messages = [
        {"role": "assistant" if i % 2 else "user", "content": content}
        for i, content in enumerate(contents)
    ]
    eot = tokenizer.special_tokens["<|endoftext|>"]
    example = encode_entry({"messages": messages}, tokenizer, style)
    assert example.ids.count(eot) == len(contents) // 2 and example.ids[-1] == eot
    assert len(example.responses) == len(contents) // 2
    for i, (begin, end) in enumerate(example.responses):
        asked = messages[: 2 * i + 1]
        assert example.ids[:begin] == encode_prompt(asked, tokenizer, style)
        assert tokenizer.decode(example.ids[begin : end - 1]) == contents[2 * i + 1]
        assert example.ids[end - 1] == eot


def test_several_responses_are_learned_each_with_its_end(tokenizer: BPETokenizer) -> None:
    contents = ["The quick?", "brown fox", "And the dog?", "lazy"]
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    example = encode_entry({"messages": messages}, tokenizer, get_style("phi3"))
    _, targets = collate_examples([example], 0, train_on="response")
    learned = [t for t in targets[0].tolist() if t != IGNORE_INDEX]
    eot = tokenizer.eot_token
    assert learned == [*tokenizer.encode("brown fox"), eot, *tokenizer.encode("lazy"), eot]


def test_end_of_text_that_is_spelled_is_plain_text() -> None:
    tokenizer = get_gpt2_tokenizer()
    spelled = "Say <|endoftext|>"
    entry = {"instruction": spelled, "input": spelled, "output": spelled}
    example = encode_entry(entry, tokenizer, get_style("alpaca"))
    assert example.ids.count(EOT) == 1 and example.ids[-1] == EOT
    assert EOT not in InstructionDataset([entry], tokenizer)[0]
    assert EOT not in encode_prompt(
        [{"role": "user", "content": spelled}], tokenizer, get_style("chatml")
    )


def test_refusals(tokenizer: BPETokenizer) -> None:
    style = get_style("alpaca")
    with pytest.raises(UserError, match="no response to learn from"):
        encode_entry({"instruction": "Hi"}, tokenizer, style)
    with pytest.raises(UserError, match="the last message is not the user's"):
        encode_prompt([{"role": "system", "content": "x"}], tokenizer, style)
    silent = BPETokenizer(Vocabulary.from_merges([], []))
    assert encode_prompt([{"role": "user", "content": "Hi"}], silent, style)
    with pytest.raises(UserError, match=r"the tokenizer has no <\|endoftext\|>"):
        encode_entry({"instruction": "Hi", "output": "Hello"}, silent, style)
