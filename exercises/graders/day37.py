"""Grader of day 37."""

from exercises import expect
from exercises.grading import Task

STEPS = [
    "FROM python:3.12",
    "COPY requirements.txt .",
    "RUN pip install -r requirements.txt",
    "COPY . .",
    "CMD serve",
]
COPIED = {1: {"requirements.txt"}, 3: {"requirements.txt", "app.py", "model.py"}}


def steps_after_a_change(rebuilt_steps):
    mistakes = {
        "all steps after an executed one are executed, too.": [3],
        "steps before the change come from the cache.": [0, 1, 2, 3, 4],
    }
    expect.equal(rebuilt_steps(STEPS, COPIED, {"app.py"}), [3, 4], mistakes)
    mistakes = {
        "all steps after an executed one are executed, too.": [1, 3],
        "the first changed COPY counts, not the last.": [3, 4],
    }
    expect.equal(
        rebuilt_steps(STEPS, COPIED, {"requirements.txt", "app.py"}), [1, 2, 3, 4], mistakes
    )


def steps_without_a_change(rebuilt_steps):
    expect.equal(rebuilt_steps(STEPS, COPIED, set()), [])
    expect.equal(
        rebuilt_steps(STEPS, COPIED, {"README.md"}),
        [],
        {"a file that is not copied does not matter.": [3, 4]},
    )


def images(find_problems):
    end = "\nUSER app\n"
    for image, right, hint in (
        ("python", ["unpinned"], "an image without a tag is latest."),
        ("python:latest", ["unpinned"], "the tag latest changes."),
        ("python:3.12-slim", [], ""),
        ("host:5000/python", ["unpinned"], "the port of a registry is no tag."),
        ("host:5000/python:3.12", [], ""),
        ("python@sha256:00ff", [], "a digest pins an image."),
    ):
        wrong = {hint: [] if right else ["unpinned"]} if hint else {}
        expect.equal(
            find_problems(f"FROM {image}{end}"), right, wrong, f"the list for FROM {image}"
        )


def stages(find_problems):
    text = "# build\nFROM python:3.12 AS build\nRUN make\n\nFROM build AS final\nUSER app\n"
    expect.equal(
        find_problems(text), [], {"the name of an earlier stage is no image.": ["unpinned"]}
    )
    text = "FROM python:3.12 AS build\nUSER app\nFROM python:3.12-slim\nCMD serve\n"
    expect.equal(
        find_problems(text),
        ["root"],
        {"a new stage begins as root.": []},
        "the list for a USER in the first stage only",
    )


def users_and_secrets(find_problems):
    start = "FROM python:3.12\n"
    expect.equal(
        find_problems(start + "CMD serve"), ["root"], {"without USER a container runs as root.": []}
    )
    expect.equal(
        find_problems(start + "USER app\nUSER root"), ["root"], {"the last USER counts.": []}
    )
    expect.equal(
        find_problems(start + "USER app\nARG api_token\nENV HOME=/app"),
        ["secret"],
        {"ARG stays in the image's history, in any case.": []},
    )
    expect.equal(
        find_problems(start + "USER app\n# ENV PASSWORD=x\nRUN echo token"),
        [],
        {"comments and other instructions do not count.": ["secret"]},
    )


def states_of_a_container(health):
    results = [False, False, True, False, False, True, False, False, False]
    right = ["starting"] * 2 + ["healthy"] * 6 + ["unhealthy"]
    mistakes = {
        "a success restarts the count of failures.": ["starting"] * 2
        + ["healthy"] * 4
        + ["unhealthy"] * 3,
        "fewer than `retries` failures leave the state.": ["starting"] * 2
        + ["healthy"]
        + ["unhealthy"] * 2
        + ["healthy"]
        + ["unhealthy"] * 3,
        "`retries` failures are enough, not one more.": ["starting"] * 2 + ["healthy"] * 7,
    }
    expect.equal(health(results, 3, 2), right, mistakes)


def start_period(health):
    right = ["starting"] * 4 + ["unhealthy", "healthy"]
    results = [False] * 5 + [True]
    expect.equal(
        health(results, 2, 3),
        right,
        {"failures of the start period do not count.": ["starting", *["unhealthy"] * 4, "healthy"]},
    )
    early = health([True, False, False], 2, 10)
    hint = "after a success failures count, also in the start period."
    expect.equal(early, ["healthy", "healthy", "unhealthy"], {hint: ["healthy"] * 3})


TASKS = [
    Task("rebuilt_steps", [steps_after_a_change, steps_without_a_change]),
    Task("find_problems", [images, stages, users_and_secrets]),
    Task("health", [states_of_a_container, start_period]),
]
