"""Which texts of a request the guard judges: what a model is given, and what it writes."""

from typing import Any

WRITING = ("generate", "translate", "answer")  # operations that return texts


def input_texts(inputs: list[Any], options: dict[str, Any]) -> list[str]:
    """Return the texts that a model is given: prompts, conversations, a history."""
    texts = [
        value if isinstance(value, str) else "\n".join(message["content"] for message in value)
        for value in inputs
    ]
    turns = [text for turn in options.get("history", ()) for text in turn]
    return [text for text in [*texts, *turns] if text.strip()]


def output_texts(results: list[Any]) -> list[str]:
    """Return the texts that a model has written; passages of documents are not among them."""
    texts = []
    for result in results:
        if isinstance(result, dict):
            result = (
                ""
                if result.get("abstained")
                else result["answer" if "answer" in result else "text"]
            )
        texts.append(result)
    return [text for text in texts if text.strip()]
