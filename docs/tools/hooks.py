"""What happens to a page between its Markdown and its HTML.

- **Formulae** are written as GitHub shows them too, $`s_t`$ in a line and blocks that are fenced as `math`. They become
  MathML here, which browsers draw by themselves, so that a page loads no script for them.
- **Links that leave this folder**, to a script of `examples/` for instance, lead to a page with the text of that file.
- **Pictures** lead to themselves, in their own size.
- **A family** without a page in the reference gets one, and a place in the menu.
- **`include`** in the head of a page names the file whose text it shows, such as CONTRIBUTING.md, and **`files`** lists
  the JSON files of its folder.
"""

import os
import posixpath
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

sys.path.append(str(Path(__file__).parent))
import families

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
CODE = re.compile(r"^( *)(`{3,}).*?^\1\2|`[^`\n]+`", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r'<p>(<img [^>]*src="([^"]+)"[^>]*>)</p>')
# Files that have a page of their own.
PAGES = {"CONTRIBUTING.md": "contribute.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    fence = {"name": "math", "class": "math", "format": _block}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    config.markdown_extensions.append(Formulae())
    reference = next(part["Reference"] for part in config.nav if "Reference" in part)
    menu = next(part["Families"] for part in reference if "Families" in part)
    menu += [f"reference/{name}" for name in families.made()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """A page for every family, and for every file of the repository that a page links to."""
    for name, text in families.made().items():
        files.append(File.generated(config, f"reference/{name}", content=text))
    for page in list(files.documentation_pages()):
        for path in _outside(page.content_string, page.src_uri):
            source = f"source/{path}.md"
            if path not in PAGES and files.get_file_from_path(source) is None:
                kind = Path(path).suffix.removeprefix(".") or "text"
                text = f"# {path}\n\n````{kind}\n{(ROOT / path).read_text()}````\n"
                files.append(File.generated(config, source, content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    here, source = page.file.src_uri, f"docs/{page.file.src_uri}"
    if "include" in page.meta:
        source = posixpath.normpath(f"{posixpath.dirname(source)}/{page.meta['include']}")
        markdown = (ROOT / source).read_text()
    if "files" in page.meta:
        names = sorted(path.name for path in (ROOT / source).parent.iterdir() if path.suffix == ".json")
        markdown += "".join(f"\n- [{name}]({name})" for name in names)

    def mended(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        path = f"{path}/README.md" if (ROOT / path).is_dir() else path
        there = path.removeprefix("docs/") if path.startswith("docs/") else PAGES.get(path, f"source/{path}.md")
        return f"]({os.path.relpath(there, posixpath.dirname(here) or '.')}{link[2] or ''})"

    # Nothing in code is a link.
    parts, end = [], 0
    for code in CODE.finditer(markdown):
        parts += [LINK.sub(mended, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(mended, markdown[end:])])


def on_page_content(html: str, **_: Any) -> str:
    """A picture of its own paragraph opens in its own size, which a phone needs."""
    return PICTURE.sub(r'<p><a class="picture" href="\2">\1</a></p>', html)


def _outside(markdown: str, uri: str) -> list[str]:
    """The files of the repository outside docs/ that a page links to."""
    include = re.match(r"---\ninclude: (\S+)", markdown)
    folder = posixpath.dirname(f"docs/{uri}")
    if include:
        path = posixpath.normpath(f"{folder}/{include[1]}")
        markdown, folder = (ROOT / path).read_text(), posixpath.dirname(path)
    paths = (posixpath.normpath(posixpath.join(folder, link[1])) for link in LINK.finditer(CODE.sub("", markdown)))
    return [path for path in paths if not path.startswith("docs/") and (ROOT / path).is_file()]


class Formulae(Extension):
    """Formulae in a line, $`like this`$."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802  # the name is Markdown's
        md.inlinePatterns.register(_Inline(r"\$`([^`]+)`\$", md), "formulae", 200)


class _Inline(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[Element, int, int]:  # noqa: N802  # the name is Markdown's
        return _element(m[1], "inline"), m.start(0), m.end(0)


def _element(formula: str, display: str) -> Element:
    text = re.sub(r' xmlns="[^"]*"', "", convert(formula, display=display))
    return fromstring(text)


def _block(source: str, *_: Any, **__: Any) -> str:
    """A block of formulae, one a line, each under the other."""
    lines = [convert(line, display="block") for line in source.splitlines() if line.strip()]
    return f'<div class="formulae">{"".join(lines)}</div>'
