#!/usr/bin/env bash
# Checks the Helm chart in deploy/chart:
#
# - `helm lint`, and `helm template` with each file of deploy/chart/tests/values. The objects must equal the committed ones in
#   deploy/chart/tests/snapshots; `chart.sh --update` writes these.
# - kubeconform checks each object strictly, against schemas made from the OpenAPI document of Kubernetes and from the CRDs of
#   KEDA, the Prometheus operator, Karpenter and cert-manager. Go fetches these modules.
# - scripts/chart.py checks the pods by the Pod Security Standard `restricted`, and looks for passwords outside of Secrets.
# - `millrace config check` accepts each rendered configuration, if the program has been built.
# - Each file of deploy/chart/tests/refused must be refused with the text of its first line.
#
# The tools and schemas are in the cache folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

KUBERNETES=k8s.io/kubernetes@v1.36.3
CRDS=(
    github.com/kedacore/keda/v2@v2.21.0:config/crd/bases/
    github.com/prometheus-operator/prometheus-operator@v0.85.0:example/prometheus-operator-crd/
    sigs.k8s.io/karpenter@v1.15.0:pkg/apis/crds/
    github.com/cert-manager/cert-manager@v1.21.2:deploy/crds/
)
PYYAML=6.0.3

log() { echo "chart: $*"; }
fail() { echo "chart: $*" >&2; exit 1; }

update=
case "$#:${1:-}" in 0:) ;; 1:--update) update=1 ;; *) fail "usage: chart.sh [--update]" ;; esac

cache=${MILLRACE_CACHE:-$PWD/.cache}
mkdir -p "$cache/chart"
cache=$(cd "$cache" && pwd)
helm=$(scripts/go-tool.sh helm)
kubeconform=$(scripts/go-tool.sh kubeconform)
export PYTHONPATH=$cache/chart/pyyaml-$PYYAML
[ -d "$PYTHONPATH" ] || scripts/pip-target.sh "$PYTHONPATH" "PyYAML==$PYYAML"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

# Prints the path of a module's zip. Go checks it against the checksum database. A module that demands a newer Go is only
# fetched, so that error does not matter.
zip_of() {
    { go mod download -json "$1" 2>/dev/null || true; } | sed -n 's/^\t"Zip": "\(.*\)",$/\1/p'
}

# The name of the folder depends on the versions and on the program that makes the schemas.
schemas=$cache/chart/schemas-$(printf '%s\n' "$KUBERNETES" "${CRDS[@]}" | cat - scripts/chart-schemas.py | sha256sum | cut -c1-12)
if [ ! -d "$schemas" ]; then
    command -v go >/dev/null || fail "Go is needed to fetch the schemas: https://go.dev/doc/install"
    log "fetching the schemas into $schemas"
    arguments=()
    for source in "$KUBERNETES:api/openapi-spec/swagger.json" "${CRDS[@]}"; do
        zip=$(cd "$work" && zip_of "${source%%:*}")
        [ -n "$zip" ] || fail "go could not fetch ${source%%:*}"
        arguments+=("$zip:${source%%:*}/${source#*:}")
    done
    python3 scripts/chart-schemas.py "$work/schemas" "${arguments[@]}"
    mv -T "$work/schemas" "$schemas"
fi

chart=deploy/chart
render() { "$helm" template millrace "$chart" --namespace inference --kube-version 1.36.3 --values "$1"; }

rm -rf "$work/rendered"
mkdir "$work/rendered"
for values in "$chart"/tests/values/*.yaml; do
    name=$(basename "$values")
    "$helm" lint "$chart" --quiet --strict --values "$values"
    # The password of the chart's Redis is random unless it is given.
    render "$values" | sed -E 's/(password: |requirepass |redis:\/\/:)("?)[A-Za-z0-9]{32}\b/\1\2RANDOM/' >"$work/rendered/$name"
done
log "helm lint and helm template: $(ls "$work/rendered" | wc -l) value files"

"$kubeconform" -strict -summary -schema-location "$schemas/{{.ResourceKind}}{{.KindSuffix}}.json" "$work"/rendered/*.yaml

program=${CARGO_TARGET_DIR:-$cache/target}/release/millrace
if [ -x "$program" ]; then
    python3 scripts/chart.py --program "$program" "$work"/rendered/*.yaml
else
    python3 scripts/chart.py "$work"/rendered/*.yaml
    log "NOT checked: the rendered configurations, because $program does not exist; make build"
fi

for values in "$chart"/tests/refused/*.yaml; do
    expected=$(sed -n '1s/^# //p' "$values")
    if render "$values" >"$work/output" 2>&1; then
        fail "$values is accepted, and should be refused with: $expected"
    fi
    grep -qF -- "$expected" "$work/output" || fail "$values is refused without the text: $expected
$(cat "$work/output")"
done
log "refused as expected: $(ls "$chart"/tests/refused | wc -l) value files"

if [ -n "$update" ]; then
    mkdir -p "$chart/tests/snapshots"
    cp "$work"/rendered/*.yaml "$chart/tests/snapshots/"
    log "wrote $chart/tests/snapshots"
else
    diff -ru "$chart/tests/snapshots" "$work/rendered" || fail "the chart renders other objects than the committed ones; \
if that is right, run scripts/chart.sh --update"
    log "the objects equal the snapshots"
fi
