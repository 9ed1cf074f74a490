"""Day 46: chains: composition, retries, memory with a budget, and an agent with tools."""

from collections.abc import Callable
from typing import Any

Step = Callable[[Any], Any]


def chain(*steps: Step) -> Step:
    """Return a function that passes its argument through all steps, the first one first.

    An exception of a step gets a note (BaseException.add_note) with "step I of N", I from 1, and is
    raised on. Without steps the argument is returned.

    Source: LangChain's `RunnableSequence`.
    """
    raise NotImplementedError


def ask_until_valid(
    ask: Callable[[str], str], parse: Callable[[str], Any], prompt: str, attempts: int
) -> Any:
    """Return the parsed answer of a model, asking again with the error if parsing fails.

    The first prompt is `prompt`; after a ValueError of `parse` with message M the next one is the
    prompt, a blank line, the answer, a blank line, and "Error: M". After `attempts` failures the
    last ValueError is raised.

    Args:
        ask: Returns a model's answer to a prompt.
        parse: Returns the result, or raises ValueError.
        prompt: The task.
        attempts: Most calls of `ask`, at least 1.
    """
    raise NotImplementedError


def trim_history(messages: list[dict[str, str]], budget: int) -> list[dict[str, str]]:
    """Return the messages that fit into a budget of words.

    A system message at the beginning always stays. Of the others the newest are kept, without gaps;
    the first that is kept must be a user's, so that no answer stands without its question.

    Args:
        messages: Each with "role" (system, user, assistant) and "content".
        budget: Most words (content.split()) of all messages that are kept.
    """
    raise NotImplementedError


def run_agent(
    decide: Callable[[list[str]], tuple[str, str]],
    tools: dict[str, Callable[[str], str]],
    max_steps: int,
) -> str:
    """Return the answer of an agent.

    In each step `decide` returns a tool and its argument, given the observations so far, or
    ("answer", text), which ends the run. The result of the tool is the next observation. An unknown
    tool gives the observation "unknown tool NAME", an exception of a tool "error: MESSAGE".

    Args:
        decide: The policy, such as a language model.
        tools: Name to function.
        max_steps: Most calls of `decide`.

    Raises:
        RuntimeError: If there is no answer after max_steps.

    Source: Yao et al. 2023 (arXiv:2210.03629), ReAct.
    """
    raise NotImplementedError
