"""Solutions of day 46."""

from collections.abc import Callable
from typing import Any

Step = Callable[[Any], Any]


def chain(*steps: Step) -> Step:
    def run(value: Any) -> Any:
        for index, step in enumerate(steps, start=1):
            try:
                value = step(value)
            except Exception as error:
                error.add_note(f"step {index} of {len(steps)}")
                raise
        return value

    return run


def ask_until_valid(
    ask: Callable[[str], str], parse: Callable[[str], Any], prompt: str, attempts: int
) -> Any:
    current = prompt
    while True:
        answer = ask(current)
        attempts -= 1
        try:
            return parse(answer)
        except ValueError as error:
            if attempts == 0:
                raise
            current = f"{prompt}\n\n{answer}\n\nError: {error}"


def trim_history(messages: list[dict[str, str]], budget: int) -> list[dict[str, str]]:
    first = 1 if messages and messages[0]["role"] == "system" else 0
    sizes = [len(message["content"].split()) for message in messages]
    budget -= sum(sizes[:first])
    start = len(messages)
    while start > first and sizes[start - 1] <= budget:
        start -= 1
        budget -= sizes[start]
    while start < len(messages) and messages[start]["role"] != "user":
        start += 1
    return messages[:first] + messages[start:]


def run_agent(
    decide: Callable[[list[str]], tuple[str, str]],
    tools: dict[str, Callable[[str], str]],
    max_steps: int,
) -> str:
    observations: list[str] = []
    for _ in range(max_steps):
        name, argument = decide(list(observations))
        if name == "answer":
            return argument
        if name not in tools:
            observations.append(f"unknown tool {name}")
            continue
        try:
            observations.append(tools[name](argument))
        except Exception as error:
            observations.append(f"error: {error}")
    raise RuntimeError(f"no answer after {max_steps} steps")
