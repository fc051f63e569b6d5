from .config import PRESETS as PRESETS, ModelConfig as ModelConfig
from .data.download import download as download
from .data.windows import (
    GPTDatasetV1 as GPTDatasetV1,
    TokenWindows as TokenWindows,
    create_dataloader_v1 as create_dataloader_v1,
)
from .errors import TrainingFailed as TrainingFailed, UserError as UserError
from .decoding.config import SamplingConfig as SamplingConfig
from .decoding.engine import (
    TextStream as TextStream,
    generate as generate,
    generate_text_simple as generate_text_simple,
    text_to_token_ids as text_to_token_ids,
    token_ids_to_text as token_ids_to_text,
)
from .model.attention import MultiHeadAttention as MultiHeadAttention
from .model.cache import KVCache as KVCache
from .model.gpt import GPTModel as GPTModel
from .model.ladder import (
    CausalAttention as CausalAttention,
    MultiHeadAttentionWrapper as MultiHeadAttentionWrapper,
    SelfAttention_v1 as SelfAttention_v1,
    SelfAttention_v2 as SelfAttention_v2,
    simple_attention as simple_attention,
)
from .model.layers import (
    GELU as GELU,
    FeedForward as FeedForward,
    LayerNorm as LayerNorm,
    TransformerBlock as TransformerBlock,
)
from .plots import plot_losses as plot_losses, plot_run as plot_run
from .tasks.config import PretrainConfig as PretrainConfig
from .tasks.pretrain import pretrain as pretrain
from .tokenizers import (
    BPETokenizer as BPETokenizer,
    GPT2Tokenizer as GPT2Tokenizer,
    SimpleTokenizerV1 as SimpleTokenizerV1,
    SimpleTokenizerV2 as SimpleTokenizerV2,
    build_vocab as build_vocab,
    get_gpt2_tokenizer as get_gpt2_tokenizer,
    load_tokenizer as load_tokenizer,
)
from .train.course import (
    calc_loss_batch as calc_loss_batch,
    calc_loss_loader as calc_loss_loader,
    evaluate_model as evaluate_model,
    generate_and_print_sample as generate_and_print_sample,
    train_model_simple as train_model_simple,
)
from .train.trainer import Trainer as Trainer
from .weights.checkpoint import save_model as save_model
from .weights.export import export as export
from .weights.openai import (
    download_and_load_gpt2 as download_and_load_gpt2,
    load_weights_into_gpt as load_weights_into_gpt,
)
from .weights.load import load_model as load_model

__version__: str
__all__: list[str]
