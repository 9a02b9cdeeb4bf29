#!/bin/sh
# Checks that comments, documents and messages use plain English. The subject is a process, not a person. The verb is
# the field's verb (log, report, return, publish, notify), not "say", "tell" or "hear". docs/glossary.md has the words.
#
#   scripts/plain-english.sh [--list] [FOLDER...]
#
# Prints each family of words with its count per 1,000 comment lines, and exits with 1 where one is above the limit.
# --list prints every place. In code, comment lines and string literals are read; in Markdown, all lines.
set -eu
cd "$(dirname "$0")/.."

LIMIT=2

list=0
if [ "${1:-}" = --list ]; then
    list=1
    shift
fi

git ls-files --cached --others --exclude-standard -- "${@:-.}" |
    grep -E '\.(rs|lua|md|sh|py|toml|ya?ml|proto)$|(^|/)(Makefile|[^/]*Containerfile)$|^\.ci/run$' |
    grep -vE '^(LICENSE|scripts/plain-english\.sh|proto/proto/)' |
    while IFS= read -r file; do [ -f "$file" ] && printf '%s\n' "$file"; done |
    tr '\n' '\0' |
    xargs -0 awk -v list="$list" -v limit="$LIMIT" '
        # The text of a line that a reader sees: a comment, or what stands in double quotes.
        function prose(line,    text, comment) {
            if (FILENAME ~ /\.md$/) { lines++; return line }
            comment = (FILENAME ~ /\.rs$/) ? "//" : (FILENAME ~ /\.lua$/) ? "--" : "#"
            text = ""
            if (match(line, "(^|[ \t])" comment ".*")) {
                text = substr(line, RSTART, RLENGTH)
                line = substr(line, 1, RSTART - 1)
                lines++
            }
            while (match(line, /"[^"]*"/)) {
                if (substr(line, RSTART, RLENGTH) ~ / /) text = text " " substr(line, RSTART, RLENGTH)
                line = substr(line, RSTART + RLENGTH)
            }
            return text
        }
        function count(family, words, text,    rest) {
            rest = " " tolower(text) " "
            while (match(rest, "[^a-z_]" words "[^a-z_]")) {
                found[family]++
                if (list) print FILENAME ":" FNR ": " family ":" substr(rest, RSTART, RLENGTH) "| " $0
                rest = substr(rest, RSTART + RLENGTH - 1)
            }
        }
        {
            text = prose($0)
            if (text == "") next
            count("persons", "(who|whoever|whom|nobody|anybody|somebody|everybody|anyone|someone|everyone)", text)
            count("speech", "(say|says|said|saying|tell|tells|told|telling|hear|hears|heard|hearing)", text)
        }
        END {
            split("persons speech", families, " ")
            for (i = 1; i <= 2; i++) {
                family = families[i]
                rate = lines ? 1000 * found[family] / lines : 0
                printf "%s: %d in %d lines, %.1f per 1,000 (at most %s)\n", family, found[family], lines, rate, limit
                if (rate > limit) failed = 1
            }
            exit failed
        }'
