"""Train the same tokenizer with Hugging Face's `tokenizers` library: for corpora of gigabytes.

`BPETokenizer.train` is Python that you can read, and as quick on megabytes of text; on more, this
wins, since it counts words in Rust on every core. Both give the same merges.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from groundup.tokenizers.bpe import BPETokenizer
from groundup.tokenizers.bpe_train import check_documents, check_request
from groundup.tokenizers.byte_level import END_OF_TEXT, to_bytes
from groundup.tokenizers.vocabulary import Vocabulary


def train_with_library(
    texts: str | Iterable[str],
    vocab_size: int,
    special_tokens: Sequence[str] = (END_OF_TEXT,),
) -> BPETokenizer:
    """Learn a vocabulary from documents, as `BPETokenizer.train` does.

    Raises:
        UserError: the text is empty or not UTF-8, the vocabulary too small, a special token
            unusable.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    specials = check_request(vocab_size, special_tokens)
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(specials),  # ours are numbered afterwards, as in GPT-2
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(check_documents(texts), trainer)
    merges = json.loads(library.to_str())["model"]["merges"]
    return BPETokenizer(
        Vocabulary.from_merges([(to_bytes(a), to_bytes(b)) for a, b in merges], specials)
    )
