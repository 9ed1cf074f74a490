"""What quantized weights cost: the accuracy of a classifier on its validation split."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from modules import Classifier
from modules.inference.export import merged_adapter
from modules.inference.onnx import load_onnx
from modules.inference.tracing import open_task
from scripts.evaluation.data import check_fits, check_tokenizer, open_data
from scripts.evaluation.predictions import predict

LIMIT = 0.5  # percentage points


def accuracy_cost(
    checkpoint: Path,
    folder: Path,
    merge: bool = False,
    config: Path | None = None,
    data_dir: str | None = None,
) -> str:
    """Return one line with the accuracy before and after quantization.

    Args:
        checkpoint: The checkpoint, in a run folder unless there is a config.
        folder: Folder with the quantized model.
        merge: Merge the adapter of the checkpoint into its base.
        config: The config of other data than those of the run.
        data_dir: Folder of the data sets.

    Raises:
        UserError: If the data are not found or are not those of the classifier.
    """
    with merged_adapter(checkpoint) if merge else nullcontext(checkpoint) as path:
        task: Any = open_task(path)
    if type(task) is not Classifier:
        return f"accuracy of int8: not measured, since a {type(task).__name__} has none"
    name = str(checkpoint)
    data: Any = open_data(checkpoint, config, data_dir)
    check_fits(name, task, data)
    check_tokenizer(name, task, data)
    accuracies = []
    for model in (task, load_onnx(folder)):
        logits, labels, _ = predict(model, data, "val")  # type: ignore[arg-type]
        accuracies.append((logits.argmax(dim=1) == labels).float().mean().item())
    full, quantized = accuracies
    cost = 100 * (full - quantized)
    line = (
        f"val/accuracy: {full:.4f} in float32, {quantized:.4f} in int8, {abs(cost):.2f} points "
        f"{'lower' if cost > 0 else 'higher'} ({len(labels):,} samples)"
    )
    return line if cost <= LIMIT else f"{line}; this exceeds {LIMIT} points: prefer float32"
