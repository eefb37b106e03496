"""Writes the bill of materials of what raretrail installs and fetches, as CycloneDX JSON.

    .venv/bin/python tools/sbom.py [--out FILE]

Names, versions and hashes are those locked in requirements/run.txt; licences and who needs whom come from
what is installed here; Delta's jars are those `runtime.py` fetches. The same inputs give the same bytes.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from raretrail import __version__
from raretrail.runtime import DELTA_JARS, S3_JARS, SPARK_SERIES

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "run.txt"


def _cyclonedx(*arguments: str) -> dict[str, Any]:
    """What cyclonedx-py says."""
    common = ["--pyproject", str(ROOT / "pyproject.toml"), "--sv", "1.6", "--output-reproducible"]
    done = subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", *arguments, *common],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    tree: dict[str, Any] = json.loads(done.stdout)
    return tree


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def make_sbom() -> dict[str, Any]:
    """The bill: every locked package, every jar, raretrail itself at the root."""
    locked = _cyclonedx("requirements", str(LOCK))
    here = _cyclonedx("environment", sys.executable)
    installed = {_key(c["name"]): c for c in here["components"]}
    old_refs, components = {}, []
    for component in locked["components"]:
        component["bom-ref"] = component["purl"]
        component.pop("description", None)
        known = installed.get(_key(component["name"]), {})
        # Another platform's package, or another version than the locked one, is told without licence.
        if known.get("version") == component["version"]:
            component |= {key: known[key] for key in ("licenses", "description") if key in known}
            old_refs[known["bom-ref"]] = component["bom-ref"]
        components.append(component)
    for (group, name, version), digest in (DELTA_JARS[SPARK_SERIES] | S3_JARS).items():
        purl = f"pkg:maven/{group}/{name}@{version}"
        components.append(
            {
                "bom-ref": purl, "type": "library", "group": group, "name": name, "version": version,
                "purl": purl, "hashes": [{"alg": "SHA-256", "content": digest}],
            }
        )  # fmt: skip
    root = here["metadata"]["component"]
    root |= {"version": __version__, "purl": f"pkg:pypi/raretrail@{__version__}"}
    needs = {}
    for one in here["dependencies"]:
        ref = root["bom-ref"] if one["ref"] == root["bom-ref"] else old_refs.get(one["ref"])
        if ref:
            needs[ref] = sorted(old_refs[on] for on in one.get("dependsOn", ()) if on in old_refs)
    needs[root["bom-ref"]] = sorted({*needs.get(root["bom-ref"], ()), *_jar_refs()})
    return {
        **here,
        "components": sorted(components, key=lambda c: str(c["bom-ref"])),
        "dependencies": [{"ref": ref, "dependsOn": needs[ref]} for ref in sorted(needs)],
    }


def _jar_refs() -> list[str]:
    jars = DELTA_JARS[SPARK_SERIES] | S3_JARS
    return [f"pkg:maven/{group}/{name}@{version}" for group, name, version in jars]


def main() -> int:
    """Write it; 0."""
    parser = argparse.ArgumentParser(description="Write the bill of materials.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / f"raretrail-{__version__}.cdx.json")
    out: Path = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    sbom = make_sbom()
    out.write_text(json.dumps(sbom, indent=2) + "\n", encoding="utf-8")
    print(f"{out}: {len(sbom['components'])} components")
    return 0


if __name__ == "__main__":
    sys.exit(main())
