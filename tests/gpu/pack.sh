#!/bin/sh
# Gathers what the tests on a GPU need into one folder, which runs on another machine of the same processor family:
# the program, the module, the tests, the libraries that they link, the small models, the scripts.
#   tests/gpu/pack.sh BUILD FOLDER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd)
mkdir -p "$2"
folder=$(cd "$2" && pwd)
mkdir -p "$folder/bin" "$folder/lib" "$folder/tests/golden" "$folder/tests/e2e"
cp "$build/hone" "$build/libhone_cuda.so" "$folder/bin/"
cp "$build/tests/test_device_ops" "$build/tests/test_golden_models" "$folder/bin/"
strip "$folder"/bin/*
# Not the system's own, which are everywhere.
ldd "$folder"/bin/* | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | grep -E 'jansson|pcre2|utf8proc|fyaml|xxhash|cmocka' | sort -u |
    xargs -I{} cp -L {} "$folder/lib/"
cp -r "$here/../golden/data" "$here/../golden/variants" "$here/../golden/full" "$folder/tests/golden/"
cp "$here/run_all.sh" "$here/make_model.py" "$here/../perf/trace_table.py" "$here/run_line.py" "$here/plan_line.py" "$folder/"
cp -r "$here/../perf" "$folder/tests/"
cp "$here/../golden/hundred_losses.py" "$folder/tests/golden/"
ln -sfn .. "$folder/tests/gpu" # where the scripts of perf/gpu look for make_model.py
cp "$here/../e2e/ranks.py" "$here/../e2e/cases.py" "$folder/tests/e2e/"
du -sh "$folder"
