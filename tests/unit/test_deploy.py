"""What other schedulers are given: read by what reads it there where that is here, and by our own parser."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from raretrail import __version__, cli
from raretrail.errors import EXIT_BUSY, EXIT_HELD, EXIT_USAGE

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())


def accepted(words: list[str]) -> Any:
    """The arguments of a raretrail command as its own parser takes them."""
    return cli._parser().parse_args(words)


def raretrail_commands(text: str) -> list[list[str]]:
    """Every raretrail command in lines of shell, from after the program's name."""
    found = []
    for part in re.split(r"[;\n]|&&", text):
        words = shlex.split(part, comments=True)
        at = next(
            (i for i, w in enumerate(words[:-1]) if w == "raretrail" and words[i + 1] in COMMANDS), None
        )
        if at is not None:
            found.append(words[at + 1 :])
    return found


COMMANDS = {"run", "watch", "baseline", "maintain", "doctor"}


def test_cron_lines_are_five_times_a_user_and_commands_that_are_ones() -> None:
    text = (DEPLOY / "cron" / "raretrail").read_text()
    lines = [line for line in text.splitlines() if re.match(r"[*\d]", line)]
    assert len(lines) == 2
    for line in lines:
        fields = line.split(None, 6)
        assert all(re.fullmatch(r"\*(/\d+)?|\d+", field) for field in fields[:5])
        assert fields[5] == "raretrail"
        assert "%" not in fields[6], "cron takes % for the end of a line"
    ran = [accepted(words).name for line in lines for words in raretrail_commands(line.split(None, 6)[6])]
    assert ran == ["run", "baseline", "maintain"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        # The program is not installed where tests run; systemd looks whether it is.
        text = unit.read_text().replace("/opt/raretrail/bin/raretrail ", "/bin/true ")
        (tmp_path / unit.name).write_text(text)
    for unit in UNITS:
        done = subprocess.run(
            ["systemd-analyze", "verify", str(tmp_path / unit.name.replace("@", "@x"))]
            if "@" not in unit.name
            else ["systemd-analyze", "verify", str(tmp_path / unit.name)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), unit.name


def test_systemd_units_run_commands_that_are_ones() -> None:
    ran = []
    for unit in UNITS:
        for line in re.findall(r"^ExecStart=-?(.*)$", unit.read_text(), re.MULTILINE):
            words = shlex.split(line)
            assert words[0] == "/opt/raretrail/bin/raretrail"
            ran.append(accepted(words[1:]).name)
    assert sorted(ran) == ["baseline", "doctor", "maintain", "run", "watch"]
    for timer in DEPLOY.glob("systemd/*.timer"):
        assert timer.with_suffix(".service").is_file()
    run = (DEPLOY / "systemd" / "raretrail.service").read_text()
    assert f"SuccessExitStatus={EXIT_BUSY}\n" in run
    watch = (DEPLOY / "systemd" / "raretrail-watch.service").read_text()
    assert f"RestartPreventExitStatus={EXIT_USAGE}\n" in watch
    assert "KillMode=mixed\n" in watch, "a run that is to end needs its JVM"


def test_kubernetes_runs_one_at_a_time_and_retries_only_what_may_mend() -> None:
    job = yaml.safe_load((DEPLOY / "kubernetes" / "cronjob.yaml").read_text())["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    spec = job["jobTemplate"]["spec"]
    pod = spec["template"]["spec"]
    rule = spec["podFailurePolicy"]["rules"][0]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["values"] == [EXIT_USAGE, EXIT_HELD]
    assert pod["restartPolicy"] == "Never", "a pod failure policy needs it"
    container = pod["containers"][0]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert container["command"] == ["raretrail"]
    assert accepted(container["args"]).name == "run"


def test_the_spark_operator_runs_a_job_that_is_there_with_options_it_takes() -> None:
    spec = yaml.safe_load((DEPLOY / "kubernetes" / "sparkapplication.yaml").read_text())["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    template = spec["template"]
    script = Path(template["mainApplicationFile"].removeprefix("local://"))
    assert (DEPLOY.parent / "jobs" / script.name).is_file()
    assert accepted([script.stem, *template["arguments"]]).trail == ["s3a://audit-bucket/AWSLogs/o-abc123"]
    mounts = {m["name"] for part in ("driver", "executor") for m in template[part]["volumeMounts"]}
    assert mounts == {volume["name"] for volume in template["volumes"]}


def test_images_are_of_this_version_and_this_spark() -> None:
    from raretrail.runtime import SPARK_SERIES

    docker = (DEPLOY / "kubernetes" / "Dockerfile").read_text()
    assert f"FROM spark:{SPARK_SERIES}." in docker
    for source in re.findall(r"^COPY (.*) \S+$", docker, re.MULTILINE):
        for pattern in source.split():
            assert pattern.startswith("dist/") or list(DEPLOY.parent.glob(pattern)), pattern
    for name in ("Dockerfile", "cronjob.yaml", "sparkapplication.yaml"):
        images = re.findall(r"raretrail:(\d[\w.]*)", (DEPLOY / "kubernetes" / name).read_text())
        assert set(images) == {__version__}, name


def test_submit_lines_of_the_docs_name_jobs_and_options_that_are_there() -> None:
    text = (DEPLOY.parent / "docs" / "deploy.md").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if "jobs/" in line and "--trail" in line]
    assert len(lines) >= 3
    for line in lines:
        found = re.search(r"jobs/(\w+)\.py[\"',]* ?(?:\"entryPointArguments\": )?(.*)", line)
        assert found is not None, line
        assert (DEPLOY.parent / "jobs" / f"{found[1]}.py").is_file()
        options = [w for w in re.split(r"[\s,\"'\[\]{}]+", found[2]) if w]
        options = options[: options.index("#")] if "#" in options else options
        assert accepted([found[1], *options]).warehouse


def test_glue_hands_on_what_is_for_raretrail() -> None:
    spec = importlib.util.spec_from_file_location("raretrail_glue", DEPLOY / "glue" / "raretrail_glue.py")
    assert spec and spec.loader
    glue = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(glue)
    text = (DEPLOY.parent / "docs" / "deploy.md").read_text()
    [given] = re.findall(r'"--raretrail": "([^"]+)"', text)
    added = ["--JOB_NAME", "raretrail", "--job-bookmark-option", "job-bookmark-disable", "--enable-metrics"]
    line = glue.command_line([*added, "--raretrail", given, "--TempDir", "s3://t"])
    assert accepted(line).warehouse == "s3://security/warehouse"
    assert f"raretrail-{__version__}-py3-none-any.whl" in text
