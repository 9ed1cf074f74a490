"""The task of translating: one sentence is read, another is written, word by word."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from tokenizers import Tokenizer
from torch import Tensor, nn

from modules.inference.beam_search import beam_search, check_search
from modules.optim.schedules import configure
from modules.training.hyperparameters import save_arguments
from modules.training.sum_metric import Float32Sum
from modules.training.token_loss import token_loss
from modules.training.token_mean import TokenMean, means_over_processes
from preprocessing.special_tokens import BOS, EOS, IGNORE_INDEX, PAD
from preprocessing.texts import texts_to_inputs

Batch = tuple[dict[str, Tensor], Tensor]


class Translator(L.LightningModule):
    """Train any net whose `forward(inputs)` returns logits (B, T, target_vocab_size).

    It is trained by teacher forcing: whatever it would have written itself, it reads the right
    words so far, and is asked for the next one. To translate, the net must have the parts of
    `modules.inference.beam_search.Translates`.

    Logs `train/loss` and `train/accuracy` of single batches every `trainer.log_every_n_steps`, and
    for val and test `loss` (nats a token), `perplexity` (its exponential), `accuracy` (the share of
    tokens that are guessed right, the ones before them being given), and `bleu`: sacreBLEU, 0 to
    100, of whole translations as text against the references as they were written. Validation
    translates greedily; test by beam search, and adds `chrf` and `exact`, the share of sentences
    that are word for word the reference. How sacreBLEU counted is in `signatures`.

    The gradient of a step is that of the mean over all its tokens, however they are spread over
    accumulated batches and processes, with padding (target -100) counting for nothing.

    Args:
        net: The architecture; its sizes come from the data.
        optimizer: Optimizer class and arguments; AdamW with lr 0.001 by default.
        lr_scheduler: Schedule class and arguments; a constant rate by default.
        label_smoothing: Probability in [0, 1) spread over all tokens in the training loss; val and
            test losses are always the plain cross-entropy.
        beam_size: Beginnings that are kept of each sentence when test or predict translate.
        length_penalty: α of the length penalty, 0 or more; see modules/inference/beam_search.py.
        translate_val: Whether validation translates, too, or only computes the loss.
        source_tokenizer: How a raw sentence becomes an input, as JSON. Linked from the data.
        target_tokenizer: How tokens become a sentence, as JSON. Linked from the data.
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
    ) -> None:
        super().__init__()
        check_search(beam_size, length_penalty)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), not {label_smoothing}")
        save_arguments(self, {k: v for k, v in locals().items() if k not in ("self", "__class__")})
        self.net = net
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.label_smoothing = label_smoothing
        self.beam_size = beam_size
        self.length_penalty = length_penalty
        self.translate_val = translate_val
        self.tokenizers = [
            None if told is None else Tokenizer.from_str(told)
            for told in (source_tokenizer, target_tokenizer)
        ]
        self.token_mean = TokenMean()
        self.nats = Float32Sum()
        self.tokens = Float32Sum()
        self.right = Float32Sum()
        self.written: list[tuple[str, str]] = []  # translation and reference, of this evaluation
        self.signatures: dict[str, str] = {}  # of the last evaluation

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Inputs as the net takes them to logits (B, T, V)."""
        logits: Tensor = self.net(inputs)
        return logits

    def _step(self, batch: Batch, smoothing: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of the nats over the batch's targets, how many there are, how many were guessed."""
        inputs, targets = batch
        logits = self.net(inputs).flatten(0, 1)  # (B T, V)
        flat = targets.flatten()  # (B T,)
        nats = token_loss(logits, flat, smoothing, IGNORE_INDEX)
        return nats, (flat != IGNORE_INDEX).sum(), logits.detach()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        nats, count, logits = self._step(batch, self.label_smoothing)
        interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.global_step + 1) % interval == 0:
            right = (logits.argmax(dim=-1) == batch[1].flatten()).sum()
            loss, accuracy = means_over_processes(self.trainer, count, nats, right)
            self.log("train/loss", loss, prog_bar=True)
            self.log("train/accuracy", accuracy)
        return self.token_mean.loss(self, nats, count, batch[1].numel())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.token_mean.rescale(self)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        return self._evaluate(batch, beam_size=1 if self.translate_val else 0)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        return self._evaluate(batch, self.beam_size)

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> list[str]:
        return self._texts(self._search(batch[0], self.beam_size, self.length_penalty))

    def _evaluate(self, batch: Batch, beam_size: int) -> dict[str, Any]:
        """Counts, and what was translated: the texts `sources`, `references`, `translations`."""
        inputs, targets = batch
        if not len(targets):  # more processes than rows: some have none
            return {"sources": [], "references": [], "translations": []}
        nats, count, logits = self._step(batch)
        self.nats.update(nats)
        self.tokens.update(count)
        self.right.update((logits.argmax(dim=-1) == targets.flatten()).sum())
        if not beam_size or "references" not in inputs:
            return {}
        translations = self._texts(self._search(inputs, beam_size, self.length_penalty))
        references = [bytes(row).rstrip(b"\0").decode() for row in inputs["references"].tolist()]
        self.written += zip(translations, references, strict=True)
        sources = self._decode(0, inputs["input_ids"].tolist())
        return {"sources": sources, "references": references, "translations": translations}

    def _log_evaluation(self, stage: str) -> None:
        tokens = self.tokens.compute()
        loss = self.nats.compute() / tokens
        self.log(f"{stage}/loss", loss, prog_bar=True)
        self.log(f"{stage}/perplexity", loss.exp())
        self.log(f"{stage}/accuracy", self.right.compute() / tokens)
        for metric in (self.nats, self.tokens, self.right):
            metric.reset()
        written, self.written = self._of_all_processes(self.written), []
        if not written:
            return
        scores, self.signatures = sacre_scores(*zip(*written, strict=True))
        self.log(f"{stage}/bleu", scores["bleu"], prog_bar=True)
        if stage == "test":
            self.log("test/chrf", scores["chrf"])
            exact = sum(ours == reference for ours, reference in written) / len(written)
            self.log("test/exact", exact)

    def _of_all_processes(self, mine: list[tuple[str, str]]) -> list[tuple[str, str]]:
        if self.trainer.world_size == 1:
            return mine
        shares: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(shares, mine)
        return [pair for share in shares for pair in share]

    def configure_model(self) -> None:
        if self._device_mesh is not None:
            raise MisconfigurationException(
                "A Translator can't be cut among processes, since each of them writes sentences of "
                "other lengths: take --config configs/trainer/ddp.yaml."
            )

    def configure_optimizers(self) -> Any:
        return configure(self, self.optimizer, self.lr_scheduler)

    # Between texts and tokens.

    def _tokenizer(self, language: int) -> Tokenizer:
        tokenizer = self.tokenizers[language]
        if tokenizer is None:
            raise MisconfigurationException(
                "this Translator was built without `source_tokenizer` and `target_tokenizer`: it "
                "takes tokens, not text."
            )
        return tokenizer

    def _decode(self, language: int, rows: Sequence[Sequence[int]]) -> list[str]:
        tokenizer = self._tokenizer(language)
        left_out = {tokenizer.token_to_id(name) for name in (PAD, BOS, EOS)}
        kept = [[token for token in row if token not in left_out] for row in rows]
        texts: list[str] = tokenizer.decode_batch(kept, skip_special_tokens=False)
        return [text.strip() for text in texts]

    def _texts(self, found: tuple[list[list[int]], Tensor]) -> list[str]:
        return self._decode(1, found[0])

    @torch.inference_mode()
    def alignment(self, text: str) -> tuple[list[str], list[str], np.ndarray] | None:
        """What the net looks at while it translates a sentence.

        Returns:
            The tokens read (S), those written (T), and the weights (T, S): 0 or more, 1 in sum for
            each token written. None where the net weighs nothing.
        """
        source, target = (self._tokenizer(language) for language in (0, 1))
        inputs = texts_to_inputs([text], source)
        written = target.encode(str(self.translate(text))).ids  # from [BOS] to [EOS]
        inputs["decoder_input_ids"] = torch.tensor([written[:-1]])
        net: Any = self.net
        training = self.training
        self.eval()
        weights = net.attention_weights({k: v.to(self.device) for k, v in inputs.items()})
        self.train(training)
        if weights is None:
            return None
        names = [
            [one.decode([token], skip_special_tokens=False) for token in tokens]
            for one, tokens in ((source, inputs["input_ids"][0].tolist()), (target, written[1:]))
        ]
        return names[0], names[1], weights[0].float().cpu().numpy()  # (T, S)

    def _search(
        self, inputs: dict[str, Tensor], beam_size: int, penalty: float
    ) -> tuple[list[list[int]], Tensor]:
        target = self._tokenizer(1)
        pad, begin, end = (int(target.token_to_id(name) or 0) for name in (PAD, BOS, EOS))
        read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        net: Any = self.net
        found, scores = beam_search(net, read, begin, end, beam_size, penalty, never=(pad, begin))
        words = read["attention_mask"].sum(dim=1).tolist()  # with [EOS]
        # Nothing stays nothing: to keep silent is what no net was ever trained to do.
        return [text if n > 1 else [] for text, n in zip(found, words, strict=True)], scores

    @torch.inference_mode()
    def translate(
        self,
        texts: str | Sequence[str],
        beam_size: int | None = None,
        length_penalty: float | None = None,
        batch_size: int = 64,
    ) -> str | list[str]:
        """Translate one sentence, or several.

        Args:
            texts: Raw sentences; what is longer than the net's context is cut, with a warning.
            beam_size: Beginnings that are kept of each; 1 is greedy. The task's own by default.
            length_penalty: See modules/inference/beam_search.py; the task's own by default.
            batch_size: Sentences at once.

        Returns:
            The translations, in the order of the sentences; a text for a single one.
        """
        sentences = [texts] if isinstance(texts, str) else list(texts)
        beam_size = self.beam_size if beam_size is None else beam_size
        penalty = self.length_penalty if length_penalty is None else length_penalty
        check_search(beam_size, penalty)
        source = self._tokenizer(0)
        cut = sum(bool(encoding.overflowing) for encoding in source.encode_batch(sentences))
        if cut:
            rank_zero_warn(
                f"{cut} of {len(sentences)} sentences are longer than the net's context: what is "
                "beyond is not translated. Cut them where sentences end."
            )
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        result = [""] * len(sentences)
        by_length = sorted(range(len(sentences)), key=lambda row: len(sentences[row]))
        try:
            for start in range(0, len(sentences), batch_size):
                rows = by_length[start : start + batch_size]
                inputs = texts_to_inputs([sentences[row] for row in rows], source)
                inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
                found = self._texts(self._search(inputs, beam_size, penalty))
                for row, text in zip(rows, found, strict=True):
                    result[row] = text
        finally:
            for module, training in modes:
                module.training = training
        return result[0] if isinstance(texts, str) else result


def sacre_scores(
    translations: Sequence[str], references: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """BLEU and chrF as sacreBLEU counts them, 0 to 100, and the signatures that say how.

    Post 2018, "A call for clarity in reporting BLEU scores": texts as people write them go in, and
    sacreBLEU itself cuts them into words.
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise MisconfigurationException(
            "BLEU needs sacrebleu: pip install sacrebleu, or --model.translate_val false to train "
            "without."
        ) from error
    scores, signatures = {}, {}
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        scores[name] = float(metric.corpus_score(list(translations), [list(references)]).score)
        signatures[name] = str(metric.get_signature())
    return scores, signatures
