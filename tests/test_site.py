"""The pages of the site are all there and lead to one another. To build it is `make docs`, which installs more."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from diffstack.families import FAMILIES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
CODE = re.compile(r"^ *(```+).*?^ *\1|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)")
# The command has a page of its own.
LEFT_OUT = {"diffstack.cli", "diffstack.cli_training"}


def tool(name: str) -> ModuleType:
    """A script of docs/tools."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def pages_of(nav: Any) -> list[str]:
    """The pages of a part of the menu."""
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages_of(part)]


def test_every_page_is_in_the_menu_once():
    menu = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(menu) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for path, anchor in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        there = page.parent / path if path else page
        assert there.exists(), path
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{path}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors of its headings."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def test_every_module_is_in_the_reference():
    pages = [page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md")]
    text = "".join([*pages, *tool("families").made().values()])
    shown = set(re.findall(r"^ *::: ([\w.]+)$", text, re.MULTILINE))
    public = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "diffstack").rglob("*.py")
        if not any(part.startswith("_") for part in path.relative_to(ROOT).parts)
    }
    assert public - LEFT_OUT <= shown


def test_a_new_family_gets_a_page(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(FAMILIES, "heap", FAMILIES["pointer"])
    text = tool("families").made()["heap.md"]
    assert re.findall(r"::: (.*)", text) == ["diffstack.jax_impl.heap", "diffstack.torch_impl.heap"]
    assert "pointer.md" not in tool("families").made()


def test_the_page_of_the_command_is_what_the_command_says():
    command = tool("command")
    assert command.PAGE.read_text(encoding="utf-8") == command.page(), "run python docs/tools/command.py"


def test_the_pictures_show_what_the_stacks_did():
    pictures = tool("pictures")
    index, buffer = (axes.images[0].get_array() for axes in pictures.buffer_and_index().axes)
    assert index.argmax(0).tolist() == [0, 1, 2, 3, 2, 1, 2]
    assert buffer[:, -1].tolist() == [1, 4, 3, 0]
    _, second = (axes.images[0].get_array() for axes in pictures.reversal().axes)
    assert second[:, -1].tolist() == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("page", "bad"),
    [
        ('<script src="https://cdn.org/a.js"></script>', ["https://cdn.org/a.js"]),
        ('<link rel="stylesheet" href="//fonts.org/a.css">', ["//fonts.org/a.css"]),
        ('<img src="HTTP://a.org/a.png">', ["HTTP://a.org/a.png"]),
        ('<div style="background: url(https://a.org/a.png)"></div>', ["https://a.org/a.png"]),
        ("<style>@import 'https://a.org/a.css';</style>", ["https://a.org/a.css"]),
        ('<pre class="mermaid"></pre>', ["//a drawing library, for Mermaid"]),
        ('<a href="https://a.org">a link</a><img src="images/a.png"><script src="../a.js"></script>', []),
    ],
)
def test_what_a_page_loads_from_elsewhere_is_found(page: str, bad: list[str], tmp_path: Path):
    check, file = tool("check"), tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    assert check.elsewhere(file) == bad
    assert check.main(tmp_path) == bool(bad)
