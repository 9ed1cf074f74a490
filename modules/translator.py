"""LightningModule for sequence-to-sequence translation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from tokenizers import Tokenizer
from torch import Tensor, nn

from engine.errors import UserError
from engine.eval_mode import eval_mode
from modules.adapters.methods import Adapter
from modules.adapters.task import AdapterTask
from modules.inference.beam_search import beam_search, check_search
from modules.nets.layers.cross_entropy import cross_entropy_sum
from modules.optim.schedules import configure
from modules.training.gradients import TokenMeanGradient, mean_over_processes, should_log
from modules.training.hyperparameters import save_arguments
from modules.training.metrics import (
    MeanLoss,
    Perplexity,
    TokenAccuracy,
    log_metrics,
    stage_metrics,
)
from preprocessing.special_tokens import BOS, EOS, IGNORE_INDEX, PAD
from preprocessing.texts import texts_to_inputs

Batch = tuple[dict[str, Tensor], Tensor]


class Translator(AdapterTask):
    """Train an encoder–decoder model with teacher forcing and translate with beam search.

    The model's `forward(inputs)` returns logits (B, T, target_vocab_size) for the shifted target.
    For decoding it must implement `modules.inference.beam_search.Translates`.

    Logs `train/loss` and `train/accuracy` of single batches every `trainer.log_every_n_steps`, and
    for val and test `loss` (nats per token), `perplexity` (its exponential), `accuracy` (fraction
    of tokens predicted correctly given the preceding reference tokens), and `bleu`: sacreBLEU, 0 to
    100, of the translations as text against the original references. Validation decodes greedily;
    test uses beam search and adds `chrf` and `exact`, the fraction of translations that equal their
    reference. The sacreBLEU signatures are in `signatures`.

    The gradient of a step is that of the mean over all its tokens, regardless of how they are
    distributed over accumulated batches and processes; padding (target -100) is excluded.

    Args:
        net: The network; its sizes come from the data.
        optimizer: Optimizer class and arguments; AdamW with lr 0.001 by default.
        lr_scheduler: Schedule class and arguments; a constant learning rate by default.
        label_smoothing: Probability in [0, 1) distributed over all tokens in the training loss; val
            and test losses are always the plain cross-entropy.
        beam_size: Number of hypotheses per sentence in test and predict.
        length_penalty: Exponent α of the length penalty, at least 0; see
            modules/inference/beam_search.py.
        translate_val: Translate during validation; otherwise compute only the loss.
        source_tokenizer: Tokenizer of the source language as JSON. Linked from the data.
        target_tokenizer: Tokenizer of the target language as JSON. Linked from the data.
        adapter: What to train while the other weights of the network are frozen, such as
            modules.adapters.LoRA; all weights are trained by default.
    """

    targets_are_classes = True  # batches are (inputs, targets); forward returns logits

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        label_smoothing: float = 0.0,
        beam_size: int = 5,
        length_penalty: float = 0.6,
        translate_val: bool = True,
        source_tokenizer: str | None = None,
        target_tokenizer: str | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        super().__init__()
        check_search(beam_size, length_penalty)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        save_arguments(self)
        self.set_net(net, adapter)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.label_smoothing = label_smoothing
        self.beam_size = beam_size
        self.length_penalty = length_penalty
        self.translate_val = translate_val
        self.tokenizers = [
            None if json is None else Tokenizer.from_str(json)
            for json in (source_tokenizer, target_tokenizer)
        ]
        self.gradient = TokenMeanGradient()
        self.metrics = stage_metrics(
            {"loss": MeanLoss(), "perplexity": Perplexity(), "accuracy": TokenAccuracy()}
        )
        self.translations: list[tuple[str, str]] = []  # (translation, reference) of this epoch
        self.signatures: dict[str, str] = {}  # of the last evaluation

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return logits (B, T, V) for inputs as the network takes them."""
        logits: Tensor = self.net(inputs)
        return logits

    def _step(self, batch: Batch, stage: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return the summed loss in nats, the number of targets, and the logits (B T, V)."""
        inputs, targets = batch
        logits = self.net(inputs).flatten(0, 1)  # (B T, V)
        targets = targets.flatten()  # (B T,)
        smoothing = self.label_smoothing if stage == "train" else 0.0
        nats = cross_entropy_sum(logits, targets, smoothing, IGNORE_INDEX)
        count = (targets != IGNORE_INDEX).sum()
        if stage != "train":
            correct = (logits.argmax(dim=-1) == targets).sum()
            self.metrics[stage].update(  # type: ignore[operator]
                loss=nats, correct=correct, count=count
            )
        return nats, count, logits.detach()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        nats, count, logits = self._step(batch, "train")
        if should_log(self):
            correct = (logits.argmax(dim=-1) == batch[1].flatten()).sum()
            loss, accuracy = mean_over_processes(self.trainer, count, nats, correct)
            self.log("train/loss", loss, prog_bar=True)
            self.log("train/accuracy", accuracy)
        return self.gradient.loss(self, nats, count, batch[1].numel())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.gradient.rescale(self)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        return self._evaluate(batch, "val", beam_size=1 if self.translate_val else 0)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        return self._evaluate(batch, "test", self.beam_size)

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> list[str]:
        return self._search(batch[0], self.beam_size, self.length_penalty)

    def _evaluate(self, batch: Batch, stage: str, beam_size: int) -> dict[str, Any]:
        """Update the metrics; return the texts `sources`, `references` and `translations`."""
        inputs, targets = batch
        if not len(targets):  # with more processes than sentences, some have none
            return {"sources": [], "references": [], "translations": []}
        self._step(batch, stage)
        if not beam_size or "references" not in inputs:
            return {}
        translations = self._search(inputs, beam_size, self.length_penalty)
        references = [bytes(row).rstrip(b"\0").decode() for row in inputs["references"].tolist()]
        self.translations += zip(translations, references, strict=True)
        sources = self._decode(0, inputs["input_ids"].tolist())
        return {"sources": sources, "references": references, "translations": translations}

    def _log_evaluation(self, stage: str) -> None:
        log_metrics(self, stage)
        pairs, self.translations = self._gather(self.translations), []
        if not pairs:
            return
        scores, self.signatures = sacrebleu_scores(*zip(*pairs, strict=True))
        self.log(f"{stage}/bleu", scores["bleu"], prog_bar=True)
        if stage == "test":
            self.log("test/chrf", scores["chrf"])
            exact = sum(translation == reference for translation, reference in pairs)
            self.log("test/exact", exact / len(pairs))

    def _gather(self, local: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the translations and references of all processes."""
        if self.trainer.world_size == 1:
            return local
        gathered: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(gathered, local)
        return [pair for pairs in gathered for pair in pairs]

    def configure_model(self) -> None:
        if self.device_mesh is not None:
            raise UserError(
                "A Translator cannot be sharded, since each process decodes sentences of different "
                "lengths: use --config configs/trainer/ddp.yaml."
            )

    def configure_optimizers(self) -> Any:
        return configure(self, self.optimizer, self.lr_scheduler)

    # Inference from raw sentences.

    def _tokenizer(self, language: int) -> Tokenizer:
        tokenizer = self.tokenizers[language]
        if tokenizer is None:
            raise UserError(
                "this Translator was trained without `source_tokenizer` and `target_tokenizer`: it "
                "takes tokens instead of text."
            )
        return tokenizer

    def _decode(self, language: int, rows: Sequence[Sequence[int]]) -> list[str]:
        tokenizer = self._tokenizer(language)
        special = {tokenizer.token_to_id(name) for name in (PAD, BOS, EOS)}
        ordinary = [[token for token in row if token not in special] for row in rows]
        texts: list[str] = tokenizer.decode_batch(ordinary, skip_special_tokens=False)
        return [text.strip() for text in texts]

    def _search(self, inputs: dict[str, Tensor], beam_size: int, penalty: float) -> list[str]:
        """Return the translations of a batch."""
        target = self._tokenizer(1)
        pad, bos, eos = (int(target.token_to_id(name) or 0) for name in (PAD, BOS, EOS))
        source = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        net: Any = self.net
        rows, _ = beam_search(net, source, bos, eos, beam_size, penalty, exclude=(pad, bos))
        lengths = source["attention_mask"].sum(dim=1).tolist()  # including [EOS]
        # An empty source gives an empty translation; the model never saw one in training.
        return self._decode(
            1, [tokens if n > 1 else [] for tokens, n in zip(rows, lengths, strict=True)]
        )

    @torch.inference_mode()
    def alignment(self, text: str) -> tuple[list[str], list[str], np.ndarray] | None:
        """Translate a sentence and return the cross-attention weights.

        Returns:
            Source tokens (S), target tokens (T) and non-negative weights (T, S) that sum to 1 for
            each target token; None if the network has no attention.
        """
        source, target = (self._tokenizer(language) for language in (0, 1))
        inputs = texts_to_inputs([text], source)
        translation = target.encode(str(self.translate(text))).ids  # from [BOS] to [EOS]
        inputs["decoder_input_ids"] = torch.tensor([translation[:-1]])
        net: Any = self.net
        with eval_mode(self.net):
            weights = net.attention_weights({k: v.to(self.device) for k, v in inputs.items()})
        if weights is None:
            return None
        source_names, target_names = (
            [tokenizer.decode([token], skip_special_tokens=False) for token in tokens]
            for tokenizer, tokens in (
                (source, inputs["input_ids"][0].tolist()),
                (target, translation[1:]),
            )
        )
        return source_names, target_names, weights[0].float().cpu().numpy()

    @torch.inference_mode()
    def translate(
        self,
        texts: str | Sequence[str],
        beam_size: int | None = None,
        length_penalty: float | None = None,
        batch_size: int = 64,
    ) -> str | list[str]:
        """Translate one sentence or several.

        Args:
            texts: Raw sentences, truncated to the network's context with a warning.
            beam_size: Number of hypotheses per sentence; 1 is greedy. The task's own by default.
            length_penalty: See modules/inference/beam_search.py; the task's own by default.
            batch_size: Number of sentences per batch.

        Returns:
            The translations in the order of the sentences; one string for a single sentence.
        """
        sentences = [texts] if isinstance(texts, str) else list(texts)
        beam_size = self.beam_size if beam_size is None else beam_size
        penalty = self.length_penalty if length_penalty is None else length_penalty
        check_search(beam_size, penalty)
        source = self._tokenizer(0)
        truncated = sum(bool(encoding.overflowing) for encoding in source.encode_batch(sentences))
        if truncated:
            rank_zero_warn(
                f"{truncated} of {len(sentences)} sentences are longer than the network's context "
                "and were truncated. Split them into shorter ones."
            )
        result = [""] * len(sentences)
        by_length = sorted(range(len(sentences)), key=lambda row: len(sentences[row]))
        with eval_mode(self.net):
            for start in range(0, len(sentences), batch_size):
                rows = by_length[start : start + batch_size]
                inputs = texts_to_inputs([sentences[row] for row in rows], source)
                inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
                translations = self._search(inputs, beam_size, penalty)
                for row, text in zip(rows, translations, strict=True):
                    result[row] = text
        return result[0] if isinstance(texts, str) else result


def sacrebleu_scores(
    translations: Sequence[str], references: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Return BLEU and chrF of sacreBLEU, 0 to 100, and their signatures.

    Post 2018, "A call for clarity in reporting BLEU scores": the inputs are detokenized texts,
    which sacreBLEU tokenizes itself.
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise UserError(
            "BLEU requires sacrebleu: pip install sacrebleu, or train with --model.translate_val "
            "false."
        ) from error
    scores, signatures = {}, {}
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        scores[name] = float(metric.corpus_score(list(translations), [list(references)]).score)
        signatures[name] = str(metric.get_signature())
    return scores, signatures
