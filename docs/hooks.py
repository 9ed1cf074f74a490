"""Hooks of mkdocs: pages of days in the navigation, generated pages, included source."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from scripts import draw_ladder, list_configs
from scripts.pages import ROOT, fill

DOCS = ROOT / "docs"
SECTIONS = {
    "Networks from first principles": range(1, 11),
    "Sequences": range(11, 21),
    "Transformers": range(21, 31),
    "Pretrained models and serving": range(31, 41),
    "Retrieval, safety, capstone": range(41, 51),
}
LINK = re.compile(r"(?<=\]\()((?:\.\./)+)([\w./-]+)(?=[)#])")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of days that exist into the navigation, ten days a section."""
    days = {section: pages_of(numbers) for section, numbers in SECTIONS.items()}
    entry: dict[str, Any] = next(one for one in config.nav or [] if "Days" in one)
    entry["Days"] += [{section: pages} for section, pages in days.items() if pages]
    return config


def pages_of(numbers: range) -> list[dict[str, str]]:
    """Return title and path of the pages of some days, and of the project of the last one."""
    names = [f"day-{number:02}" for number in numbers] + [f"project-{numbers[-1] // 10}"]
    files = [DOCS / f"days/{name}.md" for name in names]
    return [
        {file.read_text(encoding="utf-8").split("\n")[0].lstrip("# "): f"days/{file.name}"}
        for file in files
        if file.exists()
    ]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, the figure of the ladder, and a page for each linked file."""
    generated = {"configs.md": list_configs.page()}
    for scheme in draw_ladder.SCHEMES:
        generated[f"assets/ladder-{scheme}.svg"] = draw_ladder.draw(scheme)
    for page in files.documentation_pages():
        for dots, target in LINK.findall(page.content_string):
            path = resolve(page.src_uri, dots, target)
            if path is not None:
                generated[f"source/{path}.md"] = source_page(path)
    for uri, content in generated.items():
        files.append(File.generated(config, uri, content=content))
    return files


def resolve(page: str, dots: str, target: str) -> Path | None:
    """Return the file of the project outside docs/ that a link of a page refers to, if any."""
    path = (DOCS / page).parent / dots / target
    path = path.resolve()
    return path.relative_to(ROOT) if path.is_file() and not path.is_relative_to(DOCS) else None


def source_page(path: Path) -> str:
    """Return a page that shows a file of the project; the search leaves it out."""
    text = (ROOT / path).read_text(encoding="utf-8")
    language = path.suffix.lstrip(".") or "text"
    head = f"---\nsearch:\n  exclude: true\n---\n\n# {path.name}\n\n`{path}`\n\n"
    return f"{head}````{language}\n{text.rstrip()}\n````\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Include the source of a page's code blocks, and link source files to their pages."""

    def link(found: re.Match[str]) -> str:
        path = resolve(page.file.src_uri, found[1], found[2])
        up = "../" * len(PurePosixPath(page.file.src_uri).parent.parts)
        return found[0] if path is None else f"{up}source/{path}.md"

    if page.file.src_uri == "course.md":
        markdown = re.sub(r"^\| (\d+) \|", link_to_day, markdown, flags=re.MULTILINE)
    return LINK.sub(link, fill(markdown))


def link_to_day(cell: re.Match[str]) -> str:
    """Return the first cell of a row of the course's table with a link to the page of its day."""
    name = f"days/day-{int(cell[1]):02}.md"
    return f"| [{cell[1]}]({name}) |" if (DOCS / name).is_file() else cell[0]
