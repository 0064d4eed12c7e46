"""`tracker=wandb` while a sweep runs, through the command: cells are told of as they are finished."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from signal import SIGINT
from subprocess import PIPE, Popen
from threading import Thread, current_thread
from typing import Any

import pytest
import wandb

from diffsweep import app
from diffsweep.metric.psnr import Psnr
from diffsweep.report.frame import results
from diffsweep.runner import following, preflight, sampling
from diffsweep.store.cells import Store, locked
from diffsweep.tracker.said import run_id
from diffsweep.tracker.service import PRIVATE, awaited
from diffsweep.tracker.session import Session
from diffsweep.tracker.wandb import Wandb
from tests.tracker.runs import OFFLINE, Finished, inspected, kill_service, read, reported, runs, summary
from tests.tracker.server import Serving

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("offline", "hydra_restore_singletons")]  # in this process
FOLDER = Path("outputs/sweeps/scales")
WORDS = ["model=analytic", "model.size=8", "scheduler.steps=2", "device=cpu", "sweep.name=scales", "tracker=wandb"]
WORDS += ["technique=image_to_image", "metric.names=[psnr]", "engine.rows=1"]  # cells end one after the other
NUMBER = "cells/number"
END = None, None  # the numbers of no cell: what there is of all, then the page


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "WAIT", 0.05)


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["diffsweep", "-m", *WORDS, *words])
    return app.main()


def sweep() -> dict[str, Any]:
    return json.loads((FOLDER / "sweep.json").read_bytes())


def logged() -> dict[str, Any]:
    """The cells' runs that are over, while the sweep's own goes on."""
    path = FOLDER / "wandb" / "logged.json"
    return json.loads(path.read_bytes()) if path.exists() else {}


def of_sweep() -> Path:
    """The folder of the sweep's run; there is one."""
    (run,) = [path for path in runs(Store(Path("outputs"))) if path.name.endswith(run_id(sweep()))]
    return run


def records(run: Path, kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in map(json.loads, inspected(run).splitlines()) if record["type"] == kind]


def history(run: Path) -> list[dict[str, Any]]:
    return [record["item"] for record in records(run, "history")]


def before_the_last_cell(monkeypatch: pytest.MonkeyPatch, number: int, do: Callable[[], object]) -> None:
    """Do something when all cells but one of so many are finished."""
    finish, finished = sampling.Sampler._finish, []

    def finishing(self: Any, *arguments: Any) -> Any:
        if len(finished) == number - 1:
            do()
        finished.append(0)
        return finish(self, *arguments)

    monkeypatch.setattr(sampling.Sampler, "_finish", finishing)


def until(there: Callable[[], bool]) -> None:
    """What must come while the last cell waits; it is waited for as long as a busy machine may take."""
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_server_hears_of_finished_cells_while_others_are_sampled(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving()
    monkeypatch.setenv("WANDB_MODE", "online")
    seen: dict[str, Any] = {}

    def look() -> None:
        own = run_id(sweep())
        until(lambda: len(server.streamed(own, "wandb-history.jsonl")) == 3)
        seen["steps"] = server.streamed(own, "wandb-history.jsonl")
        until(lambda: len({asked["name"] for asked in server.asked("mutation UpsertBucket")}) == 4)
        seen["stored"] = [(FOLDER / name).exists() for name in ("sweep.json", "results.csv")]

    before_the_last_cell(monkeypatch, 4, look)
    assert command(monkeypatch, "seed=range(0,4)") == 0
    assert seen["stored"] == [True, False]  # the files are still to come
    assert sorted(step[NUMBER] for step in seen["steps"]) == [0, 1, 2]
    cells, store = sweep()["cells"], Store(Path("outputs"))
    psnr = [store.record(cell["cell_id"])["metrics"]["psnr"]["value"] for cell in cells]
    values = [psnr[step[NUMBER]] for step in seen["steps"]]
    assert [step["cells/psnr"] for step in seen["steps"]] == values
    means = [total / n for n, total in enumerate(accumulate(values), start=1)]
    assert [step["cells/psnr_mean"] for step in seen["steps"]] == pytest.approx(means)
    rows = server.streamed(run_id(sweep()), "wandb-history.jsonl")
    assert sorted(row[NUMBER] for row in rows[:-2]) == [0, 1, 2, 3]
    assert not [row for row in rows[-2:] if NUMBER in row]
    (last,) = server.streamed(run_id(sweep()), "wandb-summary.json")[-1:]
    assert last["psnr"] == pytest.approx(sum(psnr) / 4)
    assert last["cells"] == 4


def test_told_while_it_runs_and_told_afterwards_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch, "seed=range(0,3)", "guidance.scale=1,3") == 0
    live = read(Store(Path("outputs")), sweep(), None)
    monkeypatch.setattr(Session, "cells", lambda *_: None)
    assert command(monkeypatch, "seed=range(0,3)", "guidance.scale=1,3", "output_dir=other") == 0
    after_folder = Path("other/sweeps/scales")
    after = read(Store(Path("other")), json.loads((after_folder / "sweep.json").read_bytes()), None)

    def told(found: Any) -> Any:
        """Without what is a matter of the clock, or follows from it."""
        config = found.summaries[found.own]["config"]
        steps = [{k: v for k, v in step.items() if "seconds" not in k} for step in found.steps[found.own]]
        steps = [
            {k: v for k, v in step.items() if k[0] != "_" and not k.endswith((".path", ".sha256"))} for step in steps
        ]
        cells = sorted(
            (one["name"], one["config"]["cell_id"], one["state"])
            for one in found.summaries.values()
            if "cell_id" in one["config"]
        )
        summary = {k: v for k, v in found.summaries[found.own]["summary"].items() if isinstance(v, int | float)}
        summary = {k: v for k, v in summary.items() if k[0] != "_" and k != "seconds"}
        return (
            config | {"command": None},
            sorted(step[NUMBER] for step in steps if NUMBER in step),
            steps[-1].keys(),
            cells,
            summary,
        )

    assert told(live) == told(after)


def test_an_interrupt_leaves_what_was_told_and_the_sweep_goes_on_with_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def stop() -> None:
        until(lambda: len(logged()) > 0)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        before_the_last_cell(patch, 4, stop)
        assert command(patch, "seed=range(0,4)") == 130
    found = summary(of_sweep())
    assert (found["state"], found["exit_code"]) == ("failed", 1)
    assert "wandb: " in capfd.readouterr().err
    assert command(monkeypatch, "seed=range(0,4)") == 0
    whole = read(Store(Path("outputs")), sweep(), None)
    assert {one["state"] for one in whole.summaries.values()} == {"finished"}
    assert len(whole.cells) == 4
    assert [step.get(NUMBER) for step in whole.steps[whole.own]] == [0, 1, 2, 3, *END]


def test_a_sweep_that_comes_in_batches_is_one_run_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch, "seed=range(0,4)", "hydra.sweeper.max_batch_size=2", "tracker.granularity=sweep") == 0
    run = of_sweep()
    assert len(records(run, "run")) == 1
    steps = history(run)
    assert [step[NUMBER] for step in steps if NUMBER in step] == [0, 1, 2, 3]
    assert [(i, step["cells"]) for i, step in enumerate(steps) if "cells" in step] == [(2, 2), (5, 4)]  # each batch
    assert [i for i, step in enumerate(steps) if "results.path" in step] == [6]  # all there is, once
    found = summary(run)
    assert (found["state"], found["summary"]["cells"]) == ("finished", 4)


def test_a_server_that_ceases_while_the_sweep_runs_loses_nothing(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server = serving()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")

    def cease() -> None:
        own = run_id(sweep())
        until(lambda: len(logged()) == len(server.streamed(own, "wandb-history.jsonl")) == 3)
        server.answers = "500"
        monkeypatch.setitem(PRIVATE, "init_timeout", 1)

    before_the_last_cell(monkeypatch, 4, cease)
    assert command(monkeypatch, "seed=range(0,4)") == 0
    err = capfd.readouterr().err
    assert err.count("warning:") == 1 and "the rest is written offline" in err
    own = of_sweep()
    assert own.name.startswith("offline-run-")
    assert [step.get(NUMBER) for step in history(own)] == [0, 1, 2, 3, *END]


def test_a_service_killed_while_the_sweep_runs_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    killed: list[bool] = []

    def kill() -> None:
        until(lambda: len(logged()) > 0)
        killed.append(kill_service())

    before_the_last_cell(monkeypatch, 4, kill)
    assert command(monkeypatch, "seed=range(0,4)") == 0
    assert killed == [True]
    assert capfd.readouterr().err.count("warning:") == 1
    whole = read(Store(Path("outputs")), sweep(), None)
    assert {one["state"] for one in whole.summaries.values()} == {"finished"}
    assert len(whole.cells) == 4
    assert [step.get(NUMBER) for step in whole.steps[whole.own]] == [0, 1, 2, 3, *END]


def test_a_failed_cell_has_a_run_that_failed_with_its_configuration_and_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = sampling.to_pixels
    calls: list[int] = []

    def failing(x: Any) -> Any:
        calls.append(0)
        if len(calls) == 1:
            raise FloatingPointError("the picture holds NaN")
        return real(x)

    monkeypatch.setattr(sampling, "to_pixels", failing)
    assert command(monkeypatch, "seed=0,1", "guidance.scale=2") == 1
    found = read(Store(Path("outputs")), sweep(), None)
    (failed,) = [one for one in found.summaries.values() if one["state"] == "failed"]
    assert (failed["name"], failed["exit_code"]) == ("seed=0", 1)
    assert {found.run[name]["job_type"] for name in found.cells} == {"image_to_image"}
    assert failed["summary"]["reason"] == "FloatingPointError: the picture holds NaN"
    assert failed["config"]["guidance"]["scale"] == 2
    assert (failed["config"]["seed"], failed["config"]["cell_id"]) == (0, sweep()["cells"][0]["cell_id"])
    assert command(monkeypatch, "seed=0,1", "guidance.scale=2") == 0
    again = read(Store(Path("outputs")), sweep(), None)
    assert again.folders.keys() == found.folders.keys()
    assert {one["state"] for one in again.summaries.values()} == {"finished"}


def test_two_processes_do_not_tell_of_one_sweep_at_once(finished: Finished, capfd: pytest.CaptureFixture[str]) -> None:
    store, swept, report = finished
    session = OFFLINE.begin(store, report.folder)
    with locked(report.folder / "wandb"):
        session.cells(swept, [swept["cells"][0]["cell_id"]])
        assert not runs(store)
    session.report(swept, report)
    line = session.close()
    (run,) = runs(store)
    assert line == f"wandb: offline run; cd {run.parent} && wandb sync ."
    assert [step.get(NUMBER) for step in history(run)] == [0, 1, 2, *END]
    assert capfd.readouterr() == ("", "")


def test_who_waits_for_another_process_says_so_and_goes_on(
    finished: Finished, capfd: pytest.CaptureFixture[str]
) -> None:
    store, swept, report = finished
    session = OFFLINE.begin(store, report.folder)
    with locked(report.folder / "wandb"):
        thread = Thread(target=session.report, args=(swept, report))
        thread.start()
        said: list[str] = []
        until(lambda: bool(said.append(capfd.readouterr().err) or "".join(said)))
        assert "".join(said) == "wandb: waiting for another process that tells of this sweep\n"
    thread.join(60)
    assert session.close()
    (run,) = runs(store)
    assert summary(run)["state"] == "finished"


def test_a_long_wait_at_the_end_is_told(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("diffsweep.tracker.service.SOON", 0.1)
    with awaited():
        time.sleep(1)
    assert capfd.readouterr().err == "wandb: sending what is left\n"
    with awaited():
        pass
    time.sleep(0.5)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("agent", [True, False])
def test_a_run_that_the_server_stops_is_ended_by_its_agent_alone(
    agent: bool, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one, wandb interrupts the program: what a click on Stop is for."""
    for name in ("SWEEP_ID", "RUN_ID") if agent else ():
        monkeypatch.setenv(f"WANDB_{name}", "trial")
    asked: list[Any] = []
    real = wandb.init

    def init(**arguments: Any) -> Any:
        asked.append(arguments["settings"].get("stop_fn"))
        return real(**arguments)

    monkeypatch.setattr(wandb, "init", init)
    assert OFFLINE.log(*finished)
    (stop,) = asked
    assert stop() is None if agent else stop is None


def test_one_that_must_wait_too_long_says_who_tells_the_rest(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("diffsweep.tracker.session.PATIENCE", 0.2)
    store, swept, report = finished
    with locked(report.folder / "wandb"):
        assert OFFLINE.log(store, swept, report) is None
    assert not runs(store)
    assert "another process tells of this sweep; diffsweep-results sync scales" in capfd.readouterr().err


def test_pictures_that_a_cell_is_about_to_have_are_not_told_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch, "seed=0,1,2") == 0
    stored = [cell["cell_id"] for cell in sweep()["cells"]]
    told: list[tuple[str, bool]] = []
    cells = Session.cells

    def telling(session: Session, document: Any, cell_ids: Any) -> None:
        records = {cell_id: Store(Path("outputs")).record(cell_id) for cell_id in cell_ids}
        told.extend((cell_id, "trajectory" in record["facts"]) for cell_id, record in records.items())
        cells(session, document, cell_ids)

    monkeypatch.setattr(Session, "cells", telling)
    before_the_last_cell(monkeypatch, 3, lambda: until(lambda: len(told) >= 2))
    assert command(monkeypatch, "seed=0,1,2", "engine.trajectory=2") == 0
    assert told and {cell_id for cell_id, _ in told} <= set(stored)
    assert all(whole for _, whole in told)


def test_a_metric_that_fails_beside_the_sampling_alone_has_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    measure = Psnr.__call__

    def once(metric: Psnr, batch: Any) -> Any:
        calls.append(current_thread().name)
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return measure(metric, batch)

    monkeypatch.setattr(Psnr, "__call__", once)
    before_the_last_cell(monkeypatch, 2, lambda: until(lambda: len(calls) > 0))
    assert command(monkeypatch, "seed=0,1") == 0
    assert calls[0] != "MainThread"
    store = Store(Path("outputs"))
    assert all(store.record(cell["cell_id"])["metrics"]["psnr"]["value"] for cell in sweep()["cells"])
    assert sweep()["unavailable"] == {}


def test_an_interrupt_at_the_very_end_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(session: Session) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Session, "close", interrupted)
        patch.setattr(Session, "report", lambda *_: None)
        patch.setattr(Session, "cells", lambda *_: None)
        assert command(patch, "seed=0") == 130
    assert "diffsweep: stopped by SIGINT" in capfd.readouterr().err


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_does_not_wait_for_a_server_that_stalls(
    times: int, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of its own, which gets the signal while its thread is at a call that does not come back."""
    serving("nothing")
    monkeypatch.setenv("WANDB_MODE", "online")
    words = [*WORDS[:-3], "metric=none", "technique=text_to_image", "scheduler.steps=300", "seed=range(0,200)"]
    script = "import signal, sys; from diffsweep.app import main; "
    script += "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main())"
    with Popen([sys.executable, "-c", script, "-m", *words], stderr=PIPE, text=True) as process:
        try:
            until(lambda: bool(list(Path("outputs").glob("cells/*/*/record.json"))))
            time.sleep(3)  # wandb is imported, and asks
            began = time.monotonic()
            for _ in range(times):
                process.send_signal(SIGINT)
                time.sleep(1)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert time.monotonic() - began < 45  # it would wait for 90 seconds
    assert "Traceback" not in err and "diffsweep: stopped by SIGINT" in err


def test_where_the_device_has_no_room_for_a_metric_cells_are_told_of_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preflight, "beside", lambda device: False)
    monkeypatch.setattr(Session, "cells", lambda *_: pytest.fail("told"))
    assert command(monkeypatch, "seed=0,1") == 0
    assert [step.get(NUMBER) for step in history(of_sweep())] == [0, 1, *END]


def test_who_goes_on_tells_of_a_cell_once(finished: Finished) -> None:
    store, swept, report = finished
    first, second = (cell["cell_id"] for cell in swept["cells"][:2])
    session = Wandb(mode="offline", granularity="sweep").begin(store, report.folder)
    session.cells(swept, [])
    session.cells(swept, [second])
    session.cells(swept, [first, second])
    session.report(swept, reported(store, swept))
    session.close()
    (run,) = runs(store)
    steps = history(run)
    assert [step.get(NUMBER) for step in steps] == [1, 0, 2, *END]
    frame = results(store, swept)
    assert [step["cells/psnr_mean"] for step in steps[:3]] == [21, 20.5, 21]
    assert ["psnr" in step for step in steps] == [False, False, False, True, False]
    assert [frame["psnr"][step[NUMBER]] for step in steps[:3]] == [step["cells/psnr"] for step in steps[:3]]
    pictures = [(run / "files" / step["cells/image.path"]).read_bytes() for step in steps[:3]]
    stored = [(store.folder(swept["cells"][i]["cell_id"]) / "image.png").read_bytes() for i in (1, 0, 2)]
    assert pictures == stored
