#!/bin/sh
# What is said, and with which exit status, where no GPU can be opened: a driver that is too old, one that finds no
# GPU, and devices that are none.
#   test_driver.sh PROGRAM MODULES STUBS MODEL     STUBS: old/libcuda.so.1 and new/libcuda.so.1 (stub_driver.c)
set -u
program=$1 stubs=$3 model=$4 failed=0
export HONE_MODULES=$2

# expect STATUS DRIVER DEVICE WORDS…: one line on standard error, of these words, and nothing made
expect() {
    status=$1 driver=$2 device=$3
    shift 3
    out=$(mktemp -d)
    said=$(LD_LIBRARY_PATH="$stubs/$driver" "$program" train --device "$device" --model "$model" --data "$model/rows.jsonl" --output "$out/run" 2>&1 >/dev/null)
    got=$?
    [ $got = "$status" ] || { echo "$driver $device: exit status $got instead of $status"; failed=1; }
    [ "$(echo "$said" | wc -l)" = 1 ] || { echo "$driver $device: not one line: $said"; failed=1; }
    for word in "$@"; do
        case $said in *"$word"*) ;; *) echo "$driver $device: no \"$word\" in: $said"; failed=1 ;; esac
    done
    [ ! -e "$out/run" ] || { echo "$driver $device: an output directory was left"; failed=1; }
    rm -rf "$out"
}

expect 1 old cuda "too old" "CUDA 12.0, not 13" "driver 580"
expect 1 old cuda:7 "too old"
expect 1 new cuda "no NVIDIA GPU" "CUDA_VISIBLE_DEVICES"
expect 2 new cuda:-1 'no device "cuda:-1"' "--device"
expect 2 new cuda:x 'no device "cuda:x"' "--device"
exit $failed
