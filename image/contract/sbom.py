"""Writes the image's list of materials as CycloneDX 1.6: system packages, Rust crates, Python packages.

The lists come from what the image was built from (the package list that `base.sh` took before it removed dpkg's files,
or the manifest of Buildroot's legal-info; `Cargo.lock`; `requirements.txt`), not from a guess at its files.
The same input gives the same bytes.
"""

import argparse
import csv
import hashlib
import json
import re
import tomllib
import uuid
from pathlib import Path
from typing import Any

Component = dict[str, Any]


def debian(path: Path) -> list[Component]:
    """From lines `name, version, architecture, source, source version`, parted by tabs."""
    found: list[Component] = []
    for line in path.read_text().splitlines():
        name, version, arch, source, source_version = line.split("\t")
        purl = f"pkg:deb/debian/{name}@{quoted(version)}?arch={arch}&distro=debian-13"
        properties = [{"name": "debian:source", "value": f"{source} {source_version}"}]
        found.append(component("library", name, version, purl) | {"properties": properties})
    return found


def buildroot(path: Path) -> list[Component]:
    """From `manifest.csv` of Buildroot's legal-info."""
    found: list[Component] = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            name, version = row["PACKAGE"], row["VERSION"]
            made = component("library", name, version, f"pkg:generic/{name}@{quoted(version)}")
            if row.get("LICENSE"):
                made["licenses"] = [{"license": {"name": row["LICENSE"]}}]
            found.append(made)
    return found


def crates(path: Path) -> list[Component]:
    """From Cargo.lock."""
    found: list[Component] = []
    for package in tomllib.loads(path.read_text())["package"]:
        name, version = package["name"], package["version"]
        purl = f"pkg:cargo/{name}@{quoted(version)}" if "source" in package else f"pkg:generic/arint/{name}@{version}"
        made = component("library", name, version, purl)
        if "checksum" in package:
            made["hashes"] = [{"alg": "SHA-256", "content": package["checksum"]}]
        found.append(made)
    return found


def python(path: Path) -> list[Component]:
    """From a requirements file with exact versions."""
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", path.read_text(), re.MULTILINE)
    return [component("library", name, version, f"pkg:pypi/{name.lower()}@{version}") for name, version in pins]


def component(kind: str, name: str, version: str, purl: str) -> Component:
    """One entry."""
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def quoted(text: str) -> str:
    """A version as it may stand in a package URL."""
    return text.replace("%", "%25").replace("+", "%2B").replace(":", "%3A").replace("~", "%7E")


def main() -> None:
    """Reads the lists and prints the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, help="package list of the Debian base")
    parser.add_argument("--buildroot", type=Path, help="manifest.csv of Buildroot's legal-info")
    parser.add_argument("--cargo-lock", type=Path, required=True)
    parser.add_argument("--requirements", type=Path, required=True)
    parser.add_argument("--version", required=True)
    args = parser.parse_args()

    found = debian(args.packages) if args.packages else []
    found += buildroot(args.buildroot) if args.buildroot else []
    found += crates(args.cargo_lock) + python(args.requirements)
    # Two entries of one name would be one to every reader.
    unique = {entry["bom-ref"]: entry for entry in found}
    components = [unique[key] for key in sorted(unique)]
    digest = hashlib.sha256(json.dumps([args.version, components], sort_keys=True).encode()).hexdigest()
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest)}",
        "version": 1,
        "metadata": {"component": component("operating-system", "arint", args.version, f"pkg:generic/arint@{args.version}")},
        "components": components,
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
