"""A mistake that Hydra or OmegaConf found, in one short message: the key, what is allowed, what was probably meant."""

from __future__ import annotations

import re
import shlex
import traceback
from collections.abc import Collection, Iterator, Sequence
from os.path import lexists
from pathlib import Path
from posixpath import normpath
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, InterpolationKeyError, OmegaConfBaseException
from yaml import YAMLError, safe_load  # type: ignore[import-untyped]

from diffsweep.core.files import irregular, is_file, is_folder
from diffsweep.core.keys import at
from diffsweep.core.problems import BadInput, closest, did_you_mean
from diffsweep.paths import shipped
from diffsweep.report.command import override as written


def explain(error: BaseException) -> str:
    """A mistake in one short message: the key, what is allowed, and what was probably meant."""
    if isinstance(error, BadInput):
        return "\n".join(error.messages)
    if isinstance(error, OverrideParseException):
        return _about_grammar(error.override, error.message)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _about_choice(str(error.missing_cfg_file), list(error.options or []))
    if isinstance(error, YAMLError):
        return " ".join(str(error).split())
    chain = list(_causes(error))
    if (found := re.search(r"use \+(\w+=\{.*)", str(error))) and (advice := _as_choice(found[1])):
        return advice
    for cause in chain:
        if isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(cause.parent_node, DictConfig):
            return _about_key(cause.parent_node, str(cause.full_key))
    for pattern, advice in _ADVICE:
        if found := re.search(pattern, str(error), flags=re.DOTALL):
            return found.expand(advice)
    for cause in chain:
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            shell = '; the shell replaces a variable of its own in double quotes, "$NAME"'
            hint = shell if isinstance(cause, InterpolationKeyError) else ""
            return f"{cause.full_key}: {str(cause).splitlines()[0]}{hint}"
    lines = [str(cause).strip().splitlines()[0] for cause in chain if str(cause).strip()]
    return ": ".join(dict.fromkeys(lines)) or type(error).__name__


IN_FILE = "in a sweeps file's defaults list, write"

# What Hydra says, and what diffsweep says instead.
_ADVICE = (
    (
        r"Ambiguous value for argument '\+sweeps=",
        r"+sweeps names several files: one at a time, call diffsweep once for each",
    ),
    (
        r"Ambiguous value for argument '(([^=]+)=(.*?))'\n",
        r"""\1 names several values: add -m to sweep over them, or quote a text with commas twice: '\2="\3"'""",
    ),
    (r"In '(.*?)': \w+ raised while composing config:\n(.*?)\n\s*full_key: (\S+)", r"\1.yaml: \3: \2"),
    (r"Sweep parameters '(.*?)' requires --multirun", r"\1 is a sweep: add -m"),
    (r"force-add of config groups is not supported: '\+\+(sweeps.*?)'", r"++\1: write +\1"),
    (r"force-add of config groups is not supported: '\+\+(.*?)'", r"++\1 is a choice of a group: write \1"),
    (r"Could not override 'sweeps'.*use (\+\S+)", r"a sweeps file is added: write \1"),
    (r"Could not override '(.*?)'\. No match", r"\1: there is nothing of that name to choose"),
    (r"Multiple values for sweeps\.", r"+sweeps is given twice: one sweeps file at a time"),
    (
        r"Multiple values for (\S+)\. .*override \S+: (\S+?)'",
        rf"+\1=\2: \1 is already chosen; write \1=\2; {IN_FILE} override /\1: \2",
    ),
    (r"An item is already at 'sweep'", r"+sweep: a sweeps file is added by +sweeps=NAME; sweep's own keys need no +"),
    (r"An item is already at '(.*?)'", r"+\1: the key exists already; write it without +"),
    (r"Could not delete from config\. '(.*?)' does not exist", r"~\1: there is no such key"),
    (r"Could not override '(\S+@\S+)'", r"\1: no config is placed there"),
    (r"does not support sweep type : INTERVAL", r"interval(...) has no end of values: write range(a,b,step) or a list"),
    (
        r"Config group override must be a string or a list\. Got (\w+)",
        r"a choice goes by its name, as in guidance=none, not by \1",
    ),
)


_ANY_FOLDER = ("model", "tiny_sd")  # the choice whose keys suit most checkpoints
SIZE = ("model.height", "model.width")
# what other tools call a key, or a choice
_CALLED: dict[str, tuple[str, ...]] = {
    "num_inference_steps": ("scheduler.steps",),
    "step": ("scheduler.steps",),
    "metric.clip": ("metric.judge",),
    "cfg": ("guidance.scale",),
    "cfg_scale": ("guidance.scale",),
    "sampler": ("scheduler",),
    "generator": ("seed",),
    "image": ("input",),
    "mask_image": ("mask",),
    "batch_size": ("engine.rows",),
    "size": SIZE,
    "resolution": SIZE,
    "model.size": SIZE,
    "model.resolution": SIZE,
    "technique=img2img": ("image_to_image",),
    "technique=i2i": ("image_to_image",),
    "technique=sdedit": ("image_to_image",),
    "technique=txt2img": ("text_to_image",),
    "technique=t2i": ("text_to_image",),
    "scheduler=euler_a": ("euler_ancestral",),
    "guidance=cfg": ("classifier_free",),
}
# how other tools are asked for several pictures
_SEVERAL = ("n", "num", "num_images", "num_images_per_prompt", "num_samples", "n_samples", "samples", "batch")
# the key that a number given to a group is meant for
_NUMBERED = {"guidance": "scale", "mask": "softness", "scheduler": "steps"}
# how a file is given to a group whose choice it is no name of
_GIVEN = {
    "model": "model.path={} reads a folder, or a repository of the hub",
    "input": "a picture's file is input=file input.path={}",
    "mask": "a mask's file is mask=file mask.path={}",
}


def _about_grammar(override: str, message: str) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override!r}: write key=value (see diffsweep --help)"
    reason = next((line for line in message.splitlines() if " at " in line or " while " in line), "not Hydra's grammar")
    if alone := sorted({letter for letter in value if not letter.isascii() or letter == "~"}):
        reason = f"{' '.join(alone[:5])}: within quotes alone"
    texts = [text.strip() for text in value.split(",") if text.strip()]
    several = f"as {len(texts)} texts, with -m: {_quoted(key, *texts)}; " if len(texts) > 1 else ""
    one = f"if the value is a text, quote it inside the shell's quotes: {_quoted(key, value)}"
    return f"cannot read {override!r} ({reason}); {several}{one}"


def _quoted(key: str, *texts: str) -> str:
    """`key=` and these texts, in quotes for Hydra and for the shell."""
    return shlex.quote(f"{key}={','.join(QuotedString(text, Quote.double).with_quotes() for text in texts)}")


def _as_choice(line: str) -> str | None:
    """What `input={name:file,path:x.png}` means, as a choice and its keys."""
    try:
        override = OverridesParser.create().parse_override(line)
    except HydraException:  # Hydra quotes a value in other words than it reads
        return None
    group, value = override.key_or_group, override.value()
    if not isinstance(value, dict) or "name" not in value or not is_folder(shipped("conf") / group):
        return None
    keys = [written(f"{group}.{key}", item) for key, item in value.items() if key != "name"]
    words = " ".join([f"{group}={value['name']}", *keys])
    return f"{group}={{...}}: a choice goes by its name, and its keys stand beside it: {words}"


def _about_choice(path: str, options: list[str]) -> str:
    if path.startswith("sweeps/"):
        return _about_sweeps_file(path.removeprefix("sweeps/"))
    group, _, choice = path.partition("/")
    hint = f"; a part of your own needs plugins=[my_package] and, by --config-dir, a {path}.yaml"
    if not is_folder(shipped("conf") / group):
        group, _, choice = path.rpartition("/")
        hint = ""
    elif group in _GIVEN and re.search(r"[./]", choice):
        hint = f"; {_GIVEN[group].format(choice)}"
    meant = _meant(_CALLED.get(f"{group}={choice.lower()}", ()))
    return f"{group}={choice}: no such {group}; {_one_of(choice, options, hint, meant)}"


def not_a_choice(group: str, text: str, value: object) -> str | None:
    """A problem where a group is given a number, or several, or a list of other than names. text: as it is typed."""
    numbers = re.fullmatch(r"[-+.\d][-+.,\seE\d]*|(choice|range|interval)\([-+.,\s\d]+\)", text)
    odd = isinstance(value, list) and not all(isinstance(item, str) for item in value)
    if not (numbers or odd) or not is_folder(folder := shipped("conf") / group):
        return None
    if numbers and (key := _NUMBERED.get(group)):
        return f"{group}={text}: a choice goes by its name, not by a number{_meant([f'{group}.{key}={text}'])}"
    return f"{group}={text}: no such {group}; {_one_of(text, sorted(file.stem for file in folder.glob('*.yaml')))}"


def _meant(words: Sequence[str]) -> str:
    """`; did you mean 'x'?`, or `'x' and 'y'`; nothing where there are none."""
    return f"; did you mean {' and '.join(map(repr, words))}?" if words else ""


def _about_sweeps_file(name: str) -> str:
    """Why `+sweeps=NAME` finds nothing: it is no path, and only .yaml is read."""
    stem = re.sub(r"\.ya?ml$", "", normpath(name))
    inside = stem.removeprefix("sweeps/")
    options = sweeps_files()
    if found := next((one for one in (stem, inside) if is_file(Path("sweeps", f"{one}.yml"))), None):
        return f"+sweeps={name}: a sweeps file ends in .yaml; rename ./sweeps/{found}.yml to {found}.yaml"
    if lexists(file := Path("sweeps", f"{inside}.yaml")) and not is_file(file):
        return f"+sweeps={name}: ./{file} is {_no_file(file)}, where a file is needed"
    if is_folder(shipped("conf") / inside.rpartition("/")[0]) and "/" in inside:
        group, _, choice = inside.rpartition("/")
        return f"+sweeps={name}: no such sweeps file; {IN_FILE} override /{group}: {choice}"
    if is_file(Path("sweeps", f"{inside}.yaml")) or inside in options:
        return f"+sweeps={name}: a sweeps file goes by its name within ./sweeps, without an ending: +sweeps={inside}"
    return f"+sweeps={name}: no such sweeps file, neither in ./sweeps nor shipped; {_one_of(inside, options)}"


def _no_file(path: Path) -> str:
    try:
        return irregular(path) or "no file"
    except OSError:
        return "a link that leads to no file"


def _one_of(word: str, options: list[str], hint: str = "", meant: str = "") -> str:
    allowed = f"choose one of {', '.join(options)}" if options else "there are none"
    return f"{allowed}{hint}{meant or did_you_mean(word, options)}"


def sweeps_files() -> list[str]:
    """The names that `+sweeps=NAME` finds from here."""
    folders = (Path("sweeps"), shipped("sweeps"))
    return sorted({file.stem for folder in folders for file in folder.glob("*.yaml") if is_file(file)})


def _about_key(node: DictConfig, key: str) -> str:
    if key in _SEVERAL:
        return f"{key}: no such key; each picture has a seed of its own: -m seed=0,1,2,3"
    parent, group = key.rpartition(".")[0], key.partition(".")[0]
    hydras = group == "hydra"
    there = (path.split(".") for path in _paths(node._get_root()))
    everything = [".".join(path) for path in there if (path[0] == "hydra") == hydras and not path[-1].startswith("_")]
    namesakes = [path for path in everything if path.split(".")[-1] == key.split(".")[-1]]
    own = [path for path in namesakes if path.startswith(f"{group}.")] if parent else []
    called = _called(key, everything) or tuple(own[:1])
    if parent and not called and (elsewhere := _elsewhere(key)):
        return f"{key}: no such key{_of_choice(node)}; {elsewhere}"
    called = called or tuple(namesakes[:1]) or _CALLED.get(key, ())
    candidates = [path for path in everything if not key.startswith(f"{path}.")]
    near = called or _one(closest(key, candidates))
    if not near and not parent and not hydras:  # a misspelt last part of a key, here or in another choice
        near = _one(_ending(candidates, key))
    meant = _meant(near)
    siblings = [path.removeprefix(f"{parent}.") for path in everything if path.rpartition(".")[0] == parent]
    allowed = f"{parent or 'the keys'} {'has' if parent else 'are'} {', '.join(siblings) or 'no keys of its own'}"
    if not called and not parent and (elsewhere := _elsewhere(key) or ("" if near else _elsewhere(_misspelt(key)))):
        return f"{key}: no such key; {elsewhere}"
    if near and not parent:
        return f"{key}: no such key{meant}"
    if parent == "hydra.launcher" and not siblings:
        allowed += ": choose hydra/launcher=local, slurm or ray too"
    return f"{key}: no such key; {allowed}{meant}"


def _called(key: str, there: Collection[str]) -> tuple[str, ...]:
    """What diffsweep calls a key of other tools, where the cell has it."""
    names = _CALLED.get(key, ())
    return names if all(name in there for name in names) else ()


def _one(name: str | None) -> tuple[str, ...]:
    return (name,) if name else ()


def _of_choice(node: DictConfig) -> str:
    """Whose key it would be."""
    group, root = str(node._get_full_key("")).partition(".")[0], node._get_root()
    choice = OmegaConf.select(root, f"{group}.name") if group and is_folder(shipped("conf") / group) else None
    if choice and not is_file(shipped("conf") / group / f"{choice}.yaml"):
        return f" of this {group}"  # several choices share a part
    return f" of {group}={choice}" if choice else ""


def _ending(paths: list[str], word: str) -> str | None:
    """The key whose last part was probably meant by a word."""
    ends = {path.rpartition(".")[2]: path for path in reversed(paths)}
    return ends.get(closest(word, ends) or "")


def _elsewhere(key: str) -> str:
    """Which other choices of the key's group have it, or of any group where a key names none."""
    group, _, own = key.partition(".")
    missing = object()
    having: dict[str, list[str]] = {}
    for file, keys in _choices(group if own else "*"):
        if at(keys, own or key, missing) is not missing:
            having.setdefault(file.parent.name, []).append(file.stem)
    return ", ".join(_having(place, own or key, choices, bool(own)) for place, choices in having.items())


def _having(group: str, name: str, choices: list[str], said: bool) -> str:
    """Which choices of a group have a key. said: the message names the key in full already."""
    what = "it" if said else f"{group}.{name}"
    place, any_folder = _ANY_FOLDER
    if group == place and any_folder in choices:
        also = f", and so have {len(choices) - 1} other choices"
        return f"{group}={any_folder} has {what}, whose model.path may be any folder{also}"
    listed = ", ".join(f"{group}={choice}" for choice in choices)
    return f"{listed} {'has' if len(choices) == 1 else 'have'} {what}"


def _misspelt(word: str) -> str:
    """The key of any choice that was probably meant."""
    return closest(word, dict.fromkeys(key for _, keys in _choices("*") for key in keys)) or word


def _choices(group: str) -> Iterator[tuple[Path, Any]]:
    """The files of a group's choices, and their keys."""
    for file in sorted(shipped("conf").glob(f"{group}/*.yaml")):
        yield file, safe_load(file.read_text()) or {}


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a config; interpolations are not followed."""
    if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
        for key, value in node.items_ex(resolve=False):
            yield f"{prefix}{key!s}"
            yield from _paths(value, f"{prefix}{key!s}.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def mendable(error: Exception) -> bool:
    """Is it a mistake in what was typed or written in a config, rather than one of the program's?"""
    if isinstance(error, BadInput | HydraException | OmegaConfBaseException | YAMLError):
        return True
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, ValueError) and Path(last).is_relative_to(Path(hydra.__file__).parent)
