"""Answer requests in this process, as a worker does."""

from typing import Any

from engine.errors import UserError
from serving.worker.batching import SampleQueue, run_batch
from serving.worker.generating import Generator, prepare_texts
from serving.worker.requests import Model, Request, prepare


def answer(
    model: Model,
    operation: str,
    inputs: list[Any],
    options: dict[str, Any],
    files: list[bytes],
    settings: dict[str, int],
) -> list[Any]:
    """Return the results of a request, one per input.

    Args:
        model: The model.
        operation: Public method of its task.
        inputs: Texts, pairs of texts, or `{"image": number of the file}`.
        options: Keyword arguments of the method.
        files: Image files.
        settings: The limits `batch_tokens`, `batch_size`, `slots` and `max_pixels`.

    Raises:
        UserError: If an input or an option is refused.
        RuntimeError: If the model fails for an input.
    """
    messages: list[dict[str, Any]] = []
    request = Request(0, model, operation, options, len(inputs), messages.append)
    if operation == "generate":
        generator = Generator(settings["slots"])
        generator.put(prepare_texts(request, inputs))
        while len(generator):
            generator.step(lambda message: None)
    else:
        queue = SampleQueue(settings["batch_tokens"], settings["batch_size"])
        queue.put(prepare(request, inputs, files, settings["max_pixels"]))
        while samples := queue.take():
            run_batch(samples)
    last = messages[-1]
    if "results" in last:
        results: list[Any] = last["results"]
        return results
    if last["error"] == "invalid":
        raise UserError(last["detail"])
    raise RuntimeError(f"{model.version} cannot {operation}: {last['detail'] or last['error']}")
