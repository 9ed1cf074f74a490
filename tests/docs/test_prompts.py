"""The commands and the code of docs/prompts.md run."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from prompts.template import load_template
from scripts import evaluate_prompts
from tests.support import ROOT

PAGE = (ROOT / "docs/prompts.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_template_of_the_page_is_valid(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "topic.yaml").write_text(text)
    examples = [{"text": "goal!", "label": "sport"}]
    (message,) = load_template(tmp_path / "topic.yaml").render(text="rain", examples=examples)
    assert message["content"] == "Message: goal!\nTopic: sport\n\nMessage: rain\nTopic:"
    content = yaml.safe_load(text)
    assert content["variables"] == ["text", "examples"]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python(number: int) -> None:
    exec(blocks("python")[number], {})


@pytest.mark.slow
def test_commands_on_two_texts(small_texts: Path) -> None:
    (commands,) = blocks("bash")
    for line in commands.strip().splitlines():
        words = shlex.split(line)
        assert words[:4] == ["python", "-m", "scripts.evaluate_prompts", "--config"]
        flags = [*words[5:], "--limit", "2", "--data.data_dir", str(small_texts)]
        results = evaluate_prompts.main(["--config", str(ROOT / words[4]), *flags])
        assert results["texts"] == 2
