"""The command line of `diffsweep-results`: what it says of itself, and which command the typed words name."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version

from diffsweep import entry
from diffsweep.commands import COMMANDS, COMMON, Command
from diffsweep.core.files import is_folder, root_of
from diffsweep.core.problems import BadInput, did_you_mean, not_text, require
from diffsweep.core.text import visible
from diffsweep.store.stored import names, opened

HELP = """\
diffsweep-results: tables, sheets and reports of stored sweeps

  table SWEEP [metric=NAMES] [stat=mean|median|q95|best4,...] [rows=AXES] [cols=AXES] [over=AXES]
        [repeats=3] [format=terminal|markdown|latex|csv]
                                    each setting's mean over its seeds and inputs with a 95 % interval, or its median,
                                    a quantile, or the expected best of 4 seeds: of an input's seeds, averaged over
                                    inputs. A setting is one choice of all axes but seed, input and those given as
                                    over=: nothing else is averaged. cols: axes laid out as columns; rows: those that
                                    come first among the others. Bold: the best of all settings, of each seed or input
                                    where these are lines or columns. repeats: the fewest that have an interval, 2 or
                                    more. csv: unrounded; a text that begins as a formula has a ' before it
  compare SWEEP [metric=NAMES] [axis=AXIS] [baseline=VALUE] [test=wilcoxon|sign] [over=AXES]
        [repeats=3] [format=terminal|markdown|csv]
                                    each value of an axis (default: of every axis of 2 to 10) against its first one or
                                    the baseline: paired differences, and where the metrics' variance comes from
  grid SWEEP [rows=AXIS] [cols=AXIS] [blocks=AXES] [metric=NAMES] [pictures=image,view_1,...] [title=TEXT]
       [size=PIXELS] [to=FILE.png|FILE.pdf] [keep=false]
                                    draw the contact sheet again, with these axes as rows, columns and blocks, and the
                                    metrics' values below the pictures. pictures: those shown side by side for each
                                    cell, such as input, noisy, low, view_1, or hole: the input, its hole marked.
                                    title: in place of the sweep's name; empty, without the settings too. size: of a
                                    picture, at most. Later reports draw it so again, as well as a file in the sweep's
                                    folder. keep=false: this once, and what was kept stays. Without keys: from now on
                                    as the sweep's `grid` block says
  figure SWEEP [kind=curve|heatmap|pareto|tradeoff] [metric=NAMES] [x=AXIS] [y=AXIS] [hue=AXIS] [facet=AXIS]
         [cost=nfe|seconds] [over=AXES] [keep=false|forget]
  figure SWEEP kind=trajectory [cell=ID] [keep=false|forget]
                                    draw figures, each as PDF and PNG; without a kind every one that the sweep allows.
                                    Later reports draw what was chosen again. keep=false: this once, and what was kept
                                    stays; keep=forget: later reports draw it no more, without other keys none of them.
                                    trajectory: a cell's steps, where engine.trajectory=N kept some
  report SWEEP [embed=true]         write every file of the sweep again; report.html opens in a browser, from disk.
                                    embed: and report_whole.html, the page with its pictures in it (of 25 MB, those
                                    that fit), to send on its own
  score SWEEP [metric=NAMES] [judge=...] [features=clip|inception] [references=inputs|world|FOLDER]
        [missing=skip] [device=auto|cpu|cuda:N] [force=true] [plugins=PACKAGES]
                                    measure the stored pictures (default: metric=default), then write the files again.
                                    force: also what has been measured already. plugins: packages with metrics of your
                                    own
  watch SWEEP [every=SECONDS]       a progress bar over all workers that are at it now, wherever they run
  stop SWEEP                        ask all workers that are at it to end; the sweep's command goes on from there
  verify SWEEP [repair=true] [all=true]
                                    compare every stored file with its recorded hash, and the sweep's tables, sheets and
                                    page with what the store gives. repair: put damaged cells aside, for the sweep's
                                    command to sample again, and write the sweep's files anew; nothing that can be read
                                    is removed. all: list every problem, not the first few of each kind
  pack SWEEP                        move its cells into lots, Parquet files of a thousand cells each, where a folder for
                                    each is too many files; every command reads them there, as store.format=lots does
  unpack SWEEP                      give its cells folders of their own again
  export SWEEP to=FOLDER|FILE.zip [format=store|webdataset]
                                    the sweep and its cells alone, to send or to keep, each file compared with its hash.
                                    webdataset (or to=webdataset): tar files for training, of each cell its picture,
                                    its other pictures, its prompt and a .json of axes, settings and metrics
  sync SWEEP [project=...] [entity=...] [tags=A,B] [mode=online|offline] [granularity=cell|sweep|both]
                                    log a stored sweep to Weights & Biases, or what is missing there
  dashboard SWEEP [project=...] [entity=...] [to=FILE.json]
                                    save a view of its runs there, or write that anew: parallel coordinates, metrics
                                    against axes, pictures, runs compared, the sweep's own curves. to: its JSON, unsaved

  list                              the sweeps there are
  gc [remove=true] [all=true]       what nobody needs any more, and its bytes: cells that no sweep names, damaged cells
                                    that were put aside, scratch and locks of dead processes. remove: remove it. all:
                                    list everything, not the first few of each kind

SWEEP is the name of a folder under outputs/sweeps, or a path to one. Every command takes output_dir=FOLDER (default:
outputs). --KEY stands for KEY=true.

NAMES: psnr,ssim,... or a choice of the metric group.

Exit codes: 0 done, 1 verify, gc, export or score found something wrong, a metric, a sheet or a figure failed, or the
disk or another part of the machine did, 2 bad input, 70 a bug of diffsweep, 128+n signal n.
"""


def run(words: Sequence[str]) -> int:
    """Run one command line; BadInput says what is wrong with it."""
    name, *rest = words
    if name not in COMMANDS:
        raise BadInput(f"{name}: no such command; there are {', '.join(COMMANDS)}{did_you_mean(name, COMMANDS)}")
    command = COMMANDS[name]
    pairs = (word.lstrip("-").partition("=") for word in rest)
    output_dir = next((value for key, _, value in pairs if key == "output_dir"), "outputs")
    root = root_of(output_dir)
    there = names(root)  # a sweep's name may hold a =
    typed = [word if word in there or "=" in word or not word.startswith("--") else f"{word}=true" for word in rest]
    plain = [word for word in typed if "=" not in word or word in there or is_folder(word)]
    keys = _keys([word for word in typed if word not in plain], (*command.keys, *COMMON))
    if not isinstance(command, Command):
        if plain:
            raise BadInput(f"{name}: takes no sweep, not {' '.join(plain)}; output_dir=FOLDER says where it looks")
        return command.run(root, keys)
    if len(plain) != 1:
        given = f"not {' '.join(plain)}" if plain else f"as in diffsweep-results {name} quickstart"
        raise BadInput(f"{name}: the name of one sweep is needed, {given}")
    stored = opened(plain[0], output_dir)
    code = command.run(stored, keys)
    if name != "verify":
        lots = map(visible, stored.store.lots.report(stored.sweep["name"]))
        for line in (*stored.store.damage_report(mend=True), *lots):
            print(line, file=sys.stderr)
    return code


def _keys(words: Iterable[str], allowed: Sequence[str]) -> dict[str, str]:
    pairs = [word.lstrip("-").partition("=")[::2] for word in words]
    if wrong := [key for key, _ in pairs if key not in allowed]:
        raise BadInput(
            f"{key}: no such key; there are {', '.join(allowed)}{did_you_mean(key, allowed)}" for key in wrong
        )
    return dict(pairs)


def _help(words: Sequence[str]) -> str:
    """What there is to know of the command that is named, or of all."""
    _, commands, of_all, sweep, metrics, _ = HELP.split("\n\n")
    for name in COMMANDS:
        if name in words:
            listed = f"{commands}\n{of_all}\n"
            own = re.findall(rf"^  {name} .*\n(?:(?!  \w).*\n?)*", listed, flags=re.MULTILINE)
            footer = [sweep, *([metrics] if "metric" in COMMANDS[name].keys else [])]
            return "\n".join([f"diffsweep-results {name}", "", *(text.rstrip() for text in own), "", *footer, ""])
    return HELP


def main() -> int:
    """What the console entry calls; returns the exit code."""
    return entry.results()


def act() -> int:
    """Run what was typed."""
    words = sys.argv[1:]
    if not words or any(word in ("-h", "--help", "help") for word in words):
        print(_help(words), end="")
        return 0 if words else 2
    if "--version" in words:
        print(f"diffsweep {version('diffsweep')}")
        return 0
    require(*map(not_text, words))
    return run(words)


def mistake(error: Exception) -> str | None:
    """What the user can mend, in one message."""
    return "\n".join(error.messages) if isinstance(error, BadInput) else None
