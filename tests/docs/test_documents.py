"""The documents say what is so: generated pages are current, quoted programs exist, links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from services.gateway.requests.chat import BUILT, NO_EFFECT, NOT_BUILT
from services.graph import SERVICES

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def read(name: str) -> str:
    return (ROOT / name).read_text()


def test_generated_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_pages_quote_every_example_word_for_word() -> None:
    pages = read("README.md") + read("docs/api/chat-completions.md")
    quoted = re.findall(r"```python\n(.*?)```", pages, re.DOTALL)
    examples = [path.read_text() for path in sorted((ROOT / "examples").glob("*.py"))]
    assert sorted(quoted) == sorted(examples)


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, fragment = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{target} is not there"
        if fragment:
            headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            assert fragment in map(anchor, headings), f"{target} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    """Paths in backquotes that look like modules of ours."""
    for name in re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text()):
        assert (ROOT / name).exists() or (ROOT / "services" / name).exists(), name


def test_the_page_of_chat_completions_names_every_field_where_it_belongs() -> None:
    page = read("docs/api/chat-completions.md")
    used, accepted, refused = (
        page.split(heading)[1].split("\n## ")[0]
        for heading in ("## Fields that are used", "## Fields that are accepted", "## Fields that are refused")
    )
    fields = r"`([a-z_]+)`"
    first_cells = "\n".join(re.findall(r"^\| (`[^|]*) \|", used, re.MULTILINE))
    assert set(re.findall(fields, first_cells)) == set(BUILT)
    first_cells = "\n".join(re.findall(r"^\| (`[^|]*) \|", accepted, re.MULTILINE))
    assert set(re.findall(fields, first_cells)) == set(NO_EFFECT)
    assert set(re.findall(fields, refused.split("They answer")[0])) == set(NOT_BUILT)


def test_the_page_of_operations_has_every_service_with_its_needs() -> None:
    rows = dict(re.findall(r"^\| (\w+)[^|]*\| ?([\w, ]*?) ?\|", read("docs/operations.md"), re.MULTILINE))
    assert {name: rows[name] for name in SERVICES} == {name: ", ".join(row.needs) for name, row in SERVICES.items()}
