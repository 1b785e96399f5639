"""Write the list of rooms in docs/AUDIO_ARCHITECTURE.md from the modules' docstrings; `make rooms` runs it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "AUDIO_ARCHITECTURE.md"
BEGIN, END = "<!-- rooms: written by `make rooms` -->\n", "<!-- end of rooms -->\n"


def render_rooms(backend: Path) -> str:
    """The list as Markdown: a heading for each package, a line for each module with its docstring's first sentence."""
    return "\n".join(_lines(backend, backend))


def replace_rooms(text: str, rooms: str) -> str:
    """A document with its list of rooms replaced.

    Raises:
        ValueError: the document has no marked place for it.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The document lacks the markers {BEGIN.strip()} and {END.strip()}.")
    return f"{before}{begin}\n{rooms}\n{end}{after}"


def _lines(folder: Path, backend: Path) -> Iterator[str]:
    modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    name = folder.relative_to(backend.parent).as_posix()
    yield f"**`{name}/`** {_first_sentence(folder / '__init__.py')}\n"
    for path in modules:
        yield f"- `{path.name}`: {_first_sentence(path)}"
    if modules:
        yield ""
    for package in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from _lines(package, backend)


def _first_sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    sentence, stop, _ = paragraph.partition(". ")
    return sentence + (stop.strip() if stop else "")


if __name__ == "__main__":
    document = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(replace_rooms(document, render_rooms(ROOT / "backend")), encoding="utf-8")
