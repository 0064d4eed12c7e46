"""Tables for papers: a real TeX sets them, and what it printed is read back."""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diffsweep.report.latex import latex, to_latex
from diffsweep.report.table import Table, summarise

HOSTILE = [
    r"50% & {a_b} #2 ~ ^ \input{/etc/passwd} $x^2$",
    '[sic] *star*, `quoted\' "words" -- and --- dashes',
    "<b>|bold|</b>, naïve café, Łódź, Ångström, façade",
    "猫 and a 🙂, α ≤ 2 × σ, e\u0301",
    "%",
    "*",
    "[1]",
    "a photo of a very long thing indeed, " * 4,
]


@pytest.fixture
def printed(tmp_path: Path) -> Callable[[str], str]:
    """What pdfLaTeX prints of a document with this body, as text; the document must compile without an error."""
    if not shutil.which("pdflatex") or not shutil.which("pdftotext"):
        pytest.skip("pdflatex (with siunitx and booktabs) or pdftotext is not installed")

    def compiled(body: str) -> str:
        packages = "".join(rf"\usepackage{{{name}}}" for name in re.findall(r"\\usepackage{(\w+)}", body))
        text = rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}"
        (tmp_path / "made.tex").write_text(text.replace("% needs", "\n% needs"))
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "made.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        assert not re.findall(r"Overfull .*alignment.*", done.stdout)
        done = subprocess.run(["pdftotext", "-layout", "made.pdf", "-"], cwd=tmp_path, capture_output=True, check=True)
        return done.stdout.decode()

    return compiled


def table(names: tuple[str, ...] = ("psnr", "clip_score"), **named: list[str]) -> Table:
    """Three scales by two masks by four seeds, one cell failed; the numbers grow with the scale."""
    axes = {"guidance.scale": [1, 3, 7], "mask": ["box", "half"], "seed": range(4)}
    rows = pd.MultiIndex.from_product(axes.values(), names=axes).to_frame(index=False)
    rng = np.random.default_rng(0)
    for place, name in enumerate(names):
        rows[name] = rows["guidance.scale"] * (3.0 if place == 0 else -0.1) + rng.normal(0, 0.01, len(rows))
    frame = rows.assign(status="done", nfe=pd.array([10] * 24, dtype="Int64"), seconds=0.5)
    frame.loc[0, ["status", *names]] = ["failed", *[np.nan] * len(names)]
    frame["stage"] = pd.array([1] * 24, dtype="Int64")
    metrics = {name: {"metric": f"{name.upper()}, measured", "direction": "higher"} for name in names}
    frame.attrs = {"axes": list(axes), "metrics": metrics, "reasons": {name: [] for name in names}}
    return summarise(frame, **named)


def test_what_tex_prints_are_the_tables_numbers(printed: Callable[[str], str]) -> None:
    made = table()
    text = printed(to_latex(made, "made_1"))
    plain = text.replace("\u2212", "-")
    lines = [line.split() for line in plain.splitlines()]
    psnr, clip = made.columns
    for i, (scale, mask) in enumerate(made.lines):
        there = " ".join(" ".join(line[2:]) for line in lines if line[:2] == [str(scale), mask])
        numbers = [float(word) for word in re.findall(r"-?\d+\.\d+", there)]
        expected = []
        for column in (psnr, clip):
            expected += [column.numbers[i], column.stats[i].low, column.stats[i].high]
        assert numbers == pytest.approx(expected, abs=0.0051)
    assert "over 3 to 4 seeds" in " ".join(
        plain.split()
    ) and "Cells that failed or are not sampled, 1 (4 %) of 24, are in no number" in " ".join(plain.split())
    assert "clip score: CLIP SCORE, measured" in " ".join(plain.split()).replace("_", " ")


def test_the_best_is_bold_the_second_underlined_and_negatives_stay_aligned() -> None:
    text = to_latex(table(), "made_1")
    best, second = re.findall(r"\\bfseries (-?[\d.]+)", text), re.findall(r"{\\underline{(.*?)}}", text)
    psnr, clip = table().columns
    ranked = [column.estimate(line) for column in (psnr, clip) for line in range(6)]
    assert set(best) == {psnr.estimate(line) for line, rank in psnr.ranks.items() if rank == 1} | {
        clip.estimate(line) for line, rank in clip.ranks.items() if rank == 1
    }
    assert all(number.replace("$-$", "-") in ranked for number in second) and second
    assert "S[table-format=2.2]" in text and "S[table-format=-1.3]" in text
    assert r"\label{tab:made-1}" in text and r"psnr $\uparrow$" in text


def test_axes_as_columns_have_a_title_over_them(printed: Callable[[str], str]) -> None:
    body = to_latex(table(("psnr",), cols=["mask"]))
    assert r"\multicolumn{4}{c}{psnr $\uparrow$}" in body and r"\cmidrule(lr){2-5}" in body
    assert re.search(r"\bmask +psnr ↑\s+guidance.scale +box +half\b", printed(body))


def test_a_wide_table_is_set_in_parts_that_fit(printed: Callable[[str], str]) -> None:
    names = tuple(f"metric_{letter}" for letter in "abcdefgh")
    text = printed(to_latex(table(names)))
    assert "Table 2" in text and all(name.replace("_", " ") in text.replace("_", " ") for name in names)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_users_text_is_printed_as_it_is(printed: Callable[[str], str], text: str) -> None:
    made = table(("psnr",))
    rows = [made.rows[i].__class__(**{**vars(made.rows[i]), "setting": (text, i)}) for i in range(2)]
    body = to_latex(Table((text, "mask"), tuple(rows), {"psnr": "higher"}, (text,), definitions={}), text)
    found = unicodedata.normalize("NFKC", "".join(printed(body).split()))
    words = [word for word in re.findall(r"\S+", text) if re.fullmatch(r"[A-Za-z0-9%*\[\]#&|<>/]+", word)]
    assert all(word in found for word in words)
    if "猫" in text:
        assert "U+732B" in found and "U+1F642" in found
    if "input" in text:
        assert r"\input{/etc/passwd}" in found and "root:" not in found
    if "bold" in text:
        assert "|bold|" in found and "ngstr" in found
    if "star" in text:
        assert "*star*" in found and "--and---dashes" in found


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_of_a_users_text_commands_tex(text: str) -> None:
    allowed = r"\\[&%$#_{}]|\\text\w+({}|{U\+[0-9A-F]+})|\\char\d+{}|\\[`'^~=u.\"rHvc]{\w}|\\[lL]{}|\$\\\w+\$|{[][*]?}"
    assert not set(re.sub(allowed, "", latex(text))) & set(r"\&%$#_{}~^[]*")
