#!/bin/sh
# docs/settings.md is what `hone settings --markdown` writes.
#   test_document.sh PROGRAM DOCUMENT
set -eu
"$1" settings --markdown | diff -u "$2" - || {
    echo "Write it anew: hone settings --markdown >docs/settings.md" >&2
    exit 1
}
