"""Generation of several texts at the same time."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.errors import UserError
from serving.worker.requests import Sample

OWN_OPTIONS = ("stream", "chat_template")  # options of a request that are not those of `stream`


@dataclass(eq=False)
class Text:
    """A text that is being generated."""

    sample: Sample
    pieces: Iterator[list[str]]
    tokens: int = 0
    text: str = ""


class Generator:
    """Texts of all language models of a worker, one token each per step.

    Args:
        slots: Number of texts that are generated at the same time.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._waiting: deque[Sample] = deque()
        self._active: list[Text] = []

    def put(self, samples: list[Sample]) -> None:
        self._waiting.extend(samples)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._active)

    def step(self) -> None:
        """Let waiting texts into free slots and continue every text by a token."""
        while self._waiting and len(self._active) < self.slots:
            self._start(self._waiting.popleft())
        for text in list(self._active):
            if text.sample.request.closed or not self._advance(text):
                self._active.remove(text)

    def _start(self, sample: Sample) -> None:
        request = sample.request
        if request.closed:
            return
        options = {name: v for name, v in request.options.items() if name not in OWN_OPTIONS}
        task, prompt = request.model.task, sample.value
        if task.chat_template and request.options["chat_template"]:
            prompt, answering = task.chat_prompt([{"role": "user", "content": prompt}])
            options = answering | options
        self._active.append(Text(sample, task.stream([prompt], **options)))

    def _advance(self, text: Text) -> bool:
        """Continue a text by a token; return whether it is still being generated."""
        request = text.sample.request
        try:
            piece = next(text.pieces, None)
        except UserError as error:
            request.fail("invalid", str(error))
            return False
        except Exception as error:
            request.fail("internal", repr(error))
            return False
        if piece is not None:
            text.tokens += 1
            text.text += piece[0]
            if request.options.get("stream") and piece[0]:
                request.reply({"id": request.number, "index": text.sample.index, "text": piece[0]})
            return True
        reason = "length" if text.tokens == request.options["max_new_tokens"] else "stop"
        result: dict[str, Any] = {
            "text": text.text,
            "finish_reason": reason,
            "tokens": text.tokens,
        }
        request.finish(text.sample.index, result)
        return False
