"""The command line, through real processes: exit statuses, one-line errors, config.json."""

import json
import re
import shlex
import textwrap

import pytest

from lmlite import entry
from lmlite.config import ROOT

JOB = '''
"""Adds numbers.

The second paragraph.
"""

import sys

if "--help" in sys.argv:
    sys.modules["jax"] = None  # importing it now raises

from lmlite import entry
from lmlite.errors import UserError


def main(config, workdir):
    if config.mode == "refuse":
        raise UserError("config.mode='refuse' can't run;\\nname another")
    if config.mode == "interrupt":
        raise KeyboardInterrupt
    if config.mode == "bug":
        raise AssertionError
    (workdir / "results.jsonl").write_text("")
    print(f"{workdir.name}: {config.model} {config.sizes.hidden}")


if __name__ == "__main__":
    entry.run(main, "job")
'''

CONFIG = '''
from ml_collections import ConfigDict

def get_config(model="tiny"):
    return ConfigDict(dict(model=model, mode="", sizes=dict(hidden=8, heads=(1, 2))))

def sweep_hidden():
    """Widths."""
    for hidden in (8, 16):
        yield {"sizes.hidden": hidden}
'''


@pytest.fixture
def job(tmp_path, run_python):
    """Runs the job with its config and the given flags."""
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "job_config.py").write_text(CONFIG)

    def run(*flags):
        given = (
            []
            if any(flag.startswith("--config=") for flag in flags)
            else ["--config=job_config.py"]
        )
        return run_python("-m", "job", *given, *flags)

    return run


def test_a_run_writes_its_config_and_resumes(job, tmp_path):
    flags = ("--config=job_config.py:model=hf://org/name", "--config.sizes.hidden=16")
    for earlier in (0, 1, 2):
        done = job(*flags, "--workdir=out")
        assert (done.returncode, done.stdout) == (0, "out: hf://org/name 16\n"), done.stderr
        assert done.stderr == ""
        record = json.loads((tmp_path / "out" / "config.json").read_text())
        assert record["config"] == {
            "model": "hf://org/name",
            "mode": "",
            "sizes": {"hidden": 16, "heads": [1, 2]},
        }
        starts = [*record["earlier"], record]
        assert len(starts) == earlier + 1
        assert all(start["command"].endswith("--workdir=out") for start in starts)
    assert {"python", "jax", "jaxlib", "flax", "optax", "lmlite"} <= record["versions"].keys()
    assert record["devices"] and record["processor"]
    assert record["command"].endswith(f"-m job {flags[0]} {flags[1]} --workdir=out")


def test_another_config_in_the_same_workdir_is_refused(job, tmp_path):
    assert job("--workdir=out").returncode == 0
    before = (tmp_path / "out" / "config.json").read_bytes()
    refused = job("--workdir=out", "--config.sizes.heads=3")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "config.sizes.heads is [3]" in refused.stderr and "[1, 2]" in refused.stderr
    assert (tmp_path / "out" / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    "flags, words",
    [
        ((), ["--workdir"]),
        (("--workdri=out",), ["--workdri", "--workdir"]),
        (("--workdir=out", "--config.sizes.hiden=1"), ["hiden", "config.sizes.hidden"]),
        (("--workdir=out", "--config.sizes.hidden=x"), ["config.sizes.hidden=x", "8"]),
        (("--workdir=out", "--config.model"), ["--config.model=VALUE"]),
        (("--workdir=out", "--config=job_config.py:modle=x"), ["modle", "model"]),
        (("--workdir=out", "--config=absent.py"), ["absent.py"]),
        (("--workdir=out", "--sweep=hiden"), ["hiden", "hidden"]),
        (("--workdir=out", "--sweep=hidden", "--config.sizes.hidden=8"), ["sizes.hidden"]),
        (("--workdir=out", "stray"), ["'stray'"]),
        (("--workdir=job.py/out",), ["--workdir", "job.py/out"]),
        (("--workdir=gs://bucket/out",), ["gs://bucket/out", "local"]),
        (("--workdir=out", "--config.mode=refuse"), ["config.mode='refuse' can't run; name"]),
    ],
)
def test_user_errors_are_one_line_and_status_2(job, flags, words):
    refused = job(*flags)
    assert refused.returncode == 2, refused
    assert refused.stdout == ""
    assert refused.stderr.startswith("error: ") and refused.stderr.count("\n") == 1
    assert all(word in refused.stderr for word in words), refused.stderr


def test_an_interrupt_is_status_130_and_a_bug_keeps_its_traceback(job):
    interrupted = job("--workdir=out", "--config.mode=interrupt")
    assert interrupted.returncode == 130
    assert interrupted.stderr.count("\n") == 1
    bug = job("--workdir=bug", "--config.mode=bug")
    assert bug.returncode == 1
    assert "Traceback" in bug.stderr


def test_help_explains_the_job_without_importing_jax(job):
    shown = job("--help")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("Adds numbers.\n\nThe second paragraph.")
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    for line in ("model 'tiny'", "--config.sizes.heads (1, 2)", "hidden Widths."):
        assert line in lines
    assert "python -m job" in shown.stdout and "--workdir" in shown.stdout


def test_help_may_lose_its_reader(job, run_python):
    code = """
        import subprocess, sys
        command = [sys.executable, "-m", "job", "--config=job_config.py", "--help"]
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        job.stdout.close()
        print(job.stderr.read(), job.wait())
    """
    assert run_python("-c", textwrap.dedent(code)).stdout == "b'' 1\n"


def test_a_sweep_runs_every_point_in_its_own_folder(job, tmp_path):
    done = job("--workdir=out", "--sweep=hidden", "--config.model=small")
    assert done.stdout == "sizes.hidden=8: small 8\nsizes.hidden=16: small 16\n", done.stderr
    record = json.loads((tmp_path / "out" / "sizes.hidden=16" / "config.json").read_text())
    assert record["config"]["sizes"]["hidden"] == 16


def test_a_workdir_that_is_not_ours_is_refused(job, tmp_path):
    (tmp_path / "out").mkdir()
    for text in ("[]", "{", '{"config": 1}', '{"model_type": "llama"}'):
        (tmp_path / "out" / "config.json").write_text(text)
        refused = job("--workdir=out")
        assert refused.returncode == 2 and "config.json" in refused.stderr, text


def test_compiled_programs_are_kept_where_the_cache_is(run_python, tmp_path):
    code = """
        from lmlite import entry
        entry._cache_compiled_programs()
        import jax
        print(jax.config.jax_compilation_cache_dir)
    """
    given = {"LMLITE_CACHE": str(tmp_path / "cache"), "JAX_COMPILATION_CACHE_DIR": ""}
    shown = run_python("-c", textwrap.dedent(code), **given)
    assert shown.stdout.strip() == str(tmp_path / "cache" / "xla"), shown.stderr


def test_every_experiment_explains_itself(run_python):
    for path in sorted((ROOT / "experiments").glob("[!_]*.py")):
        shown = run_python("-m", f"experiments.{path.stem}", "--help")
        assert shown.returncode == 0, shown.stderr
        assert f"python -m experiments.{path.stem}" in shown.stdout


def readme_commands() -> list[list[str]]:
    """The arguments of every `python -m experiments.NAME ...` of README.md, NAME first."""
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    found = re.findall(r"python -m experiments\.([^`\n]+)", text)
    return [shlex.split(re.split("&&|[|;]", line)[0], comments=True) for line in found]


def test_readme_commands_parse_and_show_every_experiment():
    commands = readme_commands()
    assert commands, "README.md shows no `python -m experiments.NAME`"
    for name, *flags in commands:
        if "--help" not in flags:
            assert entry.resolve([name, *flags], name), (name, flags)
    experiments = {path.stem for path in (ROOT / "experiments").glob("[!_]*.py")}
    assert {name for name, *_ in commands} == experiments
