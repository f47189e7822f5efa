#!/bin/sh
# Installs what a step needs and says so first. Nothing is asked for twice: what is there is left alone.
#   tools/install.sh build|check        check: what build has, and the tools of the tests
set -eu
need=${1:-build}

debian_build="gcc libc6-dev cmake ninja-build pkg-config python3 python3-venv ca-certificates
  libjansson-dev libpcre2-dev libutf8proc-dev libfyaml-dev libxxhash-dev liblapacke-dev libopenblas-serial-dev"
debian_check="g++ libcmocka-dev clang clang-format locales"
brew_build="cmake ninja pkg-config python jansson pcre2 utf8proc libfyaml xxhash openblas"
brew_check="cmocka clang-format"

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

if command -v apt-get >/dev/null; then
    wanted=$debian_build
    [ "$need" = build ] || wanted="$wanted $debian_check"
    missing=
    for package in $wanted; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || exit 0
    echo "Installing with apt-get:$missing"
    as_root apt-get -q update
    # shellcheck disable=SC2086  # a list of words
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends $missing
elif command -v brew >/dev/null; then
    wanted=$brew_build
    [ "$need" = build ] || wanted="$wanted $brew_check"
    missing=
    for package in $wanted; do
        brew list --versions "$package" >/dev/null 2>&1 || missing="$missing $package"
    done
    [ -n "$missing" ] || exit 0
    echo "Installing with Homebrew:$missing"
    # shellcheck disable=SC2086
    brew install $missing
else
    echo "Neither apt-get nor brew is here. hone needs a C compiler, cmake, ninja, pkg-config, python3 and the" >&2
    echo "development files of jansson, pcre2, utf8proc, libfyaml, xxhash, LAPACKE and OpenBLAS." >&2
    exit 1
fi
