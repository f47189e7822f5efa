#!/bin/sh
# Configures and builds one directory; fast when nothing changed.
#   tools/build.sh DIRECTORY [cmake options]
set -eu
cd "$(dirname "$0")/.."
directory=$1
shift
mkdir -p "$(dirname "$directory")"
cmake -G Ninja -S . -B "$directory" "$@" >"$directory.log" 2>&1 || { cat "$directory.log"; exit 1; }
cmake --build "$directory" >"$directory.log" 2>&1 || { tail -n 60 "$directory.log"; exit 1; }
rm -f "$directory.log"
