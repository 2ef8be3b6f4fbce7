"""The command line of every experiment: flags to config and workdir, errors to exit statuses.

An experiment is a `main(config, workdir)` and the line `entry.run(main, 'compare')`, which names
its default config file. It should import jax and the rest of lmlite inside `main`, so that
`--help` and a wrong flag answer at once.
"""

import inspect
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from lmlite import workdir as workdirs
from lmlite.config import ROOT, leaves, load, nearest, override, product, sweeps
from lmlite.errors import UserError

Main = Callable[[ConfigDict, Path], None]


def run(main: Main, default: str) -> None:
    """Runs `main` as the command line says, then exits.

    The status is 0 after success, 2 with one line on stderr after a UserError, 130 after Ctrl-C.

    Args:
      main: the experiment; called once, or once for every point of `--sweep`.
      default: NAME of its default config, configs/NAME.py.
    """
    try:
        if _parse(sys.argv, default)[0].help:
            print(help_text(main, sys.argv, default), flush=True)
            return
        for workdir, config in resolve(sys.argv, default):
            _cache_compiled_programs()
            workdirs.write_config(workdir, config)
            main(config, workdir)
    except UserError as error:
        print("error:", *str(error).splitlines(), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: the same command resumes", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader left, as in `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def resolve(argv: list[str], default: str) -> list[tuple[Path, ConfigDict]]:
    """The runs that a command line asks for: (workdir, config), one for every point of a sweep.

    Raises UserError for an unknown flag, argument or field, a value of the wrong type, or a
    missing --workdir.
    """
    values, overrides = _parse(argv, default)
    if not values.workdir:
        raise UserError("--workdir is missing; name a folder for the results, --workdir=DIR")
    if "://" in values.workdir:
        raise UserError(f"--workdir={values.workdir} is not a local folder; name one")
    module, config = load(values.config)
    config = override(config, overrides)
    workdir = Path(values.workdir).expanduser().absolute()
    points = list(product(*(_sweep(module, name)() for name in values.sweep)))
    for path in overrides:
        if any(path in point for point in points):
            raise UserError(f"--config.{path} and --sweep set the same field; drop one")
    return [(workdir / _folder(point), override(config, point)) for point in points]


def help_text(main: Main, argv: list[str], default: str) -> str:
    """What `--help` prints: the experiment's docstring, flags, and every field of the config."""
    values, _ = _parse(argv, default)
    module, config = load(values.config)
    caller = sys.modules[main.__module__]
    command = f"python -m {caller.__spec__.name}" if caller.__spec__ else f"python {argv[0]}"
    usage = "--workdir=DIR [--config=FILE[:KEY=VALUE,...]] [--config.PATH=VALUE ...]"
    arguments = inspect.signature(module.get_config).parameters.values()
    sections = {
        "Flags": {f"--{name}": values[name].help for name in values if len(name) > 1},
        f"Arguments of {module.__file__}": {a.name: repr(a.default) for a in arguments},
        "Sweeps": {name: inspect.getdoc(f) or "" for name, f in sweeps(module).items()},
        "Fields": {f"--config.{path}": repr(value) for path, value in leaves(config).items()},
    }
    shown = [_section(title, rows) for title, rows in sections.items() if rows]
    return "\n\n".join([inspect.getdoc(caller) or "", f"Usage: {command} {usage}", *shown])


def _section(title: str, rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join([f"{title}:", *(f"  {name:<{width}}  {text}" for name, text in rows.items())])


def _parse(argv: list[str], default: str) -> tuple[flags.FlagValues, dict[str, str]]:
    """The flags, and the text of every `--config.path=value` by its path."""
    values = flags.FlagValues()
    of = {"flag_values": values}
    file = str(ROOT / "configs" / f"{default}.py")
    flags.DEFINE_string("config", file, "config file, then its arguments after a colon", **of)
    flags.DEFINE_string("workdir", "", "folder for the results; an unfinished run resumes", **of)
    flags.DEFINE_list("sweep", [], "run every combination of these sweeps of the config", **of)
    flags.DEFINE_boolean("help", False, "show this and exit", short_name="h", **of)
    try:
        rest = values(argv, known_only=True)[1:]
    except (flags.Error, ValueError) as error:
        raise UserError(f"{error}; --help shows the flags") from error
    return values, dict(_override(argument, list(values)) for argument in rest)


def _override(argument: str, known: list[str]) -> tuple[str, str]:
    matched = re.fullmatch(r"--?config\.([^=]+)=(.*)", argument, re.DOTALL)
    if matched:
        return matched[1], matched[2]
    name = argument.lstrip("-").partition("=")[0]
    if name.startswith("config."):
        raise UserError(f"{argument} has no value; write {argument}=VALUE")
    if argument.startswith("-"):
        raise UserError(f"--{name} is not a flag; the nearest is --{nearest(name, known)}")
    raise UserError(f"{argument!r} is not a flag; write --config.PATH=VALUE to change a field")


def _sweep(module, name: str):
    known = sweeps(module)
    if name not in known:
        near = f"the nearest is {nearest(name, known)}" if known else "it has none"
        raise UserError(f"--sweep={name} is not a sweep of {module.__file__}; {near}")
    return known[name]


def _folder(point: dict) -> str:
    return re.sub(r"[^\w.,=-]+", "_", ",".join(f"{path}={value}" for path, value in point.items()))


def _cache_compiled_programs() -> None:
    """Keeps compiled programs between processes, where the user's JAX settings don't say."""
    import jax  # not at the top: see the module's docstring

    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(workdirs.cache_folder() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
