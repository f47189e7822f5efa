#!/bin/sh
# SIGINT and SIGTERM save the run and leave with 130; it goes on with --resume and ends as a run that was never
# stopped: the adapter has the same bytes.
#   test_interrupt.sh PROGRAM
set -eu
program=$1
model=$(cd "$(dirname "$0")/../golden/data/llama-tied" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
HONE_HOME=$work/home
export HONE_HOME
set -- --device ref --model "$model" --data "$model/rows.jsonl" --batch-size 2 --max-steps 60 --epochs 60 --save-every 50

"$program" train "$@" --output "$work/whole" >/dev/null
for signal in INT TERM; do
    run=$work/run-$signal
    # A shell without job control lets what it puts in the background ignore SIGINT; the program takes it all the same.
    "$program" train "$@" --output "$run" >"$work/log" 2>&1 &
    process=$!
    tries=0
    while ! grep -q '"event":"step".*"step":2,' "$run/events.jsonl" 2>/dev/null; do
        tries=$((tries + 1))
        if [ $tries -gt 600 ]; then
            echo "no step after a minute" >&2
            exit 1
        fi
        sleep 0.1
    done
    kill -s $signal $process
    kill -s TERM $process 2>/dev/null || true # at once again, as `timeout` and other wrappers do
    status=0
    wait $process || status=$?
    if [ $status != 130 ]; then
        echo "SIG$signal: status $status, not 130" >&2
        cat "$work/log" >&2
        exit 1
    fi
    [ -n "$(ls "$run/checkpoints")" ] || { echo "SIG$signal: nothing was saved" >&2; exit 1; }
    "$program" train --resume --output "$run" >/dev/null
    cmp "$run/adapter/adapter_model.safetensors" "$work/whole/adapter/adapter_model.safetensors"
done
