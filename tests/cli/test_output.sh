#!/bin/sh
# Compares what `hone` prints with stored text.
#   test_output.sh PROGRAM CASE        one case: runs its "$ …" lines and compares all of it
#   test_output.sh PROGRAM --update    writes every case anew; read the difference before committing it
# A case is a file of blocks: "$ command", "status N", then what went to stdout and stderr, each line
# marked with its first character. Commands run in an empty directory with an empty store.
set -u
program=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
here=$(cd "$(dirname "$0")" && pwd)
data=$(cd "$here/../golden/data" && pwd) # small models, as $DATA
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin" "$work/empty"
ln -s "$program" "$work/bin/hone"

play() { # CASE FILE: the case as it is now, on stdout
    rm -rf "$work/home" && mkdir "$work/home"
    grep '^\$ ' "$1" | while IFS= read -r line; do
        (cd "$work/empty" && env -i PATH="$work/bin:/usr/bin:/bin" HOME="$work/home" LC_ALL=C DATA="$data" \
            ASAN_OPTIONS="${ASAN_OPTIONS-}" sh -c "${line#\$ }" >"$work/out" 2>"$work/err" </dev/null)
        status=$?
        printf '%s\nstatus %d\n' "$line" "$status"
        sed -e "s|$work|WORK|g" -e "s|$data|DATA|g" -e 's/^/| /' "$work/out"
        sed -e "s|$work|WORK|g" -e "s|$data|DATA|g" -e 's/^/! /' "$work/err"
        rm -rf "$work/empty" && mkdir "$work/empty"
    done
}

if [ "$2" = --update ]; then
    for case in "$here"/cases/*; do
        play "$case" >"$work/now" && cp "$work/now" "$case"
    done
    exit 0
fi
play "$2" >"$work/now"
if ! diff -u "$2" "$work/now"; then
    echo "The output differs from $2; if that is meant, run $0 $program --update." >&2
    exit 1
fi
