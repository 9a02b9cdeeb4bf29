#!/usr/bin/env bash
# Checks rules, alerts and dashboards: promtool parses every expression and runs the tests of deploy/chart/tests/rules.test.yaml.
# scripts/monitoring.py compares the names of metrics with those in the code and in docs/metrics.md, and looks for the page of
# each alert. The dashboards must be those that scripts/dashboards.py writes; `monitoring.sh --update` writes them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "$#:${1:-}" in
    0:) ;;
    1:--update) python3 scripts/dashboards.py deploy/chart/dashboards ;;
    *) echo "usage: monitoring.sh [--update]" >&2; exit 2 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
promtool=$(scripts/go-tool.sh promtool)

"$promtool" check rules --lint=all --lint-fatal deploy/chart/rules/millrace.yaml
"$promtool" test rules deploy/chart/tests/rules.test.yaml

mkdir "$work/dashboards"
python3 scripts/dashboards.py "$work/dashboards"
diff -ru deploy/chart/dashboards "$work/dashboards" || {
    echo "monitoring: the dashboards differ from scripts/dashboards.py; run scripts/monitoring.sh --update" >&2
    exit 1
}
# Each query of a panel as a rule, so that promtool parses it.
python3 scripts/monitoring.py "$work/panels.yaml"
"$promtool" check rules "$work/panels.yaml"
