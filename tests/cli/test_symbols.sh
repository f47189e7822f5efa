#!/bin/sh
# The shared library exports exactly the committed list.
#   test_symbols.sh LIBRARY
set -eu
here=$(cd "$(dirname "$0")" && pwd)
nm -D --defined-only "$1" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | grep -v '^_\(init\|fini\|edata\|end\|_bss_start\)$' | LC_ALL=C sort |
    diff -u "$here/symbols.txt" -
