"""That the site stands by itself: no page of it loads anything from elsewhere.

`python docs/tools/check.py SITE` says what does, and ends with status 1. A link that a reader may click is none of its
business. Material's own script would fetch a drawing library for a page with a diagram of Mermaid, so there are none.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

LOADS = {"src", "srcset", "poster", "data"}
ELSEWHERE = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?([^\"')\s]*)", re.IGNORECASE)


class Loads(HTMLParser):
    """The addresses that a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.style = tag == "style"
        for name, value in attrs:
            if name in LOADS or (name == "href" and tag not in ("a", "area")):
                self.found.append(value or "")
            elif name == "style":
                self.found += STYLE.findall(value or "")
            elif name == "class" and "mermaid" in (value or "").split():
                self.found.append("//a drawing library, for Mermaid")

    def handle_data(self, data: str) -> None:
        if self.style:
            self.found += STYLE.findall(data)


def elsewhere(path: Path) -> list[str]:
    """What a page or a style sheet loads from elsewhere."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".css":
        found = STYLE.findall(text)
    else:
        loads = Loads()
        loads.feed(text)
        found = loads.found
    return [each for each in found if ELSEWHERE.match(each)]


def main(site: Path) -> int:
    paths = sorted([*site.rglob("*.html"), *site.rglob("*.css"), *site.rglob("*.svg")])
    if not paths:
        print(f"{site} has no pages")
        return 1
    bad = {path: found for path in paths if (found := elsewhere(path))}
    for path, found in bad.items():
        print(f"{path} loads {', '.join(found)}")
    print(f"{len(paths)} pages and style sheets, {len(bad)} of which load something from elsewhere")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
