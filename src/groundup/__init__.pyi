from .config import PRESETS as PRESETS, ModelConfig as ModelConfig
from .data.classification import (
    LabelledTexts as LabelledTexts,
    balance as balance,
    read_labelled as read_labelled,
    split_labelled as split_labelled,
)
from .data.download import download as download
from .data.instruction_files import (
    read_instructions as read_instructions,
    split_instructions as split_instructions,
)
from .data.instructions import (
    InstructionDataset as InstructionDataset,
    custom_collate_fn as custom_collate_fn,
)
from .data.spam import (
    SpamDataset as SpamDataset,
    create_balanced_dataset as create_balanced_dataset,
    random_split as random_split,
)
from .data.windows import (
    GPTDatasetV1 as GPTDatasetV1,
    TokenWindows as TokenWindows,
    create_dataloader_v1 as create_dataloader_v1,
)
from .errors import TrainingFailed as TrainingFailed, UserError as UserError
from .decoding.answer_config import ChatConfig as ChatConfig, RespondConfig as RespondConfig
from .decoding.chat import Chat as Chat
from .decoding.config import SamplingConfig as SamplingConfig
from .decoding.engine import (
    Engine as Engine,
    generate as generate,
    generate_text_simple as generate_text_simple,
    text_to_token_ids as text_to_token_ids,
    token_ids_to_text as token_ids_to_text,
)
from .decoding.sequence import Sequence as Sequence
from .decoding.texts import (
    Completion as Completion,
    TextStream as TextStream,
    generate_batch as generate_batch,
)
from .evaluate.perplexity import TextScore as TextScore, evaluate_text as evaluate_text
from .evaluate.perplexity_config import PerplexityConfig as PerplexityConfig
from .evaluate.classifier import Classifier as Classifier, classify_review as classify_review
from .judge.config import JudgeConfig as JudgeConfig
from .judge.course import (
    generate_model_scores as generate_model_scores,
    query_model as query_model,
)
from .judge.run import calibrate_judge as calibrate_judge
from .judge.run import judge_responses as judge_responses
from .lessons.attention import (
    FeedForwardFast as FeedForwardFast,
    GPTModelFast as GPTModelFast,
    PyTorchMultiHeadAttention as PyTorchMultiHeadAttention,
    TransformerBlockFast as TransformerBlockFast,
)
from .lessons.collate import (
    custom_collate_draft_1 as custom_collate_draft_1,
    custom_collate_draft_2 as custom_collate_draft_2,
)
from .lessons.downloads import (
    download_and_load_file as download_and_load_file,
    download_and_unzip_spam_data as download_and_unzip_spam_data,
    download_file as download_file,
)
from .lessons.lora import (
    LinearWithLoRA as LinearWithLoRA,
    LoRALayer as LoRALayer,
    replace_linear_with_lora as replace_linear_with_lora,
)
from .lessons.network import (
    ExampleDeepNeuralNetwork as ExampleDeepNeuralNetwork,
    find_highest_gradient as find_highest_gradient,
    print_gradients as print_gradients,
)
from .lessons.softmax import (
    print_sampled_tokens as print_sampled_tokens,
    softmax_naive as softmax_naive,
    softmax_with_temperature as softmax_with_temperature,
)
from .lessons.train_model import train_model as train_model
from .model.attention import MultiHeadAttention as MultiHeadAttention
from .model.cache import KVCache as KVCache
from .model.classifier import set_trainable as set_trainable, to_classifier as to_classifier
from .model.gpt import GPTModel as GPTModel
from .model.ladder import (
    CausalAttention as CausalAttention,
    MultiHeadAttentionSpelledOut as MultiHeadAttentionSpelledOut,
    MultiHeadAttentionWrapper as MultiHeadAttentionWrapper,
    SelfAttention_v1 as SelfAttention_v1,
    SelfAttention_v2 as SelfAttention_v2,
    simple_attention as simple_attention,
)
from .model.ladder_modern import (
    GroupedQueryAttention as GroupedQueryAttention,
    RMSNormSpelledOut as RMSNormSpelledOut,
    SwiGLUSpelledOut as SwiGLUSpelledOut,
    rotary_embedding as rotary_embedding,
)
from .model.layers import (
    GELU as GELU,
    FeedForward as FeedForward,
    LayerNorm as LayerNorm,
    RMSNorm as RMSNorm,
    SwiGLU as SwiGLU,
    TransformerBlock as TransformerBlock,
)
from .model.lora import LoRALinear as LoRALinear, add_lora as add_lora, merge_lora as merge_lora
from .model.watch import watch as watch
from .planning.config import PlanConfig as PlanConfig
from .planning.plan import Plan as Plan, plan as plan
from .plots import (
    plot_activations as plot_activations,
    plot_attention as plot_attention,
    plot_collate as plot_collate,
    plot_confusion as plot_confusion,
    plot_gradient_norm as plot_gradient_norm,
    plot_learning_rate as plot_learning_rate,
    plot_losses as plot_losses,
    plot_merges as plot_merges,
    plot_run as plot_run,
    plot_runs as plot_runs,
    plot_temperatures as plot_temperatures,
    plot_tokens as plot_tokens,
    plot_values as plot_values,
    plot_windows as plot_windows,
)
from .prompts import (
    PROMPT_STYLES as PROMPT_STYLES,
    PromptStyle as PromptStyle,
    format_input as format_input,
    get_style as get_style,
)
from .tasks.assistant import Assistant as Assistant
from .tasks.instruct import train_assistant as train_assistant
from .tasks.listing import list_runs as list_runs
from .tasks.respond import choose_entries as choose_entries, respond as respond
from .tasks.classify import train_classifier as train_classifier
from .tasks.config import (
    ClassifyConfig as ClassifyConfig,
    InstructConfig as InstructConfig,
    PretrainConfig as PretrainConfig,
)
from .tasks.pretrain import pretrain as pretrain
from .tokenizers import (
    BPETokenizer as BPETokenizer,
    GPT2Tokenizer as GPT2Tokenizer,
    LibraryTokenizer as LibraryTokenizer,
    SimpleTokenizerV1 as SimpleTokenizerV1,
    SimpleTokenizerV2 as SimpleTokenizerV2,
    build_vocab as build_vocab,
    get_gpt2_tokenizer as get_gpt2_tokenizer,
    load_tokenizer as load_tokenizer,
)
from .train.course import (
    calc_accuracy_loader as calc_accuracy_loader,
    calc_loss_batch as calc_loss_batch,
    calc_loss_loader as calc_loss_loader,
    evaluate_model as evaluate_model,
    generate_and_print_sample as generate_and_print_sample,
    train_classifier_simple as train_classifier_simple,
    train_model_simple as train_model_simple,
)
from .train.trainer import Trainer as Trainer
from .weights.checkpoint import save_model as save_model
from .weights.export import export as export
from .weights.importing import import_model as import_model
from .weights.openai import (
    download_and_load_gpt2 as download_and_load_gpt2,
    load_gpt2_params_from_tf_ckpt as load_gpt2_params_from_tf_ckpt,
    load_weights_into_gpt as load_weights_into_gpt,
)
from .weights.load import load_model as load_model
from .weights.lora import load_adapter as load_adapter, save_adapter as save_adapter
from .xray.data import XRay as XRay
from .xray.page import write_xray as write_xray
from .xray.take import take_xray as take_xray

__version__: str
__all__: list[str]
