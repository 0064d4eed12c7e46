"""`plan=true`: what it says of a sweep is what the sweep's run then counts, and it writes nothing."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from diffsweep.core.problems import BadInput
from diffsweep.model.analytic import Analytic, GaussianMixture
from diffsweep.model.deepfloyd import DeepFloyd
from diffsweep.model.network import Network
from diffsweep.model.text import Embeddings
from diffsweep.runner import calibrate, foresee, sampling
from diffsweep.runner.cost import Speed
from diffsweep.runner.forecast import Forecast
from diffsweep.runner.foresee import foresee as foreseen
from diffsweep.runner.listener import Listener
from diffsweep.runner.plan import Raw, plan
from diffsweep.runner.run import Outcome, run_sweep

Config = Callable[..., dict[str, Any]]
Swept = Callable[..., list[Raw]]


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded model is kept for a process: each test here begins as a process does."""
    monkeypatch.setattr(sampling, "_models", {})


@pytest.fixture
def swept(config: Config, tmp_path: Path) -> Swept:
    """Every combination of the axes (lists), on a model of 4 x 4 pixels."""

    def cells(**changes: Any) -> list[Raw]:
        held = {"scheduler__steps": 4, "prompt": "red", "output_dir": str(tmp_path / "outputs")}
        held |= {"model__size": 4} if "model" not in changes else {}
        axes = {key: values for key, values in changes.items() if isinstance(values, list)}
        held |= {key: value for key, value in changes.items() if key not in axes}
        settings = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        return [
            (config(**{**held, **one}), {key.replace("__", "."): value for key, value in one.items()})
            for one in settings
        ]

    return cells


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A call takes 2 seconds where no stored cell tells; the keys of the models that were timed."""
    keys: list[str] = []

    def timed(cell: Any, rows: int, device: str) -> Speed:
        keys.append(cell.config_key)
        return Speed(2.0, "call", "timed just now")

    monkeypatch.setattr(foresee, "timed", timed)
    return keys


class Told(Listener):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def files(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in root.rglob("*") if file.is_file()}


def last_run(outcome: Outcome) -> dict[str, Any]:
    return json.loads((outcome.folder / "sweep.json").read_text())["runs"][-1]


def counts(forecast: Forecast) -> tuple[int, int, int]:
    return forecast.missing + forecast.bases, forecast.rows, forecast.calls


# -- what is foreseen is what runs -------------------------------------------------------------------------------------
SWEEPS: list[dict[str, Any]] = [
    {"seed": [0, 1, 2], "guidance__scale": [1.0, 3.0]},
    {"seed": [*range(9)], "scheduler__steps": [3, 9], "guidance__scale": [0.0, 3.0]},
    {"technique": ["forward_noise", "one_step_denoise", "inpaint", "anagram", "hybrid"], "guidance__scale": 3.0},
    {"technique": "inpaint", "technique__jump": [1, 2], "technique__resamples": [1, 2, 3], "seed": [0, 1]},
    {"technique": "image_to_image", "technique__strength": [0.25, 0.5, 1.0], "scheduler": "heun", "seed": [0, 1, 2]},
    {"model": ["analytic", "analytic_flow"], "seed": [*range(20)]},
    {"seed": [*range(5)], "engine__rows": 3},
    {"technique": "forward_noise", "seed": [0, 1]},
]


@pytest.mark.parametrize("changes", SWEEPS, ids=lambda changes: "-".join(changes))
def test_rows_and_calls_are_those_that_the_run_counts(swept: Swept, untimed: list[str], changes: Any) -> None:
    raw = swept(**changes)
    before = foreseen(raw, "mine")
    run = last_run(run_sweep(raw, "mine"))
    assert counts(before) == (run["cells"], run["model_rows"], run["model_calls"])
    assert {one.shape for model in before.models for one in model.asked} == {run["rows"]}
    assert run["padded_rows"] == run["rows"] * before.calls - before.rows
    after = foreseen(raw, "mine")
    assert (after.missing, after.stored, after.models) == (0, before.missing, ())


def test_of_a_sweep_that_is_stored_in_part_the_rest_is_foreseen(swept: Swept, untimed: list[str]) -> None:
    run_sweep(swept(seed=[0, 1, 2], guidance__scale=3.0), "mine")
    raw = swept(seed=[*range(7)], guidance__scale=3.0)
    before = foreseen(raw, "mine")
    run = last_run(run_sweep(raw, "mine"))
    assert (before.stored, before.missing) == (3, 4)
    assert counts(before) == (run["cells"], run["model_rows"], run["model_calls"]) == (4, 4 * 2 * 4, 6)
    assert before.models[0].asked[0].shape == run["rows"] == 6  # as the sweep began
    assert foreseen(swept(seed=[0, 1], guidance__scale=3.0, engine__trajectory=2), "other").missing == 2


def test_the_stages_of_a_cascade_are_foreseen_with_the_pictures_that_they_enlarge(
    swept: Swept, untimed: list[str], enlarging: Path, tmp_path: Path
) -> None:
    own = {"upscale": "tiny", "upscale__path": str(enlarging), "upscale__scheduler__steps": 3, "model": "analytic"}
    raw = swept(**own, seed=[0, 1, 2], upscale__noise_level=[100, 200], scheduler__steps=5)
    run_sweep(swept(model="analytic", seed=[0], scheduler__steps=5), "bases")
    before = foreseen(raw, "mine")
    outcome = run_sweep(raw, "mine")
    run = last_run(outcome)
    assert (before.missing, before.bases) == (6, 2)
    assert counts(before)[:2] == (run["cells"], run["model_rows"]) and before.calls <= run["model_calls"]
    assert before.calls == 5 + 3  # 2 cells of 5 steps x 2 rows, 6 cells of 3 steps, in calls of 6 rows
    first, second = before.models[0].asked
    assert (first.key, first.cells, first.rows) == ("model", 2, 2 * 5 * 2)
    assert (second.key, second.cells, second.rows) == ("upscale", 6, 6 * 3)
    assert {"model": first.shape, "upscale": second.shape} == {"model": run["rows"], **run["later_rows"]}
    assert before.seconds == 2.0 * before.calls and before.chain == (5 + 3, 2.0 * (5 + 3))
    assert untimed == ["model", "upscale"]

    # a record of the second stage counts the first one's rows and seconds too
    stored = [json.loads(file.read_text()) for file in (tmp_path / "outputs/cells").glob("*/*/record.json")]
    for record in stored:
        base = "base" in record["facts"]
        planted(tmp_path, record["cell_id"], seconds=5 * 2 * 0.5 + (3 * 0.25 if base else 0))
    later = foreseen(swept(**own, seed=[8], upscale__noise_level=100, scheduler__steps=5, engine__rows=4), "later")
    assert [one.speed.seconds for one in later.models[0].asked if one.speed] == pytest.approx([0.5, 0.25])
    assert later.seconds == pytest.approx(5 * 2 * 0.5 + 3 * 0.25) and untimed == ["model", "upscale"]


# -- what is the same picture ------------------------------------------------------------------------------------------
def test_settings_that_come_to_one_picture_are_counted(swept: Swept, untimed: list[str]) -> None:
    """Blurring asks no model: scales do nothing. A unit scale and no guidance are one, whatever is negative."""
    blurred = foreseen(swept(technique="forward_noise", guidance__scale=[1.0, 2.0, 3.0], seed=[0, 1]))
    assert (blurred.cells, blurred.pictures) == (6, 2)
    assert blurred.aliases == {"guidance.scale=1.0, 2.0, 3.0": 2}
    both = foreseen(swept(guidance__scale=[1.0, 3.0], guidance__negative_prompt=["", "blue"]))
    assert (both.cells, both.pictures) == (4, 3)
    assert both.aliases == {"guidance.negative_prompt=, blue at guidance.scale=1.0": 1}
    strengths = swept(technique="image_to_image", technique__strength=[0.5, 0.55, 0.75], scheduler__steps=4)
    assert foreseen(strengths).aliases == {"technique.strength=0.5, 0.55": 1}
    mixed = [*swept(technique="forward_noise"), *swept(technique="forward_noise", scheduler__steps=9)]
    axes = ({"a": 1, "b": 2}, {"a": 2, "c": None})
    found = foreseen([(config, own) for (config, _), own in zip(mixed, axes, strict=True)])
    assert found.aliases == {"a=1 b=2 c=-, a=2 b=- c=null": 1}
    many = foreseen(swept(technique="forward_noise", guidance__scale=[float(n) for n in range(8)]))
    assert [*many.aliases] == ["guidance.scale=0.0, 1.0, 2.0, 3.0, 4.0 and 3 more"]


def test_it_is_told_where_settings_come_to_one_picture(swept: Swept, untimed: list[str]) -> None:
    """By those axes that tell it from where they do not, no others. Strengths s of n steps begin at n - int(n s)."""
    scales = {"guidance__scale": [1.0, 3.0, 1.0], "guidance__rescale": [0.0, 0.7]}
    told = "guidance.rescale=0.0, 0.7 at guidance.scale=1.0"
    assert foreseen(swept(**scales, seed=[0, 1], scheduler__steps=[3, 4])).aliases == {told: 4}
    starts = {"technique": "image_to_image", "technique__strength": [0.5, 0.6], "scheduler__steps": [4, 6, 10]}
    assert foreseen(swept(**starts, seed=[0, 1])).aliases == {"technique.strength=0.5, 0.6 at scheduler.steps=4, 6": 4}
    mixed = swept(technique=["forward_noise", "text_to_image"], guidance__scale=[2.0, 3.0], seed=[0, 1])
    assert foreseen(mixed).aliases == {"guidance.scale=2.0, 3.0 at technique=forward_noise": 2}
    several = swept(**scales, technique=["forward_noise", "text_to_image"])
    assert [*foreseen(several).aliases][-1] == "guidance.rescale=0.0, 0.7 at guidance.scale=1.0"


def test_a_cell_that_is_given_twice_is_no_other_setting(swept: Swept, untimed: list[str]) -> None:
    told = Told()
    found = foreseen(swept(seed=[0, 0, 1]), listener=told)
    assert (found.cells, found.pictures, dict(found.aliases)) == (3, 2, {})
    assert told.notes == ["note: seed=0: given 2 times, sampled once", *told.notes[1:]]


# -- nothing is written, and the same is refused -----------------------------------------------------------------------
def test_nothing_is_written(swept: Swept, tmp_path: Path, checkpoint: Path) -> None:
    own = {"model": "tiny", "model__path": str(checkpoint), "scheduler__steps": 2}
    assert foreseen(swept(**own, seed=[0, 1]), "mine").seconds
    assert files(tmp_path) == {} and not (tmp_path / "outputs").exists()
    run_sweep(swept(seed=[0, 1]), "mine")
    before = files(tmp_path)
    assert foreseen(swept(seed=[0, 1]), "mine").missing == 0
    assert foreseen(swept(seed=[0, 1, 2]), "mine").missing == 1
    assert foreseen(swept(**own, seed=[0, 1]), "other").missing == 2
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"guidance__scale": [-1.0, 2.0]}, None),
        ({"seed": 9, "engine__rows": 5000}, None),
        ({"seed": 9, "engine__rows": 10**9}, None),
        ({"seed": [5]}, "mine"),
        ({"technique": "inpaint", "metric__names": ("psn",)}, None),
        ({"seed": 9, "device": "cuda:99"}, None),
        ({"plan": "yes"}, None),
    ],
    ids=str,
)
def test_what_a_run_refuses_is_refused_in_the_same_words(
    swept: Swept, untimed: list[str], changes: Mapping[str, Any], name: str | None
) -> None:
    run_sweep(swept(seed=[0, 1]), "mine")
    messages = []
    for act in (foreseen, run_sweep):
        with pytest.raises(BadInput) as refused:
            act(swept(**changes), name)
        messages.append(refused.value.messages)
    assert messages[0] == messages[1]


def test_the_key_changes_no_cell_and_no_name(swept: Swept) -> None:
    with_it, without = plan(swept(seed=[0, 1], plan=True)), plan(swept(seed=[0, 1]))
    assert [cell.id for cell in with_it.cells] == [cell.id for cell in without.cells]
    assert with_it.name == without.name
    one, other = swept(seed=[0])[0], swept(seed=[1], plan=True)[0]
    with pytest.raises(BadInput, match=r"^plan: cannot differ within a sweep$"):
        plan([one, other])


COMPLETE = """
import sys
from diffsweep import app
sys.argv = ["diffsweep", "-m", "model=analytic", "model.size=4", "scheduler.steps=2", "seed=0,1", "metric=none",
            "sweep.name=mine", *sys.argv[1:]]
code = app.main()
print("torch" in sys.modules, code)
"""


@pytest.mark.slow
def test_a_complete_sweep_needs_no_torch(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        done = subprocess.run([sys.executable, "-c", COMPLETE, *words], cwd=tmp_path, capture_output=True, text=True)
        return done.stdout

    assert run("device=cpu").endswith("True 0\n")
    assert run("device=cpu", "plan=true") == (
        "plan      mine, 2 cells: 2 stored, 0 to sample\nleft      nothing to sample\nFalse 0\n"
    )


# -- time --------------------------------------------------------------------------------------------------------------
def planted(tmp_path: Path, cell_id: str, /, **changes: Any) -> None:
    """Change a stored cell's record: `provenance__rows=3` is a nested key."""
    file = tmp_path / f"outputs/cells/{cell_id[:2]}/{cell_id}/record.json"
    record = json.loads(file.read_text())
    for key, value in changes.items():
        *path, last = key.split("__")
        node = record
        for word in path:
            node = node[word]
        node[last] = value
    file.write_text(json.dumps(record))


def test_stored_cells_tell_how_long_a_row_takes(swept: Swept, untimed: list[str], tmp_path: Path) -> None:
    """Two cells of 4 rows in 1 second and of 8 rows in 2.6: 0.3 seconds a row. 6 seeds x 4 steps x 2 rows."""
    outcome = run_sweep(swept(seed=[0], guidance__scale=[1.0, 3.0]), "mine")
    for cell_id, seconds in zip(outcome.ids, (1.0, 2.6), strict=True):
        planted(tmp_path, cell_id, seconds=seconds)
    found = foreseen(swept(seed=[*range(1, 4)], guidance__scale=3.0), "other")
    ((asked,),) = (model.asked for model in found.models)
    assert asked.shape == 6 and asked.speed is not None
    assert (asked.speed.per, asked.speed.source) == ("row", "as 2 stored cells took")
    assert asked.speed.seconds == pytest.approx(0.3)
    assert found.seconds == pytest.approx(3 * 4 * 2 * 0.3) and untimed == []
    # a call has 6 rows; the longest cell makes 4 calls, one after another
    assert found.chain == (4, pytest.approx(4 * 6 * 0.3))
    assert found.on(1) == found.seconds and found.on(2) == pytest.approx(7.2)
    larger = foreseen(swept(seed=[*range(1, 41)], guidance__scale=3.0, engine__rows=4), "other")
    assert larger.seconds == pytest.approx(40 * 4 * 2 * 0.3)
    assert [larger.on(n) for n in (1, 2, 8)] == pytest.approx([96, 48, 12])
    assert larger.on(100) == pytest.approx(4 * 4 * 0.3)


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"provenance__device": "cuda:0"},
        {"provenance__threads": 99},
        {"provenance__rows": 1},  # and 6 are to come
        {"provenance__rows": 13},
        {"config__model__fingerprint": "0" * 64},
        {"config__model__dtype": "bfloat16"},
        {"config__model__height": 512},
        {"config__technique__space": "decoded"},
        {"config__upscale": {"fingerprint": "0" * 64}},
        {"nfe": 0},
        {"schema": 99},
        {"cell_id": "another"},
    ],
    ids=str,
)
def test_cells_of_another_kind_do_not(
    swept: Swept, untimed: list[str], tmp_path: Path, elsewhere: Mapping[str, Any]
) -> None:
    (cell_id,) = run_sweep(swept(seed=[0], guidance__scale=3.0), "mine").ids
    raw = swept(seed=[*range(1, 4)], guidance__scale=3.0)
    planted(tmp_path, cell_id, provenance__rows=3, provenance__device="cpu")
    assert foreseen(raw, "other").models[0].asked[0].speed != Speed(2.0, "call", "timed just now")
    planted(tmp_path, cell_id, **elsewhere)
    found = foreseen(raw, "other")
    assert found.models[0].asked[0].speed == Speed(2.0, "call", "timed just now")
    assert found.seconds == 2.0 * found.calls == 2.0 * 4 and untimed == ["model"]


def test_a_few_calls_are_timed_in_the_shape_of_the_sweep(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a model whose first call takes 9 seconds and each other one 3."""
    shapes: list[int] = []

    def begun(device: torch.device) -> Callable[[], Callable[[], float]]:
        return lambda: lambda: 9.0 if len(shapes) == 1 else 3.0

    predict = GaussianMixture.predict

    def counted(self: GaussianMixture, x: torch.Tensor, *rest: Any) -> Any:
        shapes.append(len(x))
        return predict(self, x, *rest)

    monkeypatch.setattr(GaussianMixture, "predict", counted)
    monkeypatch.setattr("diffsweep.engine.clock.begun", begun)
    told = Told()
    found = foreseen(swept(seed=[*range(9)], guidance__scale=3.0, scheduler__steps=50), listener=told)
    assert found.models[0].asked[0].speed == Speed(3.0, "call", "timed just now")
    assert shapes == [16] * 5  # 9 + 3 + 3 + 3 + 3 reach 20 seconds
    assert "model: no stored cell tells how long a call takes; timing a few" in told.notes
    shapes.clear()
    monkeypatch.setattr(calibrate, "PATIENCE", 1e9)
    foreseen(swept(seed=[*range(9)], guidance__scale=3.0, scheduler__steps=50))
    assert shapes == [16] * calibrate.CALLS
    shapes.clear()
    short = foreseen(swept(technique="one_step_denoise", seed=[0, 1], guidance__scale=1.0))
    assert shapes == [2] * calibrate.CALLS and short.seconds == 3.0


@pytest.mark.parametrize("kind", ["enlarging", "latent"])
def test_calls_of_every_stage_are_timed(swept: Swept, request: pytest.FixtureRequest, kind: str) -> None:
    upscale = {"upscale": {"enlarging": "tiny", "latent": "x4"}[kind], "upscale__scheduler__steps": 2}
    upscale |= {"upscale__path": str(request.getfixturevalue(kind)), "upscale__variant": None}
    own = {**upscale, "model": "analytic", "scheduler__steps": 2}
    (together,) = foreseen(swept(**own, upscale__guidance__scale=1.0)).models
    assert [one.key for one in together.asked] == ["model", "upscale"]
    for one in together.asked:
        assert one.speed is not None and one.speed.seconds > 0 and one.speed.source == "timed just now"


def test_a_slow_model_is_asked_once_and_a_compiled_one_twice() -> None:
    assert calibrate._enough([100.0], compiled=False)
    assert not calibrate._enough([100.0], compiled=True) and calibrate._enough([100.0, 1.0], compiled=True)
    assert not calibrate._enough([], compiled=False) and not calibrate._enough([1.0], compiled=False)


def test_no_text_encoder_is_loaded_to_time_calls(
    swept: Swept, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Embeddings, "encode", lambda *arguments: pytest.fail("encoded"))
    found = foreseen(swept(model="tiny", model__path=str(checkpoint), scheduler__steps=2, guidance__scale=3.0))
    assert found.seconds and found.seconds > 0


def test_zeros_stand_for_embeddings_of_the_same_shape(checkpoint: Path) -> None:
    model = DeepFloyd(str(checkpoint)).load("cpu")
    model.assume(["a dog"])
    model.encode(["a cat"])
    zeros, real = (Network.embedding(model, prompt) for prompt in ("a dog", "a cat"))
    assert zeros.keys() == real.keys()
    for zero, one in zip(zeros.values(), real.values(), strict=True):
        assert (zero.shape, zero.dtype) == (one.shape, one.dtype) and not zero.any() and one.any()


def test_a_model_whose_weights_are_not_there_is_not_asked(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Analytic, "missing", lambda self: {"unet": 3 * 10**9, "t5": 10**9}, raising=False)
    monkeypatch.setattr(Analytic, "load", lambda *arguments: pytest.fail("loaded"))
    found = foreseen(swept(seed=[0, 1]))
    assert found.seconds is None and found.on(4) is None
    assert "  time    not known: 4.0 GB of its weights are to be downloaded first" in str(found).splitlines()
    assert "in all    not known how long it samples on cpu" in str(found).splitlines()


def test_a_call_that_fails_is_told_and_the_rest_is_foreseen(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        raise ArithmeticError("no")

    monkeypatch.setattr(GaussianMixture, "predict", broken)
    found = foreseen(swept(seed=[0, 1]))
    assert (found.rows, found.seconds) == (2 * 4 * 2, None)
    assert "  time    not known: a call failed: ArithmeticError: no" in str(found).splitlines()


def test_threads_are_those_of_the_sweep_while_calls_are_timed(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    monkeypatch.setattr(
        foresee, "timed", lambda *arguments: (found.append(torch.get_num_threads()), Speed(1, "call", ""))[1]
    )
    before = torch.get_num_threads()
    foreseen(swept(seed=[0], engine__threads=3))
    assert (found, torch.get_num_threads()) == ([3], before)


# -- memory ------------------------------------------------------------------------------------------------------------
def test_a_worker_takes_weights_and_its_largest_call(swept: Swept, untimed: list[str], checkpoint: Path) -> None:
    raw = swept(model="tiny", model__path=str(checkpoint), seed=[0, 1, 2], guidance__scale=3.0)
    ((asked,),) = (model.asked for model in foreseen(raw).models)
    needs = plan(raw).cells[0].model.needs("cpu")
    memory = foreseen(raw).models[0].memory
    assert asked.needs == needs and memory is not None
    assert (memory.text, memory.row) == (needs.text, 6 * needs.row)
    assert memory.weights == needs.weights + 2 * needs.prompt  # the prompt and the empty one
    assert "  memory  not stated by the model" in str(foreseen(swept(seed=[0]))).splitlines()


# -- the text ----------------------------------------------------------------------------------------------------------
def test_the_text_of_a_forecast(swept: Swept, untimed: list[str]) -> None:
    found = foreseen(swept(seed=[*range(40)], guidance__scale=[1.0, 3.0], technique="inpaint"), "mine")
    # 40 x 4 x (1 + 2) rows in 30 calls of 16
    assert str(found).splitlines() == [
        "plan      mine, 80 cells: 0 stored, 80 to sample",
        "model     analytic, float32: 80 cells",
        "  rows    480 in at least 30 calls of 16 rows",
        "  time    60 s: 2.0 s a call, timed just now",
        "  memory  not stated by the model",
        "in all    60 s of sampling on cpu",
        "          2 workers 30 s, 4 workers 15 s, 8 workers or more 8.0 s: the longest cell's 4 calls, one after "
        "another",
        "          loading, encoding prompts, metrics and reports come on top; nothing ran, and nothing was written",
    ]
