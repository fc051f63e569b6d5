"""Text to token ids and back: the course's word tokenizers, byte-level BPE, GPT-2's own."""

from groundup.tokenizers.bpe import BPETokenizer
from groundup.tokenizers.bpe_library import train_with_library
from groundup.tokenizers.gpt2 import GPT2Tokenizer, get_gpt2_tokenizer
from groundup.tokenizers.interface import Tokenizer
from groundup.tokenizers.library import LibraryTokenizer
from groundup.tokenizers.opening import get_tokenizer, load_openai_tokenizer, load_tokenizer
from groundup.tokenizers.stream import StreamDecoder
from groundup.tokenizers.words import SimpleTokenizerV1, SimpleTokenizerV2, build_vocab

__all__ = [
    "BPETokenizer",
    "GPT2Tokenizer",
    "LibraryTokenizer",
    "SimpleTokenizerV1",
    "SimpleTokenizerV2",
    "StreamDecoder",
    "Tokenizer",
    "build_vocab",
    "get_gpt2_tokenizer",
    "get_tokenizer",
    "load_openai_tokenizer",
    "load_tokenizer",
    "train_with_library",
]
