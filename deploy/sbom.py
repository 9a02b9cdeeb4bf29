#!/usr/bin/env python3
"""Prints the software bill of materials of the program, as CycloneDX JSON: the crates that it is built from, and libtorch."""

import json
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOST = re.search(r"^host: (.+)$", subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout, re.M)[1]


def crates():
    """The packages of the program, without those that only tests or build scripts need."""
    command = ["cargo", "metadata", "--locked", "--format-version=1", "--all-features", "--filter-platform", HOST]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    waiting = [id for id, package in packages.items() if package["name"] == "millrace-cli" and not package["source"]]
    found = set(waiting)
    while waiting:
        for dependency in nodes[waiting.pop()]["deps"]:
            if dependency["pkg"] not in found and any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                found.add(dependency["pkg"])
                waiting.append(dependency["pkg"])
    return sorted((packages[id] for id in found), key=lambda package: (package["name"], package["version"]))


def component(package):
    name, version = package["name"], package["version"]
    return {
        "type": "library",
        "name": name,
        "version": version,
        "licenses": [{"expression": package["license"].replace("/", " OR ")}] if package["license"] else [],
        "purl": f"pkg:cargo/{name}@{version}",
    }


def wheels():
    """What scripts/libtorch.sh fetches."""
    script = (ROOT / "scripts" / "libtorch.sh").read_text(encoding="utf-8")
    names = {"TORCH": "torch", "CUDA_RUNTIME": "nvidia-cuda-runtime", "CUDA_CUPTI": "nvidia-cuda-cupti"}
    for variable, name in names.items():
        version = re.search(rf"^{variable}=(.+)$", script, re.M)[1]
        yield {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}


packages = crates()
version = next(package["version"] for package in packages if package["name"] == "millrace-cli")
print(json.dumps({
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "version": 1,
    "metadata": {"component": {"type": "application", "name": "millrace", "version": version}},
    "components": [component(package) for package in packages] + list(wheels()),
}, indent=1))
