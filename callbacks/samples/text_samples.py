"""What the language model writes by now: the same prompt, again and again during training."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console
from rich.panel import Panel
from rich.text import Text


class TextSamples(L.Callback):
    """Writes `samples/step-<n>.txt` in the run folder, shows it in a panel, hands it to loggers.

    Training goes on as if nothing had been written: sampling has random numbers of its own.

    Args:
        prompt: What the model continues; its characters must be known to the tokenizer.
        max_new_tokens: Length of a sample.
        every_n_steps: Optimizer steps between two samples; after each validation by default.
        temperature: Above 0: low is bold, 1 is as trained.
        top_k: Draw from the k likeliest tokens only.
        seed: Of the samples: the same at every step, so that they differ by what was learnt.
        panel: Show each sample on the console.
    """

    def __init__(
        self,
        prompt: str = "\n",
        max_new_tokens: int = 200,
        every_n_steps: int | None = None,
        temperature: float = 0.8,
        top_k: int | None = None,
        seed: int = 0,
        panel: bool = True,
    ) -> None:
        for complaint, justified in {
            "prompt is empty: give at least one character": not prompt,
            f"max_new_tokens must be 1 or more, not {max_new_tokens}": max_new_tokens < 1,
            f"every_n_steps must be 1 or more, not {every_n_steps}": (
                every_n_steps is not None and every_n_steps < 1
            ),
            f"temperature must be above 0, not {temperature}": not temperature > 0,
            f"top_k must be 1 or more, not {top_k}": top_k is not None and top_k < 1,
        }.items():
            if justified:
                raise ValueError(f"TextSamples: {complaint}.")
        self.prompt = prompt
        self.every_n_steps = every_n_steps
        self.panel = panel
        self.options = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "seed": seed,
        }
        self._last_step = 0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find out before training whether the prompt can be read at all."""
        if not hasattr(pl_module, "encode") or not hasattr(pl_module, "generate"):
            raise MisconfigurationException(
                f"TextSamples needs a task that writes text, as modules.LanguageModel does; "
                f"{type(pl_module).__name__} does not: leave the callback out."
            )
        pl_module.encode(self.prompt)  # type: ignore[operator]

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if self.every_n_steps is None or step == self._last_step or step % self.every_n_steps:
            return  # accumulated batches share a step
        self._sample(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if self.every_n_steps is None and fitting:
            self._sample(trainer, pl_module)

    def _sample(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_step = trainer.global_step
        # Every process writes, since a sharded net can only be read by all at once; one keeps it.
        text = self.prompt + pl_module.generate(self.prompt, **self.options)  # type: ignore
        folder = trainer.log_dir  # a broadcast: every process must ask
        if not trainer.is_global_zero:
            return
        if folder is not None:
            path = Path(folder, "samples", f"step-{trainer.global_step}.txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n", encoding="utf-8")
        if self.panel:
            title = f"step {trainer.global_step}"
            Console().print(Panel(Text(text.strip("\n")), title=title, title_align="left"))
        _tell_loggers(trainer, text)


def _tell_loggers(trainer: L.Trainer, text: str) -> None:
    # Lightning's logger classes import wandb, tensorboard or mlflow only once they are created.
    step = trainer.global_step
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_text("samples", columns=["step", "text"], data=[[str(step), text]])
        elif isinstance(logger, TensorBoardLogger):
            as_it_is = "\n".join("    " + line for line in text.split("\n"))  # Markdown's code
            logger.experiment.add_text("samples", as_it_is, step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_text(logger.run_id, text, f"samples/step-{step}.txt")
