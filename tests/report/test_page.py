"""The page: everything of the sweep is on it, and nothing of a user's is taken for markup."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

from diffsweep.report.write import write_all

Made = Callable[..., Any]


class Reader(HTMLParser):
    """The tags and the text of a page, as a browser takes them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_the_sweep_and_names_only_files_beside_it(made: Made) -> None:
    store, sweep = made()
    report = write_all(store, sweep)
    page = Reader((report.folder / "report.html").read_text())
    shown = (
        "made",
        "5 of 6 cells done",
        sweep["command"],
        "23.00 ± 3.61",
        "ValueError: <broken>",
        "torchmetrics 1.9.0",
    )
    for text in shown:
        assert text in page.text
    assert page.tags.count("img") == 1
    assert page.sources
    assert all((report.folder / source).is_file() for source in page.sources)


def test_a_users_words_are_text(made: Made) -> None:
    evil = "</title><script>alert('x')</script><img src=x onerror=alert(1)> & \"q\""
    store, sweep = made(name="made", command=evil, notes=[evil])
    sweep["axes"]["prompt"] = [evil]
    sweep["metrics"] = ["psnr"]
    for cell in sweep["cells"]:
        cell["axes"]["prompt"] = evil
        cell["reason"] = cell["reason"] and evil
    report = write_all(store, sweep)
    page = Reader((report.folder / "report.html").read_text())
    assert "script" not in page.tags and page.tags.count("img") == 1
    assert page.text.count(evil) >= 3
