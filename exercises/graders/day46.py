"""Grader of day 46."""

from exercises import expect
from exercises.grading import Task


def order_of_steps(chain):
    run = chain(lambda x: x + 1, lambda x: x * 10, str)
    expect.equal(run(2), "30", {"the first step runs first.": 21})
    expect.equal(run(3), "40", name="the result of a second call")
    expect.equal(chain()(5), 5, name="the result of an empty chain")


def notes_of_errors(chain):
    def fails(x):
        raise KeyError("city")

    try:
        chain(str, fails, str)(1)
    except KeyError as error:
        notes = getattr(error, "__notes__", [])
        hint = "add a note with the number of the step, from 1."
        expect.true(
            any("step 2 of 3" in note for note in notes),
            f"the notes are {notes}, expected 'step 2 of 3'.",
            hint,
        )
    except Exception as error:
        raise expect.Wrong(
            f"{type(error).__name__} instead of KeyError.", "raise the same exception on."
        ) from error
    else:
        raise expect.Wrong("the exception of a step is lost.", "raise it on.")


class _Model:
    def __init__(self, *answers):
        self.answers, self.prompts = list(answers), []

    def __call__(self, prompt):
        self.prompts.append(prompt)
        return self.answers[len(self.prompts) - 1]


def _parse(text):
    if not text.isdigit():
        raise ValueError(f"{text} is no number")
    return int(text)


def repeated_questions(ask_until_valid):
    model = _Model("six", "seven", "8")
    expect.equal(ask_until_valid(model, _parse, "2 + 6?", 5), 8)
    right = [
        "2 + 6?",
        "2 + 6?\n\nsix\n\nError: six is no number",
        "2 + 6?\n\nseven\n\nError: seven is no number",
    ]
    mistakes = {
        "the model must see its answer and the error.": ["2 + 6?"] * 3,
        "each prompt has the last answer only: it would grow.": [
            *right[:2],
            right[1] + "\n\nseven\n\nError: seven is no number",
        ],
    }
    expect.equal(model.prompts, right, mistakes, "the list of prompts")


def limited_attempts(ask_until_valid):
    model = _Model("a", "b", "3")
    expect.raises(ValueError, lambda: ask_until_valid(model, _parse, "?", 2), "after 2 failures")
    expect.equal(len(model.prompts), 2, {"`attempts` counts all calls.": 3}, "the number of calls")
    expect.equal(
        ask_until_valid(_Model("a", "3"), _parse, "?", 2), 3, name="the result of the last attempt"
    )


def _message(role, words):
    return {"role": role, "content": " ".join(["w"] * words)}


def _shape(messages):
    return [f"{m['role'][0]}{len(m['content'].split())}" for m in messages]


def histories_within_the_budget(trim_history):
    messages = [
        _message("system", 3),
        _message("user", 5),
        _message("assistant", 4),
        _message("user", 2),
        _message("assistant", 6),
        _message("user", 1),
    ]
    for budget, right in (
        (12, ["s3", "u2", "a6", "u1"]),
        (21, ["s3", "u5", "a4", "u2", "a6", "u1"]),
        (18, ["s3", "u2", "a6", "u1"]),
        (4, ["s3", "u1"]),
    ):
        mistakes = {
            "the system message counts for the budget.": {
                12: ["s3", "u2", "a6", "u1"],
                18: ["s3", "u5", "a4", "u2", "a6", "u1"],
            }.get(budget),
            "an answer must not stand without its question.": {
                18: ["s3", "a4", "u2", "a6", "u1"]
            }.get(budget),
            "keep the newest messages, not the oldest.": {12: ["s3", "u5", "a4"]}.get(budget),
            "the system message always stays.": right[1:],
        }
        mistakes = {
            hint: wrong for hint, wrong in mistakes.items() if wrong is not None and wrong != right
        }
        expect.equal(
            _shape(trim_history(messages, budget)), right, mistakes, f"the list for {budget} words"
        )


def histories_without_gaps(trim_history):
    messages = [_message("user", 1), _message("assistant", 9), _message("user", 2)]
    expect.equal(
        _shape(trim_history(messages, 5)),
        ["u2"],
        {"stop at the first message that does not fit: no gaps.": ["u1", "u2"]},
    )
    expect.equal(_shape(trim_history(messages, 1)), [], name="the list if nothing fits")
    expect.equal(trim_history([], 5), [])


def answers_of_an_agent(run_agent):
    seen = []

    def decide(observations):
        seen.append(list(observations))
        plan = [("add", "2 3"), ("missing", ""), ("fail", "x"), ("answer", "done")]
        return plan[len(observations)]

    tools = {
        "add": lambda text: str(sum(map(int, text.split()))),
        "fail": lambda text: str(int(text)),
    }
    try:
        answer = run_agent(decide, tools, 10)
    except (KeyError, ValueError) as error:
        raise expect.Wrong(
            f"{type(error).__name__}: {error}.",
            "an unknown tool or an exception is an observation: the model may try something else.",
        ) from error
    except NotImplementedError:
        raise
    except RuntimeError as error:
        raise expect.Wrong(
            f"RuntimeError: {error}.", "pass all observations, not the last one only."
        ) from error
    expect.equal(answer, "done")
    right = ["5", "unknown tool missing", "error: invalid literal for int() with base 10: 'x'"]
    expect.equal(
        seen[-1],
        right,
        {
            "an unknown tool has an observation of its own.": [
                right[0],
                "error: 'missing'",
                right[2],
            ]
        },
        "the list of observations",
    )


def limited_steps(run_agent):
    calls = []

    def decide(observations):
        calls.append(1)
        if len(calls) > 50:
            raise expect.Wrong("decide was called more than 50 times.", "stop after max_steps.")
        return ("echo", "x")

    expect.raises(
        RuntimeError,
        lambda: run_agent(decide, {"echo": str}, 7),
        "without an answer after max_steps",
    )
    expect.equal(
        len(calls), 7, {"max_steps is the number of calls of decide.": 8}, "the number of steps"
    )


TASKS = [
    Task("chain", [order_of_steps, notes_of_errors]),
    Task("ask_until_valid", [repeated_questions, limited_attempts]),
    Task("trim_history", [histories_within_the_budget, histories_without_gaps]),
    Task("run_agent", [answers_of_an_agent, limited_steps]),
]
