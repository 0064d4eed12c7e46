"""What a user's configuration file may do: set the project's own keys, and few of Hydra's.

Under `hydra` a file could name loggers, callbacks and classes, which Hydra builds before any task runs. So a file may
set what is listed here, and nothing else of Hydra's; what is typed on the command line is the user's own affair. An
interpolation may name a key (`${technique.t}`): resolvers read the environment and build values out of text.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from antlr4 import ParserRuleContext  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
from omegaconf.grammar_parser import parse

from diffsweep.core.problems import BadInput

# The documented settings, without those that name code or a shell's commands (slurm's `setup`, optuna's
# `custom_search_space`, ...).
SETTINGS = """
    sweeper.max_batch_size

    launcher.n_jobs launcher.backend launcher.prefer launcher.require launcher.verbose launcher.timeout
    launcher.pre_dispatch launcher.batch_size launcher.temp_folder launcher.max_nbytes launcher.mmap_mode

    launcher.submitit_folder launcher.timeout_min launcher.cpus_per_task launcher.gpus_per_node
    launcher.tasks_per_node launcher.mem_gb launcher.nodes launcher.name launcher.stderr_to_stdout
    launcher.partition launcher.qos launcher.constraint launcher.exclude launcher.gres launcher.account
    launcher.cpus_per_gpu launcher.gpus_per_task launcher.mem_per_gpu launcher.mem_per_cpu launcher.signal_delay_s
    launcher.max_num_timeout launcher.array_parallelism

    launcher.ray.init.num_cpus launcher.ray.init.num_gpus launcher.ray.init.object_store_memory
    launcher.ray.remote.num_cpus launcher.ray.remote.num_gpus launcher.ray.remote.memory launcher.ray.remote.max_calls

    sweeper.direction sweeper.storage sweeper.study_name sweeper.n_trials sweeper.n_jobs sweeper.max_failure_rate
    sweeper.sampler.seed sweeper.sampler.n_startup_trials sweeper.sampler.n_ei_candidates sweeper.sampler.multivariate
    sweeper.sampler.group sweeper.sampler.constant_liar sweeper.sampler.consider_prior sweeper.sampler.prior_weight
    sweeper.sampler.consider_magic_clip sweeper.sampler.consider_endpoints sweeper.sampler.population_size
    sweeper.sampler.warn_independent_sampling sweeper.sampler.mutation_prob sweeper.sampler.crossover_prob
    sweeper.sampler.swapping_prob
"""
LAUNCHERS = ("fused", "basic", "joblib", "submitit_local", "submitit_slurm", "ray")
SWEEPERS = ("fused", "basic", "optuna")
SAMPLERS = ("tpe", "random", "cmaes", "grid", "nsgaii", "motpe", "qmc")
CHOICES = {"hydra/launcher": LAUNCHERS, "hydra/sweeper": SWEEPERS, "hydra/sweeper/sampler": SAMPLERS}
KEYS = frozenset(tuple(key.split(".")) for key in ("mode", *SETTINGS.split()))
PARAMS = ("sweeper", "params")
MAY = "a file may set hydra.mode, hydra.sweeper.params and the settings of a known launcher or sweeper"
TYPED = ("hydra", "now")  # the resolvers that may be typed


def check_file(config: Mapping[str, Any], file: str) -> None:
    """A file's content as it is written: BadInput for code, for resolvers and for what its defaults list reaches."""
    if "_target_" in str(config):
        raise BadInput(f"{file}: _target_ is refused: a file cannot name code to call")
    for text in _texts(config):
        written = re.sub(r"\\+\$\{", "${", text)  # Hydra reads some texts more than once
        for name in _interpolated(written):
            raise BadInput(f"{file}: {written!r} is refused: {name}; a file's ${{...}} may name a key alone: ${{seed}}")
    if not isinstance(defaults := config.get("defaults") or [], list):
        raise BadInput(
            f"{file}: defaults={defaults!r:.40}: must be a list, as in [override /technique: inpaint, _self_]"
        )
    for entry in defaults:
        for line, choice in entry.items() if isinstance(entry, Mapping) else ((entry, None),):
            _check_default(str(line), choice, file)


def check_placed(config: Mapping[str, Any], file: str) -> None:
    """A file's content at the place that it is given: BadInput for what it would set of Hydra's."""
    if "hydra" not in config:
        return
    for path, value in _leaves(config["hydra"]):
        key = ".".join(("hydra", *path))
        if value == {} and any(known[: len(path)] == path for known in (*KEYS, PARAMS)):
            continue
        swept = path[:2] == PARAMS and (len(path) == 3 or value is None)
        if swept and any("hydra" in re.split(r"[^\w-]+", word) for word in path[2:]):
            raise BadInput(f"{file}: {key} is refused: a sweep is over keys of the project's; type Hydra's own")
        if path not in KEYS and not swept:
            raise BadInput(f"{file}: {key} is refused: {MAY}; type the rest on the command line")
        if isinstance(value, list) or re.search(r"(?<!\\)\$\{", str(value)) or not (swept or str(value).isprintable()):
            raise BadInput(f"{file}: {key}={value!r}: must be a plain value, on one line and without ${{...}}")


def check_typed(key: str, value: Any) -> None:
    """A value on the command line: BadInput for a resolver, whose result would enter records."""
    for text in _texts(value):
        for name in _resolvers(text):
            if name not in TYPED:
                raise BadInput(
                    f'{key}: ${{{name}:...}} is refused: its result would enter records; the shell reads "$VARIABLE"'
                )


def _check_default(line: str, choice: Any, file: str) -> None:
    """One entry of a defaults list; its group counts from the file's own folder."""
    place, _, package = line.split(" ")[-1].partition("@")
    if choice is None:
        place, _, choice = place.rpartition("/")
        place = place or ("/" if line.startswith("/") else "")
    folder = file.rpartition("/")[0]
    group = place.strip("/") if place.startswith("/") else f"{folder}/{place}".strip("/")
    reaches = "hydra" in re.split(r"[./:]", package) or "hydra" in group.split("/") or ".." in group.split("/")
    names = choice if isinstance(choice, list) else [choice]
    if "$" in line or (reaches and (package or any(name not in CHOICES.get(group, ()) for name in names))):
        known = f"{', '.join(CHOICES[group])}" if group in CHOICES else ", ".join(list(CHOICES)[:2])
        raise BadInput(f"{file}: '{line}{f': {choice}' if choice else ''}' is refused: a file may choose {known}")


def _leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values that hold no others, empty mappings among them, and where they stand."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _leaves(value, (*path, str(key)))
    else:
        yield path, node


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str) and "${" in value:
        yield value


def _resolvers(text: str) -> Iterator[str]:
    for node in _parsed(text):
        if isinstance(node, OmegaConfGrammarParser.InterpolationResolverContext):
            yield node.resolverName().getText()  # type: ignore[no-untyped-call]


def _interpolated(text: str) -> Iterator[str]:
    """What interpolations of a text do beyond naming a key of the project's."""
    for node in _parsed(text):
        if isinstance(node, OmegaConfGrammarParser.InterpolationResolverContext):
            yield f"{node.resolverName().getText()} is a resolver"  # type: ignore[no-untyped-call]
        elif isinstance(node, OmegaConfGrammarParser.InterpolationNodeContext):
            if "${" in node.getText()[2:]:
                yield "a key is computed"
            elif "hydra" in re.split(r"[^\w-]+", node.getText()):
                yield "a key of Hydra's"


def _parsed(text: str) -> Iterator[ParserRuleContext]:
    """Every node of OmegaConf's own reading of a text; none where OmegaConf cannot read it, which it reports."""
    try:
        nodes = [parse(text)]
    except GrammarParseError:
        return
    while nodes:
        node = nodes.pop()
        if isinstance(node, ParserRuleContext):
            yield node
            nodes += node.getChildren()


def plain(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=False)
