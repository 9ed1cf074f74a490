"""Requests within a worker: samples that share batches with those of other requests."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from engine.errors import UserError
from serving.worker.loading import source_tokenizer

PIXELS_PER_TOKEN = 64  # an 8x8 image counts as one token in the budget of a batch
# On a CPU onnxruntime computes larger batches more slowly per token than small ones, since their
# intermediate results leave the cache.
BATCH_TOKENS = {"torch": 2048, "onnxruntime": 256}
Reply = Callable[[dict[str, Any]], None]


@dataclass(eq=False)
class Model:
    """A model that is loaded; two versions of a model have the same name for a while."""

    version: str
    task: Any
    description: dict[str, Any]

    @property
    def batch_tokens(self) -> int:
        """Default number of tokens of a batch, including padding."""
        return BATCH_TOKENS[self.description.get("runtime", "torch")]


@dataclass(eq=False)
class Request:
    """A request: its samples are answered together.

    Args:
        number: Number that the server gave it.
        model: The model that it addresses.
        operation: Public method of the task.
        options: Keyword arguments of the method.
        size: Number of samples.
        reply: Sends a message to the server.
    """

    number: int
    model: Model
    operation: str
    options: dict[str, Any]
    size: int
    reply: Reply
    results: dict[int, Any] = field(default_factory=dict)
    tokens: int = 0  # of all inputs
    closed: bool = False  # answered, failed or abandoned by its client

    def finish(self, index: int, result: Any) -> None:
        """Store the result of a sample; the last one completes the request."""
        self.results[index] = result
        if len(self.results) == self.size and not self.closed:
            self.closed = True
            ordered = [self.results[number] for number in range(self.size)]
            self.reply({"id": self.number, "results": ordered, "tokens": self.tokens})

    def fail(self, kind: str, detail: str = "") -> None:
        """Answer the whole request by an error: `invalid`, `internal` or `not_finite`."""
        if not self.closed:
            self.closed = True
            self.reply({"id": self.number, "error": kind, "detail": detail})


@dataclass(eq=False)
class Sample:
    """One input of a request."""

    request: Request
    index: int
    value: Any  # a text, a pair of texts, a PIL image, or the state of a text to generate
    length: int  # tokens, for the budget of a batch


def prepare(request: Request, inputs: list[Any], files: list[bytes], pixels: int) -> list[Sample]:
    """Return the samples of a request.

    Args:
        request: The request.
        inputs: Texts, pairs of texts, or `{"image": number of the file}`.
        files: Image files.
        pixels: Maximum number of pixels of an image.

    Raises:
        UserError: If an image cannot be decoded or an input is of the wrong kind.
    """
    task = request.model.task
    takes_images = request.model.description["input"] == "image"
    samples = []
    for index, value in enumerate(inputs):
        is_image = isinstance(value, dict)
        if is_image != takes_images:
            raise UserError(
                f"inputs.{index}: this model takes {'images' if takes_images else 'texts'}."
            )
        if is_image:
            value = decode_image(files[value["image"]], pixels, index)
            length = math.ceil(task.preprocessing["image_size"] ** 2 / PIXELS_PER_TOKEN)
        else:
            value = value if isinstance(value, str) else tuple(value)
            tokenizer = source_tokenizer(task)
            length = 1 if tokenizer is None else len(_encode(tokenizer, value).ids)
        samples.append(Sample(request, index, value, max(1, length)))
    request.tokens = sum(sample.length for sample in samples)
    return samples


def _encode(tokenizer: Any, value: Any) -> Any:
    return tokenizer.encode(value) if isinstance(value, str) else tokenizer.encode(*value)


def decode_image(content: bytes, pixels: int, index: int) -> Image.Image:
    """Decode an image file; its size is checked before its pixels are read.

    Raises:
        UserError: If it is not an image or too large.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            if width * height > pixels:
                raise UserError(
                    f"inputs.{index}: the image has {width} x {height} pixels; at most {pixels:,} "
                    "are allowed."
                )
            image.load()
            return image
    except UserError:
        raise
    except Exception as error:  # decoders raise anything on a file of unknown origin
        raise UserError(f"inputs.{index}: this is not an image that can be decoded.") from error
