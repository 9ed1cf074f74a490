"""Greedy answers of a chat model to many conversations."""

from collections.abc import Sequence

from engine.errors import UserError
from modules.language_model import LanguageModel
from preprocessing.chat import Message


def answer(
    model: LanguageModel,
    conversations: Sequence[Sequence[Message]],
    max_new_tokens: int = 50,
    batch_size: int = 16,
) -> list[str]:
    """Return the greedy answers of a model, in the order of the conversations.

    Args:
        model: With a chat template.
        conversations: Each ends with a question.
        max_new_tokens: Maximum number of tokens of an answer.
        batch_size: Conversations of similar length that are answered at a time.

    Raises:
        UserError: If the model has no chat template, or a conversation exceeds its context.
    """
    prompts = [model.chat_prompt(conversation) for conversation in conversations]
    lengths = [len(model.encode(prompt, add_special_tokens=False)) for prompt, _ in prompts]
    context: int | None = model.net.context  # type: ignore[assignment]
    if context is not None and max(lengths, default=0) + max_new_tokens > context:
        raise UserError(
            f"a conversation has {max(lengths):,} tokens, and with an answer of {max_new_tokens} "
            f"more than the context of {context:,}: shorten the conversation (--few_shot) or "
            "reduce --max_new_tokens."
        )
    order = sorted(range(len(prompts)), key=lambda row: -lengths[row])
    answers = [""] * len(prompts)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        options = prompts[rows[0]][1]
        texts = model.generate([prompts[r][0] for r in rows], max_new_tokens, top_k=1, **options)
        for row, text in zip(rows, texts, strict=True):
            answers[row] = text.strip()
    return answers
