"""What a file from elsewhere may hold: nothing that its reader stumbles over, or is led out of its folder by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffsweep.store import document
from diffsweep.store.schema import Damaged, Definition, Document, dump, load, to_json, wrong

RIGHT = {**document.empty("mine", "diffsweep seed=1", "today"), "axes": {"seed": [1]}}


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "sweep.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def with_axis(value: str) -> str:
    return json.dumps(RIGHT).replace('"axes": {"seed": [1]}', f'"axes": {{"seed": [{value}]}}')


@pytest.mark.parametrize(
    "value, reason",
    [
        *(("1e999", "1e999 is not JSON"), ("-1e999", "is not JSON"), ("NaN", "NaN is not JSON")),
        *(("9" * 301, "301 digits"), ('"\\udcff"', "not Unicode"), ("[" * 60 + "]" * 60, "more than 50 levels")),
        ('{"\\ud800": 1}', "not Unicode"),
    ],
    ids=["infinite", "below", "no number", "digits", "half a character", "depth", "half a key"],
)
def test_a_value_that_no_reader_could_use_is_damage(tmp_path: Path, value: str, reason: str) -> None:
    with pytest.raises(Damaged, match=reason):
        load(written(tmp_path, with_axis(value)), Document)


def test_bytes_that_are_halves_of_characters_are_damage(tmp_path: Path) -> None:
    """JSON's reader lets them pass."""
    data = with_axis('"x"').encode().replace(b'"x"', b'"\xed\xb3\xbf"')
    assert json.loads(data)["axes"]["seed"] == ["\udcff"]
    with pytest.raises(Damaged, match="not Unicode"):
        load(written(tmp_path, data), Document)


@pytest.mark.parametrize("value", ['"\\ud83d\\ude00"', '"é"', "9" * 300, "1e308", "[" * 48 + "]" * 48])
def test_what_is_odd_and_right_is_read(tmp_path: Path, value: str) -> None:
    assert load(written(tmp_path, with_axis(value)), Document)["axes"]["seed"] == [json.loads(value)]


@pytest.mark.parametrize("name", ["../x.png", "/tmp/x.png", "a/b.png", "..", ".", "a\\b.png", "a\0.png", ""])
def test_a_chosen_sheet_lies_in_the_sweeps_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(Damaged, match=r"chosen\.sheets: each key must be a text like"):
        load(written(tmp_path, json.dumps({**RIGHT, "chosen": {"sheets": {name: {}}}})), Document)


@pytest.mark.parametrize("name", ["mine.png", ".hidden.png", "a b, c.pdf", "...png"])
def test_of_any_other_name(tmp_path: Path, name: str) -> None:
    found = load(written(tmp_path, json.dumps({**RIGHT, "chosen": {"sheets": {name: {}}}})), Document)
    assert found["chosen"] == {"sheets": {name: {}}}


@pytest.mark.parametrize(
    "chosen",
    [
        *({"sheets": 7}, {"sheets": {"a.png": 7}}, {"sheets": {"a.png": {"rows": ["seed"]}}}, {"figures": 7}),
        *({"figures": [7]}, {"figures": [{"over": "seed"}]}, {"figures": [{"cell": 7}]}),
        *({"sheets": {"a.png": {"size": "7"}}}, {"sheets": {"a.png": {"size": 2**63}}}),
    ],
)
def test_what_is_chosen_has_its_types(tmp_path: Path, chosen: Any) -> None:
    with pytest.raises(Damaged, match=r"has another shape \(chosen\."):
        load(written(tmp_path, json.dumps({**RIGHT, "chosen": chosen})), Document)


def test_what_is_written_is_text_whatever_an_error_said() -> None:
    data = to_json({"reason": ["caf\udce9", {"\ud800": "😀"}]})
    assert json.loads(data) == {"reason": ["caf\\udce9", {"\\ud800": "😀"}]}
    assert b"caf\\\\udce9" in dump({**RIGHT, "notes": ["caf\udce9"]}, Document)


def test_a_definition_says_texts_and_two_bounds() -> None:
    right = {"direction": "lower", "metric": "mine", "bounds": [0, None], "more": {"of": ["all"]}}
    assert wrong(right, Definition) is None
    for key, value in {"metric": 7, "region": {}, "references": None, "bounds": [0], "direction": "up"}.items():
        assert (wrong({**right, key: value}, Definition) or "").startswith(f"{key} must"), key
