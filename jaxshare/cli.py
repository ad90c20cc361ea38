"""The command line: hydra's configuration turned into records, and its errors into sentences. Knows hydra, not jax."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import itertools
import pathlib
import re
import sys
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    GrammarParseError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from jaxshare import registry, spelling, surroundings, trust
from jaxshare.config import RunConfig, Settings, config_dir
from jaxshare.plugins import arguments as plugins
from jaxshare.plugins import options
from jaxshare.plugins import presets as outside
from jaxshare.types import HostError, RefusedError

FOLDER = "JAXSHARE_FOLDER"  # environment variable of the jobs of a multirun
GROUPS = ("algo", "env", "preset")


def register() -> None:
    """Let hydra know all entries: ours, and those from outside that this process has imported."""
    _register_ours()
    if options.offer():
        _keys_with.cache_clear()


@lru_cache(maxsize=1)
def _register_ours() -> None:
    """Put the schema and one option per file of algos/ and envs/ into hydra's store.

    An algorithm's `RUN` holds its own defaults of run settings, such as {"num_envs": 4}.
    """
    store = ConfigStore.instance()
    for kind in ("algo", "env"):
        for name, module in registry.modules(kind).items():
            node = OmegaConf.create({kind: _open(module.Config), **getattr(module, "RUN", {})})
            store.store(group=kind, name=name, node=node, package="_global_")
    extra: list[Any] = [
        ("modifiers", list[str], dataclasses.field(default_factory=list)),
        ("sweep", dict[str, Any], dataclasses.field(default_factory=dict)),
    ]
    for name, module in registry.modules("modifiers").items():
        extra.append((name, module.Config, dataclasses.field(default_factory=module.Config)))
    schema = dataclasses.make_dataclass("Schema", extra, bases=(RunConfig,), frozen=True)
    node = _open(schema)
    OmegaConf.set_struct(node, False)  # hydra adds the groups algo and env
    store.store(name="schema", node=OmegaConf.create({key: node._get_node(key) for key in node}))


def _open(config: type) -> DictConfig:
    """A structured config that hydra may override: OmegaConf makes those of frozen dataclasses read-only."""
    node = OmegaConf.structured(config)

    def unlock(node: Any) -> None:
        if isinstance(node, DictConfig | ListConfig):
            OmegaConf.set_readonly(node, None)
            if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
                for key in node:
                    unlock(node._get_node(key))

    unlock(node)
    return node


def settings(arguments: Sequence[str]) -> Settings:
    """Settings from `key=value` arguments. Raises RefusedError naming key, value and remedy."""
    arguments = plugins.understood(arguments)
    register()
    overrides = _parse(arguments, spelling.training_kinds())
    for override in overrides:
        if override.is_sweep_override():
            raise spelling.several(override, multirun=True)
    check_arguments([override.input_line or "" for override in overrides])
    cfg = _composed([spelled(override.input_line or "") for override in overrides])
    for override in overrides:
        _check_booleans(override.key_or_group, override.value(), cfg)
    _check_modifiers(cfg, overrides)
    return _permitted(from_config(cfg, cfg.hydra.runtime.choices), cfg.hydra.runtime.choices, overrides)


def check_arguments(arguments: Sequence[str], sweeping: bool = False) -> None:
    """Raise RefusedError for settings that there are not; sweeping: in none of the combinations of a multirun."""
    register()
    overrides = _parse(arguments, spelling.training_kinds(), sweeping)
    groups = [override for override in overrides if override.key_or_group in GROUPS]
    if any(override.is_sweep_override() and not override.is_choice_sweep() for override in groups):
        return  # such as glob(*), which hydra expands
    _check_groups(groups)
    known: dict[str, None] = {}
    for combination in itertools.product(*map(_choices, groups)):
        lines = [f"{group.key_or_group}={name}" for group, name in zip(groups, combination, strict=True)]
        known |= dict.fromkeys(_keys_with(tuple(lines)))
    for override in overrides:
        _check_key(override, known)


@lru_cache(maxsize=64)
def _keys_with(groups: tuple[str, ...]) -> tuple[str, ...]:
    """All keys of the configuration with these groups."""
    return tuple(keys(_composed(groups)))


def _composed(lines: Sequence[str]) -> DictConfig:
    with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3"):
        try:
            return compose("config", list(lines), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise refusal(error) from error


def _choices(group: Override) -> list[str]:
    """The names that a group is given: several in a multirun."""
    if group.is_sweep_override():
        return list(group.sweep_string_iterator())
    return ["null" if group.value() is None else str(group.value())]


def from_config(cfg: DictConfig, choices: Any) -> Settings:
    """Settings from a composed configuration and the chosen option of each group."""
    try:
        run = {f.name: cfg[f.name] for f in dataclasses.fields(RunConfig) if f.name != "run_dir"}
        names = [str(name) for name in cfg.modifiers]
        for name in names:
            registry.get("modifiers", name)
            if names.count(name) > 1:
                raise RefusedError(f"modifiers=[{','.join(names)}] has {name} twice: name it once.")
        return Settings(
            run=RunConfig(**{k: _object(v) for k, v in run.items()}, run_dir=cfg.run_dir or ""),
            algo_name=choices["algo"],
            algo=_settings_of("algo", choices["algo"], cfg.algo, "algo"),
            env_name=choices["env"],
            env=_settings_of("env", choices["env"], cfg.env, "env"),
            modifiers={name: _settings_of("modifiers", name, cfg[name], name) for name in names},
            sweep=_sweep(cfg.sweep),
        )
    except OmegaConfBaseException as error:
        raise refusal(error) from error


def _permitted(settings: Settings, choices: Any, overrides: list[Override]) -> Settings:
    """The settings, if no file that is their preset chooses code of an environment by itself."""
    preset = str(choices.get("preset"))
    if preset in outside.files():
        trust.check_preset(settings, preset, [override.key_or_group for override in overrides])
    return settings


def from_hydra(cfg: DictConfig, job: Any) -> Settings:
    """Settings of one job of hydra's own main; each job of a multirun gets a run directory of its own, by number.

    A relative run_dir is one of the folder in which the command was given, wherever a launcher puts the job.
    """
    overrides = _parse(job.overrides.task, spelling.training_kinds())
    _check_modifiers(cfg, overrides)
    settings = _permitted(from_config(cfg, job.runtime.choices), job.runtime.choices, overrides)
    if job.mode != RunMode.MULTIRUN:
        return settings
    base = pathlib.Path(submitting_folder(job), cfg.run_dir or job.sweep.dir)
    return dataclasses.replace(settings, run=dataclasses.replace(settings.run, run_dir=str(base / str(job.job.num))))


def submitting_folder(job: Any) -> str:
    """The folder in which the command was given, of which jobs elsewhere are told in a variable."""
    return str(job.job.env_set.get(FOLDER, job.runtime.cwd))


def from_plain(tree: dict[str, Any]) -> Settings:
    """Settings from a run directory's `config.yaml`, where keys that are missing have today's defaults.

    Raises RefusedError if it does not fit this version; the message names the key, but not the file.
    """
    try:
        algo_name = str(tree["algo_name"])
        env_name = str(tree["env_name"])
        run = tree["run"]
        modifiers = tree.get("modifiers") or {}
        return Settings(
            run=_record(RunConfig, run, "run"),
            algo_name=algo_name,
            algo=_record(registry.get("algo", algo_name).Config, tree.get("algo"), "algo"),
            env_name=env_name,
            env=_record(registry.get("env", env_name).Config, tree.get("env"), "env"),
            modifiers={k: _record(registry.get("modifiers", k).Config, v, k) for k, v in modifiers.items()},
            sweep=tree.get("sweep") or {},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise RefusedError(f"it does not fit this version of jaxshare ({str(error).splitlines()[0]}).") from error


def _settings_of(kind: str, name: str, node: Any, key: str) -> Any:
    """The record of an entry's settings; nodes of entries from outside hold plain values (`plugins.options`)."""
    if OmegaConf.get_type(node) is not dict:
        return _object(node)
    values: Any = OmegaConf.to_container(node, resolve=True)
    return _record(registry.get(kind, name).Config, values, key)


def _record(config: type, values: dict[str, Any] | None, key: str) -> Any:
    try:
        return OmegaConf.to_object(OmegaConf.merge(_open(config), _literally(values or {})))
    except OmegaConfBaseException as error:
        full_key = ".".join([key, *filter(None, [getattr(error, "full_key", "")])])
        if isinstance(error, ConfigKeyError | ConfigAttributeError):
            raise RefusedError(
                f"{full_key} is no setting of this version of jaxshare: use the version that made it, or another "
                "run_dir."
            ) from error
        raise RefusedError(f"{full_key} does not fit: {str(error).splitlines()[0]}.") from error


def _literally(value: Any) -> Any:
    """Plain values whose texts OmegaConf takes as they stand: a file cannot ask for `${oc.env:PASSWORD}`."""
    if isinstance(value, dict):
        return {key: _literally(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_literally(inner) for inner in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def small_config(config: type, arguments: Sequence[str]) -> Any:
    """A dataclass from `key=value` arguments, without groups. Raises RefusedError naming key, value and remedy."""
    node = _open(config)
    for override in _parse(arguments, spelling.kinds_of(config)):
        first, _, rest = override.key_or_group.partition(".")
        if rest and first in node and isinstance(node[first], DictConfig):  # as env.id, of any names
            OmegaConf.update(node, override.key_or_group, override.value(), force_add=True)
            continue
        if override.key_or_group not in node:
            known = [str(key) for key in node]
            near = registry.suggest(override.key_or_group, known)
            raise RefusedError(f"'{override.key_or_group}' is not a setting.{near} Known: {', '.join(known)}.")
        if override.is_sweep_override():
            raise spelling.several(override, multirun=False)
        _check_booleans(override.key_or_group, override.value(), node)
        try:
            node[override.key_or_group] = override.value()
        except OmegaConfBaseException as error:
            raise refusal(error) from error
    try:
        return OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise refusal(error) from error


def small_help(template: str, config: type) -> str:
    """The template with the settings of a dataclass."""
    shown = {str(key): value for key, value in _open(config).items()}
    return template.format(settings=_settings_text(shown, notes(config)))


def _settings_text(shown: dict[str, Any], explained: dict[str, str]) -> str:
    lines = []
    for key, value in shown.items():
        text = f"  {key}={'null' if value is None else str(value).lower() if isinstance(value, bool) else value}"
        lines.append(f"{text:<38} {explained[key]}" if explained.get(key) else text)
    return "\n".join(lines)


def notes(config: type, prefix: str = "") -> dict[str, str]:
    """The comment beside each field of a dataclass, or in the line above it, by key.

    What `--help` shows is what the source says.
    """
    declaration = re.compile(r"^(?:    # (?P<above>.*)\n)?    (?P<name>\w+): [^#\n]*?(?:  # (?P<beside>.*))?$", re.M)
    found: dict[str, str] = {}
    for base in reversed(config.__mro__[:-1]):
        for match in declaration.finditer(inspect.getsource(base)):
            found[prefix + match["name"]] = match["beside"] or match["above"] or ""
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(field.default_factory):
            found |= notes(field.default_factory, f"{prefix}{field.name}.")
    return found


def _object(node: Any) -> Any:
    if isinstance(node, ListConfig):
        return tuple(OmegaConf.to_object(node))  # type: ignore[arg-type]
    return OmegaConf.to_object(node) if isinstance(node, DictConfig) else node


def _sweep(node: DictConfig) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}

    def visit(prefix: str, node: Any) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                visit(f"{prefix}{key}.", value)
                continue
            values = value if isinstance(value, list) else [value]
            if not values or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
                raise RefusedError(
                    f"sweep.{prefix}{key}={value} must be a list of numbers, as in sweep.lr=[1e-4,5e-4]."
                )
            found[prefix + key] = [float(v) for v in values]
            if len(values) != len({*found[prefix + key]}):
                raise RefusedError(f"sweep.{prefix}{key}={value} names a value twice: give each value once.")

    visit("", OmegaConf.to_container(node))
    return found


# --------------------------------------------------------------------------------------------------- before composing


def _parse(arguments: Sequence[str], kinds: spelling.Kinds, sweeping: bool = False) -> list[Override]:
    overrides = []
    for argument in arguments:
        override = spelling.parse(spelling.spelled(argument, kinds, sweeping))
        if override is None:
            raise spelling.not_understood(argument)
        if override.is_delete():
            raise RefusedError(f"'{argument}' is not understood: settings cannot be removed. Give another value.")
        overrides.append(override)
    return overrides


def spelled(argument: str, sweeping: bool = False) -> str:
    """An argument as hydra wants it. See `spelling.spelled`; `sweep.*` keys are added, not overridden."""
    if argument.startswith("-"):
        return argument
    line = spelling.spelled(argument, spelling.training_kinds(), sweeping)
    key = line.partition("=")[0]
    return f"++{line}" if _is_free(key) and not key.startswith("+") else line


def _is_free(key: str) -> bool:
    """Whether any name may follow: sweep.<hyper-parameter>, and arguments handed on to a package, env.kwargs.<name>."""
    return key.split(".")[0] == "sweep" or "kwargs" in key.split(".")


def _check_groups(groups: list[Override]) -> None:
    for override in groups:
        for name in _choices(override):
            if override.key_or_group == "preset":
                if name != "null":
                    registry.one_of("preset", name, [*presets(), *outside.names(), *outside.files()])
            else:
                registry.get(override.key_or_group, name)


def presets() -> list[str]:
    """Names of the shipped presets, as 'main_job' or 'differ/fig4'."""
    folder = config_dir() / "preset"
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def _check_key(override: Override, known: Collection[str]) -> None:
    key = override.key_or_group
    if key in GROUPS or key.startswith(("sweep.", "hydra.", "hydra/")):
        return
    parts = key.split(".")
    if "kwargs" in parts:
        key = ".".join(parts[: parts.index("kwargs") + 1])
    if key not in known:
        near = registry.suggest(key, known)
        raise RefusedError(f"'{key}' (in {override.input_line}) is not a setting.{near} `--help` lists the settings.")


def _check_booleans(key: str, value: Any, cfg: DictConfig) -> None:
    """Refuse numbers other than 0 and 1 for true and false: OmegaConf takes them all."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_booleans(f"{key}.{name}", inner, cfg)
    elif isinstance(value, int) and value not in (0, 1) and isinstance(OmegaConf.select(cfg, key), bool):
        raise RefusedError(f"{key}={value} is neither true nor false.")


def keys(cfg: Any, prefix: str = "") -> list[str]:
    """All keys of a configuration but hydra's, groups of keys included."""
    found = []
    for key in cfg:
        if prefix or key != "hydra":
            found.append(f"{prefix}{key}")
            child = cfg._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none():
                found.extend(keys(child, f"{prefix}{key}."))
    return found


def help_text(template: str, arguments: Sequence[str]) -> str:
    """`--help`: the template filled with what there is to choose and the settings of the present choice."""
    arguments = plugins.understood(arguments)
    register()
    groups = [o for o in _parse(arguments, spelling.training_kinds(), True) if o.key_or_group in GROUPS]
    _check_groups(groups)
    cfg = _composed([f"{group.key_or_group}={_choices(group)[0]}" for group in groups])  # of several the first
    choices = cfg.hydra.runtime.choices
    values = {key: OmegaConf.select(cfg, key) for key in keys(cfg)}
    hidden = ("modifiers", "sweep")  # explained in the template
    shown = {k: v for k, v in values.items() if k not in hidden and (not isinstance(v, DictConfig) or not v)}
    explained = notes(RunConfig)
    explained |= notes(registry.get("algo", choices.algo).Config, "algo.")
    explained |= notes(registry.get("env", choices.env).Config, "env.")
    for name, module in registry.loaded("modifiers").items():
        explained |= notes(module.Config, f"{name}.")
    return template.format(
        algos="|".join(registry.names("algo")), envs="|".join(registry.names("env")),
        modifiers=", ".join(registry.names("modifiers")), presets=", ".join([*presets(), *outside.names()]),
        algo=choices.algo, env=choices.env, settings=_settings_text(shown, explained),
    )  # fmt: skip


def _check_modifiers(cfg: DictConfig, overrides: list[Override]) -> None:
    for override in overrides:
        owner = override.key_or_group.split(".")[0]
        if owner in registry.loaded("modifiers") and owner not in cfg.modifiers:
            raise RefusedError(f"{override.input_line} has no effect: {owner} is not in use. Add modifiers=[{owner}].")


def refusal(error: Exception) -> RefusedError:
    """One sentence out of a hydra or OmegaConf error."""
    full_key = getattr(error, "full_key", None)
    cause = error.__cause__
    if full_key is None and isinstance(cause, Exception):
        full_key = getattr(cause, "full_key", None)
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told_by_key = [line for line in lines if not line.startswith(("full_key:", "object_type=", "See https:"))]
    message = "; ".join(line.rstrip(".") for line in told_by_key) or type(error).__name__
    if isinstance(error, InterpolationResolutionError | GrammarParseError):
        message += "; ${...} takes the value of another setting, and \\${ stands for these two characters themselves"
    return RefusedError(f"{full_key}: {message}." if full_key else f"{message}.")


# --------------------------------------------------------------------------------------------------------------- main


def run_command(command: Callable[[], None]) -> None:
    """Run a command; a refusal becomes one message on stderr and exit status 1, never a traceback."""
    try:
        surroundings.prepare_process()
        command()
    except (RefusedError, HostError, OSError) as error:
        print(f"error: {told(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def told(error: Exception) -> str:
    """What a person is told of an error that is no mistake of the program."""
    if not isinstance(error, OSError):
        return str(error)
    remedy = ": raise the limit, as by ulimit -n 4096" if error.errno == errno.EMFILE else ""
    return f"{error.filename or 'input/output'}: {error.strerror or error}{remedy}"
