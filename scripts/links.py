#!/usr/bin/env python3
"""Checks the documents: relative links, headings that links name, pages of the book, and paths in code spans.

    scripts/links.py

A page of the book (docs) may link only to pages of the book, because mdBook copies no other file. A code span that
begins with a folder of this repository, such as `queue/src/broker.rs`, must name a file or folder that exists.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BOOK = ROOT / "docs"

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+\s+(.+?)\s*$", re.MULTILINE)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
PLACEHOLDER = re.compile(r"[A-Z]{2,}|[*{}<>…?$|]|\s")


def anchor(heading):
    """The anchor that GitHub and mdBook give to a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", text))


def faults(document, folders):
    """Each fault of a document, as text."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    is_page = BOOK in document.parents
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists():
            yield f"{target}: does not exist"
        elif is_page and BOOK not in file.parents:
            yield f"{target}: is outside the book; name its path in a code span"
        elif fragment and fragment not in map(anchor, HEADING.findall(FENCE.sub("", file.read_text(encoding="utf-8")))):
            yield f"{target}: has no such heading"
    for span in CODE_SPAN.findall(text):
        is_path = span.split("/")[0] in folders and "/" in span and not PLACEHOLDER.search(span)
        if is_path and not (ROOT / span.split("::")[0]).exists():
            yield f"`{span}`: does not exist"


def main():
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    folders = {file.split("/")[0] for file in files if "/" in file}
    documents = sorted(ROOT / file for file in files if file.endswith(".md") and (ROOT / file).exists())
    found = [f"{document.relative_to(ROOT)}: {fault}" for document in documents for fault in faults(document, folders)]
    summary = (BOOK / "SUMMARY.md").read_text(encoding="utf-8")
    linked = {(BOOK / target).resolve() for target in LINK.findall(summary)} | {BOOK / "SUMMARY.md"}
    found += [f"{page.relative_to(ROOT)}: SUMMARY.md does not list it" for page in documents
              if BOOK in page.parents and page not in linked]
    print("\n".join(found) or f"links: {len(documents)} documents without a fault")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
