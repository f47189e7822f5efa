#!/bin/sh
# Installs a build into a temporary prefix and uses it from there, as a stranger would: pkg-config, the
# shared and the static library, the man page, and examples/embed.c.
#   test_install.sh BUILD_DIRECTORY
# With HONE_TEST_MODEL (a GGUF file or a directory) the example runs too: it trains, cancels, resumes and generates.
set -eu
build=$(cd "$1" && pwd)
source=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/prefix" >"$work/install.log"
prefix=$work/prefix

say() { echo "install: $*"; }
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name hone.pc)")
LD_LIBRARY_PATH=$(dirname "$(find "$prefix" -name 'libhone.so' -o -name 'libhone.dylib' | head -n 1)")
export PKG_CONFIG_PATH LD_LIBRARY_PATH
# The library of the tests is not among what tools/install.sh build brings.
printf '#!/bin/sh\ncase "$*" in *cmocka*) exit 1 ;; esac\nexec pkg-config "$@"\n' >"$work/pkg-config-bare"
chmod +x "$work/pkg-config-bare"
cmake -S "$source" -B "$work/bare" -DPKG_CONFIG_EXECUTABLE="$work/pkg-config-bare" >"$work/bare.log" 2>&1 ||
    { say "what tools/install.sh build brings is not enough to build"; tail -n 20 "$work/bare.log"; exit 1; }
# A jansson that lacks what is called is refused by its version, before anything is compiled.
mkdir "$work/old"
printf 'Name: jansson\nDescription: JSON\nVersion: 2.13.1\n' >"$work/old/jansson.pc"
if PKG_CONFIG_PATH="$work/old" cmake -S "$source" -B "$work/aged" >"$work/aged.log" 2>&1; then
    say "an old jansson is taken"
    exit 1
fi
grep -q 'jansson>=2.14' "$work/aged.log" || { say "an old jansson is not what is told"; tail -n 20 "$work/aged.log"; exit 1; }
[ -f "$(find "$prefix" -name hone.1)" ] || { say "the man page is missing"; exit 1; }
[ "$("$prefix/bin/hone" --version)" = "hone $(pkg-config --modversion hone)" ] || { say "versions differ"; exit 1; }

# shellcheck disable=SC2046  # flags are words
${CC:-cc} -std=c17 -Wall -Wextra -Werror "$source/examples/embed.c" -o "$work/embed" $(pkg-config --cflags --libs hone)
# shellcheck disable=SC2046
${CC:-cc} -std=c17 -Wall -Wextra -Werror "$source/examples/embed.c" -o "$work/embed_static" \
    $(pkg-config --cflags hone) "$LD_LIBRARY_PATH/libhone.a" $(pkg-config --static --libs hone | sed 's/-lhone//')
say "examples/embed.c is built against the shared and the static library"
if [ -z "${HONE_TEST_MODEL-}" ]; then
    say "HONE_TEST_MODEL is not set: the example was not run"
    exit 0
fi
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
    printf '{"prompt":"What is %d?","completion":" A number, %d."}\n' $i $i
done >"$work/rows.jsonl"
for program in embed embed_static; do
    "$work/$program" "$HONE_TEST_MODEL" "$work/rows.jsonl" "$work/run-$program"
    [ -f "$work/run-$program/adapter/adapter_model.safetensors" ] || { say "$program left no adapter"; exit 1; }
done
say "both trained, were cancelled, went on and generated"
