from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from groundup.config import ModelConfig
from groundup.decoding.beams import beam_search
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from tests.conftest import tiny_config
from tests.decoding.test_engine import Plain

CFG = tiny_config(vocab_size=60, context_length=40)


@pytest.fixture
def model() -> GPTModel:
    model = GPTModel(CFG).init_gpt2().eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


class Transformers(GPT2LMHeadModel):
    """Its beam search on the scores of one of our models."""

    def __init__(self, model: GPTModel, cfg: ModelConfig) -> None:
        super().__init__(GPT2Config(vocab_size=cfg.vocab_size, n_embd=8, n_layer=1, n_head=1))
        self.ours = model

    def forward(self, input_ids: Any = None, **options: Any) -> Any:  # pyright: ignore
        found = super().forward(input_ids[:, -1:])
        found.logits = self.ours(input_ids)
        return found


@pytest.mark.parametrize("penalty", [1.0, 0.0, 2.0])
@pytest.mark.parametrize("beams", [1, 2, 5])
def test_it_finds_what_transformers_finds(model: GPTModel, beams: int, penalty: float) -> None:
    prompt = torch.randint(0, 60, (1, 4))
    own = Plain(model)  # a student's, which takes only ids
    own.pos_emb = model.get_submodule("pos_emb")
    greedy = beam_search(model, prompt[0].tolist(), 1, 3)[0].token_ids
    for eos in (greedy[2], 7):
        peer: Any = Transformers(model, CFG)
        theirs = peer.generate(
            prompt,
            num_beams=beams,
            num_return_sequences=beams,
            max_new_tokens=9,
            eos_token_id=eos,
            pad_token_id=eos,
            length_penalty=penalty,
            do_sample=False,
            use_cache=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        found = beam_search(model, prompt[0].tolist(), beams, 9, eos_id=eos, length_penalty=penalty)
        for beam, row in zip(found, theirs.sequences, strict=True):
            written = row[4 : 4 + len(beam.token_ids)].tolist()
            assert beam.token_ids == written and set(row[4 + len(written) :].tolist()) <= {eos}
        if beams > 1:
            scores = torch.tensor([beam.score for beam in found])
            torch.testing.assert_close(scores, theirs.sequences_scores, atol=1e-5, rtol=0)
        anew = beam_search(own, prompt[0].tolist(), beams, 9, eos_id=eos, length_penalty=penalty)
        assert anew[0].token_ids == found[0].token_ids


def test_more_beams_find_a_likelier_text(model: GPTModel) -> None:
    gains = []
    for token in range(20):
        one, many = (beam_search(model, [token], n, 6, length_penalty=0.0)[0] for n in (1, 30))
        gains.append(many.score - one.score)
    assert min(gains) > -1e-4 and max(gains) > 0.1


def test_it_ends_where_the_context_is_full_and_refuses_nonsense(model: GPTModel) -> None:
    assert len(beam_search(model, [1] * 38, 3, 20)[0].token_ids) == 3
    for prompt, beams, new, message in (
        ([], 2, 3, "the prompt has 0 tokens"),
        ([1] * 41, 2, 3, "the prompt has 41 tokens; expected 1 to 40"),
        ([1], 0, 3, "expected at least 1"),
        ([1], 2, 0, "expected at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            beam_search(model, prompt, beams, new)
    model.get_parameter("final_norm.shift").data[0] = float("nan")
    with pytest.raises(UserError, match="not numbers"):
        beam_search(model, [1], 2, 2)
