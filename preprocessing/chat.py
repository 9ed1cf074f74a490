"""Chat templates: Jinja programs that write the messages of a conversation as one text."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = Mapping[str, str]  # "role" (system, user or assistant) and "content"

# The format of SmolLM2 and Qwen, without a default system message.
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def render(
    template: str,
    messages: Sequence[Message],
    add_generation_prompt: bool = False,
    **special_tokens: str,
) -> str:
    """Return a conversation as text, as `apply_chat_template` of transformers does.

    Args:
        template: The template; it runs in a sandbox, since it comes with a model.
        messages: The conversation.
        add_generation_prompt: End with the beginning of the assistant's next message.
        **special_tokens: bos_token, eos_token and others that the template names.

    Raises:
        ValueError: If the template is not valid or rejects the messages.
    """
    try:
        return _compile(template).render(
            messages=messages, add_generation_prompt=add_generation_prompt, **special_tokens
        )
    except (jinja2.TemplateError, TypeError) as error:
        raise ValueError(f"the chat template cannot render the messages: {error}") from error


@lru_cache
def _compile(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    # Available in templates of transformers, too.
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    environment.filters["tojson"] = lambda value, **options: json.dumps(
        value, ensure_ascii=False, **options
    )
    return environment.from_string(template)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def read_chat_template(folder: Path) -> str | None:
    """Return the chat template of a Hugging Face folder with its special tokens, or None.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If a file is not valid.
    """
    settings: dict[str, Any] = {}
    if (folder / "tokenizer_config.json").is_file():
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = settings.get("chat_template")
    if (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if isinstance(template, list):  # several, by name
        template = next((t["template"] for t in template if t["name"] == "default"), None)
    if not isinstance(template, str):
        return None
    tokens = {name: settings.get(name) for name in ("bos_token", "eos_token")}
    texts = {name: t["content"] if isinstance(t, dict) else t for name, t in tokens.items() if t}
    return with_special_tokens(template, texts)


def with_special_tokens(template: str, special_tokens: Mapping[str, str]) -> str:
    """Return the template with the values of its special tokens, so that it needs nothing else."""
    values = "".join(f"{{% set {k} = {v!r} %}}" for k, v in special_tokens.items() if k in template)
    return values + template


def answer_spans(template: str, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
    """Return a conversation as text, and where the answers in it start and end.

    An answer is a message of the assistant with its end-of-turn token, such as `<|im_end|>`; line
    breaks after the token do not belong to it.

    Raises:
        ValueError: If the template does not render a conversation as the continuation of its part.
    """
    text = render(template, messages)
    spans = []
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(template, messages[:number], add_generation_prompt=True)
        until = render(template, messages[: number + 1])
        if not (until.startswith(before) and text.startswith(until.rstrip())):
            raise ValueError(
                "the chat template changes earlier messages when a later one is added, so the "
                "answers in its text cannot be found"
            )
        spans.append((len(before), len(until.rstrip())))
    return (text[: spans[-1][1]] if spans else text), spans


def end_of_turn(template: str) -> str | None:
    """Return the text that ends an answer, such as `<|im_end|>`, or None if there is none."""
    messages: list[Any] = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    text, ((start, end),) = answer_spans(template, messages)
    return text[start:end].strip().removeprefix("A") or None
