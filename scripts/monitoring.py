#!/usr/bin/env python3
"""Checks that rules, dashboards and docs/metrics.md name metrics of the code, and that each alert has a page.

    monitoring.py FILE

Writes the queries of all panels into FILE as recording rules, for promtool.
"""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy" / "chart"
NAME = re.compile(r"(?<![\w:])millrace_[a-z0-9_]+(?![\w:])")
SERIES = re.compile(r"_(bucket|sum|count)$")


def metrics_of_code():
    files = subprocess.run(["git", "ls-files", "*.rs"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = ((ROOT / file).read_text(encoding="utf-8") for file in files.split() if not file.startswith("tests/"))
    return {name for text in texts for name in re.findall(r'^(?:pub )?const \w+: &str = "((?:millrace|process)_[a-z_]+)";', text, re.M)}


def unknown(text, known):
    """Names in the text that are neither a metric nor a series of a histogram."""
    for name in sorted(set(NAME.findall(text))):
        if name not in known and SERIES.sub("", name) not in known:
            yield name


def main(output):
    known = metrics_of_code()
    faults = []
    table = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(\w+)` \|", table, re.M))
    faults += [f"docs/metrics.md: {name} is missing" for name in sorted(known - rows)]
    faults += [f"docs/metrics.md: {name} is not in the code" for name in sorted(rows - known)]

    rules = (CHART / "rules" / "millrace.yaml").read_text(encoding="utf-8")
    faults += [f"rules: {name} is not in the code" for name in unknown(rules, known)]
    tested = (CHART / "tests" / "rules.test.yaml").read_text(encoding="utf-8")
    index = (ROOT / "docs" / "runbooks" / "index.md").read_text(encoding="utf-8")
    summary = (ROOT / "docs" / "SUMMARY.md").read_text(encoding="utf-8")
    for alert in re.split(r"^ +- alert: ", rules, flags=re.M)[1:]:
        name = alert.split("\n", 1)[0]
        page = re.search(r"runbook_url: \S+/docs/(runbooks/\S+)", alert)
        if not page or not (ROOT / "docs" / page[1]).is_file():
            faults.append(f"rules: {name} has no page in docs/runbooks")
        elif f"({page[1]})" not in summary:
            faults.append(f"docs/SUMMARY.md: {page[1]} is missing")
        if f"`{name}`" not in index:
            faults.append(f"docs/runbooks/index.md: {name} is missing")
        if not re.search(rf"alertname: {name}\n\s+exp_alerts", tested):
            faults.append(f"rules.test.yaml: no test lets {name} fire")

    lines = ["groups:", "  - name: panels", "    rules:"]
    for file in sorted((CHART / "dashboards").glob("*.json")):
        text = file.read_text(encoding="utf-8")
        faults += [f"{file.name}: {name} is not in the code" for name in unknown(text.replace("millrace-", ""), known)]
        for panel in json.loads(text)["panels"]:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "5m").replace("$namespace", "a").replace("$pool", "p")
                lines += [f"      - record: panel_{file.stem}_{panel['id']}_{target['refId']}", f"        expr: {json.dumps(query)}"]
    pathlib.Path(output).write_text("\n".join(lines) + "\n", encoding="utf-8")

    for fault in faults:
        print(f"monitoring: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)
    print(f"monitoring: {len(known)} metrics, each in docs/metrics.md; all rules and panels use these")


main(*sys.argv[1:])
