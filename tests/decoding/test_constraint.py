import json
import re

import pytest
import torch

from groundup.decoding.config import SamplingConfig
from groundup.decoding.constraint import Constraint
from groundup.decoding.engine import Engine
from groundup.decoding.sequence import Sequence
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer, Tokenizer, get_gpt2_tokenizer, train_with_library
from tests.assistants import lively_model
from tests.conftest import TEXT, tiny_config

SCHEMA = {
    "type": "object",
    "properties": {
        "score": {"type": "integer", "minimum": 0, "maximum": 100},
        "ok": {"type": "boolean"},
    },
    "required": ["score", "ok"],
    "additionalProperties": False,
}


def write(model: GPTModel, tokenizer: Tokenizer, *constraints: Constraint) -> list[Sequence]:
    config = SamplingConfig(max_new_tokens=200, temperature=1.0, seed=2)
    engine = Engine(model, tokenizer)
    texts = [
        engine.add(Sequence([1, 2], config, tokenizer=tokenizer, index=i, constraint=constraint))
        for i, constraint in enumerate(constraints)
    ]
    list(engine.run())
    return texts


@pytest.mark.parametrize("kind", ["ours", "library", "gpt2"])
def test_a_random_model_writes_what_the_schema_says(kind: str, tokenizer: BPETokenizer) -> None:
    made = {
        "ours": lambda: tokenizer,
        "library": lambda: train_with_library([TEXT], 290),
        "gpt2": get_gpt2_tokenizer,
    }
    tokens: Tokenizer = made[kind]()
    model = GPTModel(tiny_config(vocab_size=tokens.vocab_size, context_length=256)).init_gpt2()
    made_of = Constraint(tokens, SCHEMA), Constraint(tokens, None, "(yes|no), [0-9]{2}[a-c]")
    shaped, matched = write(model.eval(), tokens, *made_of)
    found = json.loads(tokens.decode(shaped.token_ids))
    assert set(found) == {"score", "ok"} and 0 <= found["score"] <= 100
    assert isinstance(found["ok"], bool) and shaped.finish_reason == "stop"
    assert re.fullmatch("(yes|no), [0-9]{2}[a-c]", tokens.decode(matched.token_ids))


def test_copies_go_their_own_ways(tokenizer: BPETokenizer) -> None:
    model = lively_model(tokenizer)
    made = Constraint(tokenizer, None, "[a-z]{3} [0-9]{3}")
    texts = write(model, tokenizer, *(made.copy() for _ in range(3)))
    written = {tokenizer.decode(text.token_ids) for text in texts}
    assert len(written) > 1 and all(re.fullmatch("[a-z]{3} [0-9]{3}", one) for one in written)
    assert not made.ended  # and what they are copies of has gone nowhere


def test_a_text_may_end_or_go_on_where_the_form_allows_both(tokenizer: BPETokenizer) -> None:
    model = lively_model(tokenizer)
    head = model.out_head.weight.data
    a = tokenizer.encode("a")[0]
    (text,) = write(model, tokenizer, Constraint(tokenizer, None, "a+"))
    written = tokenizer.decode(text.token_ids)
    assert set(written) == {"a"} and text.finish_reason in ("end_of_text", "length")
    head[a] = 0.0
    head[tokenizer.eot_token] = -head[:].abs().amax(0)
    allowed = Constraint(tokenizer, None, "a+").mask(torch.zeros(tokenizer.vocab_size)).isfinite()
    assert allowed[a] and not allowed[tokenizer.eot_token]


def test_one_that_cannot_go_on_does_not_end_the_others(tokenizer: BPETokenizer) -> None:
    class Breaks(Constraint):
        def take(self, token_id: int) -> None:
            raise UserError("too complex")

    model = lively_model(tokenizer)
    broken, whole = write(
        model, tokenizer, Breaks(tokenizer, None, "a+"), Constraint(tokenizer, None, "b{4}")
    )
    assert broken.finish_reason == "error" and str(broken.error) == "too complex"
    assert tokenizer.decode(whole.token_ids) == "bbbb"


@pytest.mark.parametrize(
    ("schema", "regex", "message"),
    [
        ('{"type":', None, "the JSON schema is not JSON"),
        ('{"type": "banana"}', None, "JSON schema cannot be followed: Invalid type: banana"),
        ("[1]", None, "JSON schema cannot be followed: schema must be an object"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, None, "Unsatisfiable schema"),
        (False, None, "Unsatisfiable schema"),
        (None, "(a", "regular expression cannot be followed"),
        ({}, "a", "not both"),
    ],
)
def test_what_cannot_be_parsed_or_satisfied_is_refused(
    tokenizer: BPETokenizer, schema: dict, regex: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Constraint(tokenizer, schema, regex)
    assert "\n" not in str(caught.value)


def test_white_space_is_that_of_pythons_json(tokenizer: BPETokenizer) -> None:
    """If it may be anything, a model can write it for ever."""
    schema = {
        "type": "object",
        "properties": {"a": {"enum": [1]}, "b": {"enum": [[2, 3]]}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    constraint = Constraint(tokenizer, schema)
    for token in tokenizer.encode(json.dumps({"a": 1, "b": [2, 3]})):
        constraint.take(token)
    assert constraint.ended
    with pytest.raises(UserError):
        Constraint(tokenizer, schema).take(tokenizer.encode(" ")[0])
