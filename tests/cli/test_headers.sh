#!/bin/sh
# Each public header compiles alone: as C99 and later, and as C++, without a warning.
#   test_headers.sh INCLUDE_DIRECTORY
set -eu
include=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for header in "$include"/hone/*.h; do
    name=hone/$(basename "$header")
    for standard in c99 c17; do
        printf '#include <%s>\nint alone;\n' "$name" >"$work/alone.c"
        ${CC:-cc} -std=$standard -pedantic -Wall -Wextra -Wstrict-prototypes -Werror -I"$include" -c "$work/alone.c" -o "$work/alone.o"
    done
    if command -v "${CXX:-c++}" >/dev/null; then
        printf '#include <%s>\nint alone;\n' "$name" >"$work/alone.cpp"
        ${CXX:-c++} -std=c++11 -pedantic -Wall -Wextra -Werror -I"$include" -c "$work/alone.cpp" -o "$work/alone.o"
    else
        echo "no C++ compiler: $name was not compiled as C++"
    fi
done
