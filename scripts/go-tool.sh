#!/usr/bin/env bash
# Prints the path of a program that is written in Go: helm, kubeconform or promtool. Builds it into the cache folder if it is
# missing. The versions stand here, and Go checks each module against its public checksum database.
#
#   scripts/go-tool.sh NAME
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${MILLRACE_CACHE:-$root/.cache}
flags=()
case ${1:-} in
    helm) package=helm.sh/helm/v4/cmd/helm version=v4.3.1 ;;
    kubeconform) package=github.com/yannh/kubeconform/cmd/kubeconform version=v0.8.0 ;;
    # Without this tag, the clients of a dozen clouds are compiled too.
    promtool) package=github.com/prometheus/prometheus/cmd/promtool version=v0.316.0 flags=(-tags remove_all_sd) ;;
    *) echo "usage: go-tool.sh helm|kubeconform|promtool" >&2; exit 2 ;;
esac
folder=$cache/tools/go/$1@$version
if [ ! -x "$folder/$1" ]; then
    command -v go >/dev/null || { echo "go-tool: $1 needs Go 1.26 or later: https://go.dev/doc/install" >&2; exit 1; }
    echo "go-tool: building $1 $version into $folder (some minutes, once)" >&2
    mkdir -p "$folder"
    # The program is moved at the end, so an interrupted run leaves no incomplete one.
    partial=$(mktemp -d "$folder/partial.XXXXXX")
    trap 'rm -rf "$partial"' EXIT
    GOBIN=$partial CGO_ENABLED=0 GOFLAGS=-buildvcs=false go install -trimpath -ldflags "-s -w" "${flags[@]}" "$package@$version" >&2
    mv "$partial/$1" "$folder/$1"
fi
echo "$folder/$1"
