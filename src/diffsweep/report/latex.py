"""A sweep's table for a paper: booktabs, siunitx columns, the best bold, the second underlined.

The text compiles with pdfLaTeX and LuaLaTeX, whatever a prompt holds: what pdfLaTeX cannot set is written as
its code point (U+732B).
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from itertools import groupby, pairwise

from diffsweep.report.caption import caption, defined, marked
from diffsweep.report.table import Column, Table
from diffsweep.report.tabular import costs, counts, fitting
from diffsweep.report.text import fixed

LINE, PAGE = 72, 40  # what a page of an article holds: characters a line, lines, about
LONGEST = 36  # of a setting's value; longer ones are set in a paragraph

_PLAIN = {character: f"\\{character}" for character in "&%$#_{}"}
_PLAIN |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"{}\char96{}"}
_PLAIN |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\char34{}", "'": "'"}
_PLAIN |= {"[": "{[}", "]": "{]}", "*": "{*}"}  # after \\ they would be its own
_PLAIN |= {"–": "--", "—": "---", "\u2018": "`", "\u2019": "'", "“": "``", "”": "''", "…": r"\ldots{}", "\u00a0": "~"}
_PLAIN |= {"ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}"}
_PLAIN |= {"ł": r"\l{}", "Ł": r"\L{}", "§": r"\S{}", "£": r"\pounds{}"}
_MATHS = {"±": "pm", "×": "times", "÷": "div", "·": "cdot", "≤": "leq", "≥": "geq", "≠": "neq", "≈": "approx"}
_MATHS |= {"∞": "infty", "↑": "uparrow", "↓": "downarrow", "→": "rightarrow", "←": "leftarrow"}
_GREEK = {"alpha", "beta", "gamma", "delta", "epsilon", "eta", "theta", "kappa", "mu", "nu", "xi", "pi", "rho", "sigma"}
_GREEK |= {"zeta", "iota", "tau", "upsilon", "phi", "chi", "psi", "omega"}
_ACCENTS = {0x300: "`", 0x301: "'", 0x302: "^", 0x303: "~", 0x304: "=", 0x306: "u", 0x307: ".", 0x308: '"'}
_ACCENTS |= {0x30A: "r", 0x30B: "H", 0x30C: "v", 0x327: "c"}


def latex(text: str) -> str:
    """A text that LaTeX sets as it is, in any font encoding."""
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    apart = ("{}" if c in "-'," and c == after else "" for c, after in pairwise(f"{text} "))  # no -- for a dash
    return "".join(_set(character) + gap for character, gap in zip(text, apart, strict=True))


def _set(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    if " " <= character <= "~":
        return character
    if character in _MATHS:
        return rf"$\{_MATHS[character]}$"
    if (greek := unicodedata.name(character, "").removeprefix("GREEK SMALL LETTER ").lower()) in _GREEK:
        return rf"$\{greek}$"
    base, marks = (parts := unicodedata.normalize("NFD", character))[0], parts[1:]
    if len(marks) == 1 and base.isascii() and ord(marks) in _ACCENTS:
        return rf"\{_ACCENTS[ord(marks)]}{{{base}}}"
    return rf"\texttt{{U+{ord(character):04X}}}"


@dataclass(frozen=True)
class Part:
    """A column as it is printed: its kind to LaTeX, title, the value across, a text a line, its width in characters."""

    kind: str
    title: str
    across: str
    texts: list[str]
    width: float
    spans: int = 1


def to_latex(table: Table, name: str = "results") -> str:
    """A `table` environment, every text of the user's escaped. What is too wide for a page comes in rows of tables."""
    label = "".join(c if (c.isascii() and c.isalnum()) or c in "-." else "-" for c in name)
    axes = [_axis(axis, [table.texts[axis][line[i]] for line in table.lines]) for i, axis in enumerate(table.down)]
    extra = [
        Part("r", latex(title), "", [latex(text) for text in texts], len(title))
        for title, texts in [*counts(table), *costs(table)[:1]]
        if len(set(texts)) > 1 or not table.directions  # the caption gives what is the same in every line
    ]
    parts = [*axes, *extra, *(_column(table, column) for column in table.columns)]
    text = " ".join(filter(None, [caption(table), marked(table), *(f"{text}." for text in defined(table))]))
    sizes, titles = [part.width + 2.4 for part in parts], [part.title for part in parts]
    tabulars = [_tabular(table, [parts[i] for i in chosen]) for chosen in fitting(sizes, titles, len(axes), LINE)]
    tall = sum(
        max((math.ceil(len(table.texts[a][v]) / LONGEST) for a, v in zip(table.down, line, strict=True)), default=1)
        for line in table.lines
    )
    each = max(1, PAGE // (tall + 4))
    floats = [tabulars[i : i + each] for i in range(0, len(tabulars), each)]
    found = [r"% needs \usepackage{booktabs} and \usepackage{siunitx}, version 3", *(f"% {x}" for x in table.absent)]
    for i, some in enumerate(floats):
        found += [
            r"\begin{table}",
            r"\centering",
            r"\sisetup{table-alignment=right, text-series-to-math=true, reset-text-series=false}",
            rf"\caption{{Table \ref{{tab:{label}}}, continued.}}" if i else rf"\caption{{{latex(text)}}}",
            r"\smallskip" if i else rf"\label{{tab:{label}}}\smallskip",
            "\n\\par\\medskip\n".join(some),
            r"\end{table}",
        ]
    return "\n".join([*found, ""])


def _axis(title: str, texts: list[str]) -> Part:
    longest = max(map(len, [*texts, title]))
    kind = "l" if longest <= LONGEST else r">{\raggedright\arraybackslash}p{.4\linewidth}"
    return Part(kind, latex(title), "", [latex(text) for text in texts], min(longest, LONGEST))


def _column(table: Table, column: Column) -> Part:
    """Numbers aligned at the point, and beside them, small, what belongs to them."""
    ranks, numbers = column.ranks, [number for number in column.numbers if math.isfinite(number)]
    texts, beside = [], [column.beside(line) for line in range(len(column.stats))]
    for line, number in enumerate(column.numbers):
        rank, estimate = ranks.get(line), column.estimate(line)
        bold = r"\bfseries " if rank == 1 else ""
        if not math.isfinite(number):
            texts.append(f"{{{bold}{latex(estimate)}}}")
        elif rank == 2:
            texts.append(rf"{{\underline{{{estimate.replace('-', '$-$')}}}}}")
        else:
            texts.append(bold + estimate)
    whole = max((len(fixed(abs(number), 0)) for number in numbers), default=1)
    sign = "-" if any(number < 0 for number in numbers) else ""
    kind = f"S[table-format={sign}{whole}.{column.places}]" if column.places else f"S[table-format={sign}{whole}]"
    width: float = len(sign) + whole + 1 + column.places
    across = ", ".join(table.texts[axis][v] for axis, v in zip(table.across, column.across, strict=True))
    if any(beside):
        texts = [f"{text} & {latex(more).replace('-', '$-$')}" for text, more in zip(texts, beside, strict=True)]
        kind, width = rf"{kind}@{{\,}}>{{\scriptsize}}l", width + 0.8 * max(map(len, beside))
    title_width = len(across) if table.across else len(column.title)
    return Part(kind, latex(column.title), latex(across), texts, max(width, title_width), 2 if any(beside) else 1)


def _tabular(table: Table, parts: list[Part]) -> str:
    axes, columns = parts[: len(table.down)], parts[len(table.down) :]
    titles, rules, at = [], [], len(axes) + 1
    for title, group in groupby(columns, key=lambda part: part.title):
        spans = sum(part.spans for part in group)
        titles.append(_over(title, spans))
        rules.append(rf"\cmidrule(lr){{{at}-{at + spans - 1}}}")
        at += spans
    names = [part.title for part in axes]
    head = [" & ".join([*names, *titles]) + r" \\"]
    if table.across:
        above = [*[""] * (len(axes) - 1), latex(", ".join(table.across))][: len(axes)]
        across = [_over(part.across, part.spans) for part in columns]
        head = [" & ".join([*above, *titles]) + r" \\", "".join(rules), " & ".join([*names, *across]) + r" \\"]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{''.join(part.kind for part in parts)}}}",
            r"\toprule",
            *head,
            r"\midrule",
            *(" & ".join(part.texts[i] for part in parts) + r" \\" for i in range(len(table.lines))),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _over(text: str, columns: int) -> str:
    return rf"\multicolumn{{{columns}}}{{{'c' if columns > 1 else 'r'}}}{{{text}}}"
