"""The site is built without warnings and without links to other servers' files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import draw_architecture, draw_ladder, list_configs
from scripts.check_readability import problems
from scripts.refresh_docs import DAYS, clean, digests, outdated, replaced, shortened
from tests.support import ROOT

EXTERNAL = re.compile(r"""<(?:script|img|link|iframe)[^>]*(?:src|href)=["']?https?:[^>]*>""")


@pytest.mark.slow
def test_site_is_built_and_loads_nothing_from_the_network(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", site]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert not [tag for tag in EXTERNAL.findall(text) if 'rel="canonical"' not in tag]
    styles = "\n".join(page.read_text(encoding="utf-8") for page in site.rglob("*.css"))
    assert not re.findall(r"url\([\"']?https?:", styles)
    assert "hidden_sizes" in (site / "api/nets.html").read_text(encoding="utf-8")
    assert (site / "source/scripts/train_torch.py.html").is_file()


@pytest.mark.slow
def test_outputs_are_not_older_than_their_code() -> None:
    stale = [page.stem for page in DAYS.glob("*.md") if "outdated" in outdated(page).values()]
    assert not stale, f"run python -m scripts.refresh_docs for {stale}"


def test_page_of_configs_has_every_config() -> None:
    page = list_configs.page()
    for config in (ROOT / "configs").glob("*/*.yaml"):
        assert f"### {config.parent.name}/{config.stem}\n" in page
    assert "    python train.py fit --config configs/mnist/mlp.yaml" in page
    assert "Expected: test/accuracy >= 0.981" in page


def test_rungs_of_the_ladder_are_networks_in_the_order_of_days() -> None:
    rungs = draw_ladder.rungs()
    assert rungs[0] == draw_ladder.Rung(1, "MLP", "test accuracy ≥ 0.981")
    assert {"CNN", "RNNLM (lstm)", "GPT", "BertMLM"} <= {rung.network for rung in rungs}
    assert [rung.day for rung in rungs] == sorted(rung.day for rung in rungs)


def test_figure_of_the_architecture_is_that_of_the_contract() -> None:
    assert draw_architecture.FIGURE.read_text(encoding="utf-8") == draw_architecture.draw(), (
        "run python -m scripts.draw_architecture"
    )
    rows = draw_architecture.layers()
    assert rows.index(["cli", "serving"]) < rows.index(["callbacks", "datamodules", "modules"])
    assert rows[-1] == ["engine", "preprocessing"]


def test_output_is_cleaned(tmp_path: Path) -> None:
    raw = f"10%\r50%\r\x1b[1mdone\x1b[0m \nrun folder: {tmp_path}/runs/a/001\n\n"
    assert clean(raw, tmp_path) == "done\nrun folder: runs/a/001\n"


def test_output_is_shortened_in_the_middle() -> None:
    text = "".join(f"{number}\n" for number in range(9))
    assert shortened(text, {"head": "1", "tail": "2"}) == "0\n...\n7\n8\n"
    assert shortened(text, {"tail": "8"}) == text
    assert shortened(text, {}) == text


def test_outputs_are_replaced_by_command() -> None:
    page = "A\n```console tail=1\n$ one\nold\n$ two\nold\n```\nB\n```console\n$ new\nold\n```\n"
    assert replaced(page, [("one", "1\n2\n3\n"), ("two", "4\n")]) == (
        "A\n```console tail=1\n$ one\n...\n3\n$ two\n4\n```\nB\n```console\n$ new\nold\n```\n"
    )


def test_digest_changes_with_config_and_code_but_not_with_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs/a").mkdir(parents=True)
    config = tmp_path / "configs/a/b.yaml"
    page = tmp_path / "day-01.md"
    page.write_text("```console\n$ python train.py fit --config configs/a/b.yaml\nx\n```\n")
    monkeypatch.setattr("scripts.refresh_docs.ROOT", tmp_path)

    def digest_of(text: str) -> dict[str, str]:
        config.write_text(text)
        return digests(page)

    assert digest_of("# one\nlr: 1\n") == digest_of("# two\nlr: 1\n") != digest_of("lr: 2\n")


def test_long_sentences_are_reported_and_code_is_not() -> None:
    page = f"# Day 1: A title\n\nA short sentence.\n\n```python\n{'x ' * 60}\n```\n"
    assert problems(page) == []
    (problem, mean) = sorted(problems(f"# Day 1\n\n{'word ' * 46}end.\n"))[::-1]
    assert "words a sentence" in problem + mean
    assert "47 words: word word" in problem + mean
