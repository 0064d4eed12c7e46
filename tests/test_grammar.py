"""Hydra's grammar as diffsweep reads it: texts as typed, sweeps counted; Hydra's own expansion is the oracle."""

from collections.abc import Iterator

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode

from diffsweep.core.problems import BadInput
from diffsweep.paths import shipped
from diffsweep.runner.texts import holds_text
from hydra_plugins.diffsweep_fused._grammar import count, one_sentence, texts_as_typed
from hydra_plugins.diffsweep_fused._loader import MOST_CELLS, Loader


@pytest.fixture
def parser(hydra_restore_singletons: None) -> Iterator[OverridesParser]:
    Plugins.instance()
    with texts_as_typed(holds_text):
        yield OverridesParser.create(config_loader=Loader(create_config_search_path(str(shipped("conf")))))


SWEEPS = [
    *("seed=3", "seed=1,2,3", "seed=choice(1,2)", "seed=choice(7)", "~seed", "seed=", "technique.prompts=[a,b]"),
    *("seed=range(5)", "seed=range(2,9)", "seed=range(2,9,3)", "seed=range(9,2,-3)", "seed=range(2,9,-1)"),
    *("seed=range(0,0)", "mask.softness=range(0,1,0.1)", "mask.softness=range(0,1,0.25)", "seed=range(1,0,-0.3)"),
    *("seed=range(0.5,3)", "seed=int(range(0.5,9.7,2))", "seed=float(range(3))", "seed=float(range(1,7,2))"),
    *("seed=shuffle(range(4))", "seed=shuffle(3,1,2)", "seed=shuffle(choice(a,b))", "seed=sort(3,1,2)"),
    *("seed=sort(range(9,2,-2))", "seed=sort(range(2,9,2),reverse=true)", "seed=sort(choice(2,1),reverse=true)"),
    *("seed=tag(a,b,range(3))", "seed=tag(x,choice(1,2))", "seed=str(choice(1,2,3))", "seed=int(1,2)"),
    *("technique=glob(*)", "technique=glob([in*,an*])", "technique=glob(*,exclude=in*)", "technique=glob(x*)"),
    *("seed=[1,2],[3]", "seed={a:1},{b:2},3", "prompt='a,b',c", 'prompt="a, b"', "scheduler=ddim,ddpm"),
]


@pytest.mark.parametrize("line", SWEEPS)
def test_a_count_is_the_length_of_hydras_expansion(parser: OverridesParser, line: str) -> None:
    (override,) = parser.parse_overrides([line])
    counted = count(override)  # before: some expansions use a range up
    (jobs,) = BasicSweeper.split_arguments([override], None)
    assert counted == len(jobs)


@pytest.mark.parametrize("line", ["seed=range(0,inf)", "seed=range(0,5,0)", "seed=range(nan,3)", "x=range(0,1,0.0)"])
def test_a_range_without_an_end_is_refused(parser: OverridesParser, line: str) -> None:
    (override,) = parser.parse_overrides([line])
    with pytest.raises(HydraException, match=r"has no end"):
        count(override)


@pytest.mark.parametrize(
    "words, cells",
    [
        (["seed=range(0,10000000)"], "10,000,000 cells (seed: 10,000,000)"),
        (["seed=range(0,1e18)"], f"{10**18:,} cells"),
        (["mask.softness=range(0,1,1e-12)"], "1,000,000,000,00"),
        (["seed=range(0,1000)", "guidance.scale=range(1,12)", "technique=glob(*)", "prompt=a"], "99,000 cells"),
        (["seed=range(0,1000)", "guidance.scale=range(1,13)", "technique=glob(*)"], "108,000 cells (seed: 1,000 x "),
        (["seed=range(0,1e9)", "seed=1,2"], "2 cells"),  # the last of two counts
    ],
)
@pytest.mark.parametrize("sweeper", ["fused", "basic"])
def test_above_100_000_cells_are_confirmed_before_they_are_expanded(
    hydra_restore_singletons: None, words: list[str], cells: str, sweeper: str
) -> None:
    Plugins.instance()
    loader = Loader(create_config_search_path(str(shipped("conf"))))
    words = [*words, f"hydra/sweeper={sweeper}"]
    if int(cells.split(" ")[0].replace(",", "")) <= MOST_CELLS:
        loader.load_configuration("config", words, RunMode.MULTIRUN)
        return
    with pytest.raises(BadInput, match=r"confirm=true") as refused:
        loader.load_configuration("config", words, RunMode.MULTIRUN)
    assert str(refused.value).startswith(cells)
    loader.load_configuration("config", [*words, "confirm=true"], RunMode.MULTIRUN)


TYPED = {
    "prompt=1_1_1": "1_1_1",
    "prompt=1e3": "1e3",
    "prompt= 1.50 ": "1.50",
    "prompt=TRUE": "TRUE",
    "prompt=nan": "nan",
    "prompt=null": None,
    "prompt='1e3'": "1e3",
    "prompt=0x10": "0x10",
    "sweep.name=2024_01_01": "2024_01_01",
    "sweep={name:1_0}": {"name": "1_0"},
    "output_dir=1e3": "1e3",
    "plugins=[1_0]": ["1_0"],
    "guidance.negative_prompt=no": "no",
    "guidance.negative_prompt=1e3": "1e3",
    "upscale.guidance.negative_prompt=1e3": "1e3",
    "technique.prompts=[1e3,a,true]": ["1e3", "a", "true"],
    "technique.prompts.0=1e3": "1e3",
    "input.path=1_1": "1_1",
    "model.path=1e3": "1e3",
    "metric.references=1_0": "1_0",
    "++vars.x=1_0": "1_0",
    # no texts
    "seed=1_000": 1000,
    "guidance.scale=1e1": 10.0,
    "technique.t=1_0": 10,
    "engine.rows=1_6": 16,
    "technique.views=[{name:roll,by:1_0}]": [{"name": "roll", "by": 10}],
    "hydra.verbose=true": True,
}


@pytest.mark.parametrize("line", TYPED)
def test_a_text_is_what_is_typed(parser: OverridesParser, line: str) -> None:
    value = parser.parse_overrides([line])[0].value()
    assert value == TYPED[line] and type(value) is type(TYPED[line])


@pytest.mark.parametrize(
    "line, values",
    [
        ("prompt=1_1,1e3,a dog", ["1_1", "1e3", "a dog"]),
        ("prompt=choice(1_1,1e3)", ["1_1", "1e3"]),
        ("prompt=shuffle(choice(1.50))", ["1.50"]),
        ("prompt=range(1,3)", ["1", "2"]),
        ("technique.prompts=[1e3,b],[2_0,c]", [["1e3", "b"], ["2_0", "c"]]),
    ],
)
def test_a_sweep_over_texts_is_over_what_is_typed(parser: OverridesParser, line: str, values: list[object]) -> None:
    (jobs,) = BasicSweeper.split_arguments(parser.parse_overrides([line]), None)
    assert [parser.parse_overrides(job)[0].value() for job in jobs] == values


@pytest.mark.parametrize("key", ["prompt", "technique.prompts.0", "guidance.negative_prompt", "+vars.animal"])
def test_a_file_of_prompts_is_refused_unless_it_is_quoted(parser: OverridesParser, key: str) -> None:
    with pytest.raises(BadInput, match=r"=@prompts\.txt: no file of prompts is read; .*\"a dog\",\"a cat\""):
        parser.parse_overrides([f"{key}=@prompts.txt"])
    assert parser.parse_overrides([f'{key}="@prompts.txt"'])[0].value() == "@prompts.txt"


@pytest.mark.parametrize(
    "line, found",
    [
        ("prompt=a dog, sitting", ["a dog", "sitting"]),
        ("prompt=a dog,sitting", []),
        ("prompt=a dog,a cat,b", []),
        ('prompt="a dog", "a cat"', []),
        ('prompt="a dog, sitting"', []),
        ("prompt=[a, b]", []),
    ],
)
def test_a_sentence_taken_for_a_sweep_is_found(parser: OverridesParser, line: str, found: list[str]) -> None:
    assert one_sentence(parser.parse_overrides([line])[0]) == found


def test_the_note_on_a_sentence(hydra_restore_singletons: None, capsys: pytest.CaptureFixture[str]) -> None:
    Plugins.instance()
    loader = Loader(create_config_search_path(str(shipped("conf"))))
    loader.load_configuration("config", ["prompt=a dog, sitting", "seed=1, 2"], RunMode.MULTIRUN)
    assert capsys.readouterr().err == (
        "note: prompt has 2 values, 'a dog', 'sitting'; one text with a comma needs quotes inside the shell's: "
        "'prompt=\"a dog, sitting\"'\n"
    )
