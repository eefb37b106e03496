"""The Databricks bundle, as far as it can be checked without a workspace: by the SDK's own types, by
the jobs' own parser, and by running its queries over the tables."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from databricks.sdk.service import catalog, dashboards, iam, jobs, sql

from raretrail import __version__, cli, tables

ROOT = Path(__file__).resolve().parents[2]
COMPUTE = ("serverless", "classic")
BUNDLE = yaml.safe_load((ROOT / "databricks.yml").read_text())
TARGETS = sorted(BUNDLE["targets"])


def files(compute: str) -> dict[Path, dict[str, Any]]:
    """The files of the bundle with one kind of compute chosen, as databricks.yml says to choose it."""
    includes = [pattern.replace("serverless", compute) for pattern in BUNDLE["include"]]
    found = [path for pattern in includes for path in sorted(ROOT.glob(pattern))]
    return {path: yaml.safe_load(path.read_text()) for path in [ROOT / "databricks.yml", *found]}


def resources(compute: str) -> Iterator[tuple[str, str, dict[str, Any], Path]]:
    """(kind, key, resource, the file it is in), all of them."""
    for path, tree in files(compute).items():
        for kind, named in tree.get("resources", {}).items():
            for key, resource in named.items():
                yield kind, key, resource, path


def texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from texts(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from texts(value)
    elif isinstance(tree, str):
        yield tree


def variables(compute: str) -> dict[str, Any]:
    return {
        name: declared
        for tree in files(compute).values()
        for name, declared in tree.get("variables", {}).items()
    }


def resolved(text: str, compute: str, target: str) -> str:
    """text with every ${...} put in, as the CLI would; what has no default is made up."""
    named = {f"{kind}.{key}": resource for kind, key, resource, _ in resources(compute)}
    overridden = BUNDLE["targets"][target].get("variables", {})

    def value(match: re.Match[str]) -> str:
        kind, _, rest = match[1].partition(".")
        if kind == "var":
            declared = variables(compute)[rest]
            found = overridden.get(rest, declared.get("default", f"given-{rest}"))
            return resolved(str(found), compute, target)
        if kind == "resources":
            key, _, name = rest.rpartition(".")
            return resolved(str(named[key][name]), compute, target)
        known = {"workspace.current_user.userName": "me@example.com", "bundle.name": "raretrail"}
        return {**known, "bundle.target": target}[match[1]]

    return re.sub(r"\$\{([^}]+)\}", value, text)


def put_in(tree: Any, compute: str, target: str) -> Any:
    """A tree with every text resolved."""
    if isinstance(tree, dict):
        return {key: put_in(value, compute, target) for key, value in tree.items()}
    if isinstance(tree, list):
        return [put_in(value, compute, target) for value in tree]
    return resolved(tree, compute, target) if isinstance(tree, str) else tree


# ------------------------------------------------------------------------------------ the SDK's types


def parsed(kind: str, resource: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the SDK's type has of a resource after parsing it, and what it was asked to parse."""
    asked = {key: value for key, value in resource.items() if key not in ("grants", "permissions")}
    if kind == "jobs":
        return jobs.JobSettings.from_dict(asked).as_dict(), asked
    if kind == "alerts":
        return sql.AlertV2.from_dict(asked).as_dict(), asked
    if kind == "schemas":
        return catalog.SchemaInfo.from_dict(asked).as_dict(), asked
    if kind == "volumes":
        return catalog.VolumeInfo.from_dict(asked).as_dict(), asked
    if kind == "dashboards":
        # The bundle's own: what file it is in, and two arguments of the API beside its type.
        for name in ("file_path", "dataset_catalog", "dataset_schema"):
            asked.pop(name)
        return dashboards.Dashboard.from_dict(asked).as_dict(), asked
    raise AssertionError(f"no type known for {kind}")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("compute", COMPUTE)
def test_every_resource_comes_back_from_the_sdk_as_it_went_in(compute: str, target: str) -> None:
    kinds = []
    for kind, key, written, _ in resources(compute):
        resource = put_in(written, compute, target)
        back, asked = parsed(kind, resource)
        assert back == asked, f"{kind}.{key}"
        for grant in resource.get("grants", ()):
            assert catalog.PrivilegeAssignment.from_dict(grant).as_dict() == grant
        for permission in resource.get("permissions", ()):
            level = {**permission, "permission_level": permission["level"]}
            del level["level"]
            assert iam.AccessControlRequest.from_dict(level).as_dict() == level
        kinds.append(kind)
    assert sorted(set(kinds)) == ["alerts", "dashboards", "jobs", "schemas", "volumes"]


def test_the_check_by_the_sdk_sees_unknown_keys_and_values() -> None:
    back, asked = parsed("jobs", {"name": "x", "max_concurent_runs": 1})
    assert back != asked
    back, asked = parsed("jobs", {"name": "x", "schedule": {"pause_status": "STOPPED"}})
    assert back != asked


@pytest.mark.parametrize("compute", COMPUTE)
def test_every_task_has_a_key_and_compute_that_is_there(compute: str) -> None:
    for kind, key, job, _ in resources(compute):
        if kind != "jobs":
            continue
        clusters = {one["job_cluster_key"] for one in job.get("job_clusters", ())}
        environments = {one["environment_key"] for one in job.get("environments", ())}
        before: set[str] = set()
        for task in job["tasks"]:
            assert task["task_key"] not in before, key
            assert {one["task_key"] for one in task.get("depends_on", ())} <= before, key
            before.add(task["task_key"])
            used = clusters if compute == "classic" else environments
            assert task["job_cluster_key" if compute == "classic" else "environment_key"] in used
            assert task["timeout_seconds"] > 0
            # Otherwise serverless repeats a task by itself, max_retries or not.
            assert compute == "classic" or task["disable_auto_optimization"] is True


def test_both_kinds_of_compute_have_the_same_jobs() -> None:
    def without_compute(compute: str) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for kind, key, job, _ in resources(compute):
            if kind == "jobs":
                kept[key] = {k: v for k, v in job.items() if k not in ("job_clusters", "environments")}
                own = ("job_cluster_key", "environment_key", "disable_auto_optimization", "libraries")
                kept[key]["tasks"] = [{k: v for k, v in t.items() if k not in own} for t in job["tasks"]]
        return kept

    assert without_compute("serverless") == without_compute("classic")


# ------------------------------------------------------------------------------ what it hangs on


@pytest.mark.parametrize("compute", COMPUTE)
def test_every_file_it_names_is_there(compute: str) -> None:
    named = 0
    for kind, _, resource, path in resources(compute):
        if kind == "dashboards":
            assert (path.parent / resource["file_path"]).is_file()
            named += 1
        for task in resource.get("tasks", ()):
            assert (path.parent / task["spark_python_task"]["python_file"]).resolve().is_file()
            named += 1
    assert named >= 5


@pytest.mark.parametrize("compute", COMPUTE)
def test_the_wheel_it_names_is_the_one_that_is_built(compute: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wheel = f"{project['name']}-{__version__}-py3-none-any.whl"
    seen = []
    for path, tree in files(compute).items():
        for text in texts(tree):
            if text.endswith(".whl"):
                folder, _, pattern = text.rpartition("/")
                assert (path.parent / folder).resolve() == ROOT / "dist"
                assert Path(wheel).match(pattern)
                seen.append(text)
    assert seen
    assert BUNDLE["artifacts"]["raretrail"] == {"type": "whl", "build": "python -m build --wheel"}


@pytest.mark.parametrize("compute", COMPUTE)
def test_what_checks_is_pinned_as_the_project_pins_it(compute: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pinned = [text for tree in files(compute).values() for text in texts(tree) if "great-exp" in text]
    assert set(pinned) == set(extras["quality"])


@pytest.mark.parametrize("compute", COMPUTE)
def test_variables_are_all_declared_and_all_used(compute: str) -> None:
    trees = files(compute)
    used = {
        name
        for tree in trees.values()
        for text in texts(tree)
        for name in re.findall(r"\$\{var\.([^}]+)\}", text)
    }
    assert used == set(variables(compute))
    for target in BUNDLE["targets"].values():
        assert set(target.get("variables", {})) <= set(variables(compute))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("compute", COMPUTE)
def test_the_jobs_take_the_parameters_they_are_given(compute: str, target: str) -> None:
    ran = []
    for kind, _, job, _ in resources(compute):
        for task in job["tasks"] if kind == "jobs" else ():
            script = Path(task["spark_python_task"]["python_file"])
            given = [resolved(text, compute, target) for text in task["spark_python_task"]["parameters"]]
            step = re.search(r'step_main\("(\w+)"\)', (ROOT / "jobs" / script.name).read_text())
            assert step is not None
            arguments: argparse.Namespace = cli._parser().parse_args([step[1], *given])
            schema = BUNDLE["targets"][target].get("variables", {}).get("schema", "raretrail")
            assert arguments.warehouse == f"main.{schema}"
            if "city_db" in arguments and arguments.city_db:
                assert arguments.city_db == f"/Volumes/main/{schema}/geoip/GeoLite2-City.mmdb"
            ran.append(step[1])
    assert ran == ["run", "doctor", "baseline", "maintain"]


def test_a_held_run_is_not_retried_and_still_fails_the_job() -> None:
    job = next(job for kind, key, job, _ in resources("serverless") if (kind, key) == ("jobs", "raretrail"))
    run, health = job["tasks"]
    assert run["max_retries"] > 0
    assert cli._parser().parse_args(["run", *run["spark_python_task"]["parameters"]]).held_exit == 0
    assert health["max_retries"] == 0
    assert health["depends_on"] == [{"task_key": "run"}]
    arguments = cli._parser().parse_args(["doctor", *health["spark_python_task"]["parameters"]])
    assert (arguments.spark, arguments.only) == (True, ["runs"])


def test_one_run_at_a_time_every_quarter_of_an_hour() -> None:
    job = next(job for kind, key, job, _ in resources("serverless") if (kind, key) == ("jobs", "raretrail"))
    assert job["max_concurrent_runs"] == 1
    assert job["queue"] == {"enabled": False}
    assert job["schedule"] == {"quartz_cron_expression": "0 0/15 * * * ?", "timezone_id": "UTC"}
    assert job["email_notifications"]["on_failure"] == ["${var.notify}"]
    whole = sum(task["timeout_seconds"] for task in job["tasks"])
    assert whole <= job["timeout_seconds"]


def test_cron_expressions_are_of_quartz() -> None:
    found = [
        text
        for tree in files("serverless").values()
        for text in texts(tree)
        if re.fullmatch(r"[\d/*?, -]+", text) and " " in text
    ]
    assert len(found) == 5
    for text in found:
        fields = text.split()
        assert len(fields) == 6
        assert "?" in (fields[3], fields[5])


@pytest.mark.parametrize("target", ["staging", "prod"])
def test_shared_targets_run_as_a_principal_from_a_shared_path(target: str) -> None:
    tree = BUNDLE["targets"][target]
    assert tree["mode"] == "production"
    assert tree["workspace"]["root_path"].startswith("/Workspace/Shared/")
    assert tree["run_as"] == {"service_principal_name": "${var.runner}"}


# --------------------------------------------------------------------------------------- queries


def empty_tables() -> Any:
    import duckdb

    connection = duckdb.connect()
    for table in tables.ALL:
        connection.register(table.name, table.arrow_schema().empty_table())
    return connection


def test_every_widget_shows_columns_its_query_gives() -> None:
    board = json.loads((ROOT / "resources" / "raretrail.lvdash.json").read_text())
    connection = empty_tables()
    given = {
        dataset["name"]: connection.sql("".join(dataset["queryLines"])).columns
        for dataset in board["datasets"]
    }
    shown = set()
    for item in board["pages"][0]["layout"]:
        widget = item["widget"]
        query = widget["queries"][0]["query"]
        fields = {field["name"] for field in query["fields"]}
        assert fields <= set(given[query["datasetName"]]), widget["name"]
        assert all(field["expression"] == f"`{field['name']}`" for field in query["fields"])
        encodings = widget["spec"]["encodings"]
        encoded = encodings.get("columns") or list(encodings.values())
        assert {one["fieldName"] for one in encoded} == fields, widget["name"]
        shown.add(query["datasetName"])
    assert shown == set(given)


def test_widgets_fill_the_grid_without_overlap() -> None:
    board = json.loads((ROOT / "resources" / "raretrail.lvdash.json").read_text())
    taken: set[tuple[int, int]] = set()
    for item in board["pages"][0]["layout"]:
        at = item["position"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["width"])
            for y in range(at["y"], at["y"] + at["height"])
        }
        assert max(x for x, _ in cells) < 6
        assert not cells & taken
        taken |= cells


def test_alerts_look_at_a_column_their_query_gives() -> None:
    connection = empty_tables()
    alerts = [alert for kind, _, alert, _ in resources("serverless") if kind == "alerts"]
    assert len(alerts) == 3
    for alert in alerts:
        query = resolved(alert["query_text"], "serverless", "prod").replace("main.raretrail.", "")
        assert alert["evaluation"]["source"]["name"] in connection.sql(query).columns


def test_required_fields_of_alerts_are_there() -> None:
    wanted = {f.name for f in dataclasses.fields(sql.AlertV2Evaluation)}
    for kind, key, alert, _ in resources("serverless"):
        if kind == "alerts":
            assert {"display_name", "query_text", "warehouse_id", "evaluation", "schedule"} <= set(alert), key
            assert set(alert["evaluation"]) <= wanted
