#!/bin/sh
# Every test that needs a GPU, on a machine that has one: prints one table at the end; logs lie in OUT.
#   run_all.sh FOLDER OUT [STAGE…]      FOLDER: what pack.sh made. Stages: all of them where none is named
# Needs nvidia-smi, and for some stages python3 with numpy (or torch), compute-sanitizer.
set -u
folder=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
shift 2
stages=${*:-machine ops golden tiny losses offload smollm2 answers full speed methods memory errors trace floor decode large two sanitizer races unwritten}
work=${HONE_GPU_WORK:-/tmp/hone-gpu}
mkdir -p "$work"
export PATH="$folder/bin:$PATH" LD_LIBRARY_PATH="$folder/lib:${LD_LIBRARY_PATH-}" HONE_TEST_DATA="$folder/tests"
export HONE_MODULES="$folder/bin" PYTHONUNBUFFERED=1
# torch's wheels bring the CUDA libraries where no toolkit is installed
for place in $(python3 -c 'import sys; print(*sys.path)' 2>/dev/null); do
    [ -d "$place/nvidia/cu13/lib" ] && export LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$place/nvidia/cu13/lib"
done
table=$work/table
[ "${HONE_GPU_STAGE-}" ] || : >"$table"

# stage NAME SECONDS COMMAND…: a line of the table; the end of the log, more of it when it failed
stage() {
    name=$1 limit=$2
    shift 2
    case " $stages " in *" $name "*) ;; *) return 0 ;; esac
    begin=$(date +%s)
    status=0
    timeout "$limit" "$@" >"$out/$name.log" 2>&1 </dev/null || status=$?
    seconds=$(($(date +%s) - begin))
    word=ok
    [ "$status" = 0 ] || word="FAILED ($status)"
    echo "=== $name: $word, $seconds s"
    printf '%-12s %-14s %4d s  %s\n' "$name" "$word" "$seconds" "$(grep -a '^RESULT' "$out/$name.log" | sed 's/^RESULT //' | tr '\n' ';')" >>"$table"
    tail -c "${tail_bytes:-2500}" "$out/$name.log"
    return 0
}

machine() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv
    hone doctor --device cuda --measure --shapes 16384x8192x2048,16384x2048x8192,16384x16x2048,16384x2048x2048
}

# cmocka's output without what passed.
ops() {
    HONE_TEST_DEVICE=cuda test_device_ops >"$work/ops" 2>&1
    status=$?
    grep -aE 'FAILED|\[   LINE|error|differs|expected|refused: |other bits|: .* is ' "$work/ops" | head -150
    echo "RESULT $(grep -ac '^\[       OK' "$work/ops") operations equal, $(grep -ac '^\[  FAILED  \] [a-z]' "$work/ops") not"
    return $status
}

golden() {
    HONE_TEST_DEVICE=cuda test_golden_models >"$work/golden" 2>&1
    status=$?
    grep -av '^\[ RUN' "$work/golden" | tail -120
    echo "RESULT $(grep -ac 'loss off by' "$work/golden") gradients compared"
    return $status
}

loss_of() { python3 "$folder/run_line.py" "$1" "$2"; }

# The same small run on the processor and on the GPU, f32 and bf16, stopped and gone on with.
tiny() {
    set -e
    python3 "$folder/make_model.py" tiny "$work/tiny" 24
    for how in "cpu f32" "cuda f32" "cuda bf16"; do
        set -- $how
        rm -rf "$work/tiny-$1-$2"
        hone train --device "$1" --compute "$2" --model "$work/tiny" --data "$work/tiny/rows.jsonl" --valid-split 0.2 \
            --max-length 2048 --batch-size 4 --epochs 3 --lora-dropout 0.1 --learning-rate 1e-3 --output "$work/tiny-$1-$2" | tail -3
        loss_of "$work/tiny-$1-$2" "$1 $2"
    done
    rm -rf "$work/tiny-again"
    hone train --device cuda --compute bf16 --model "$work/tiny" --data "$work/tiny/rows.jsonl" --valid-split 0.2 \
        --max-length 2048 --batch-size 4 --epochs 3 --lora-dropout 0.1 --learning-rate 1e-3 --output "$work/tiny-again" >/dev/null
    cmp "$work/tiny-again/adapter/adapter_model.safetensors" "$work/tiny-cuda-bf16/adapter/adapter_model.safetensors" &&
        echo "RESULT two runs: same bits"
    hone generate --device cuda --compute bf16 --model "$work/tiny" --prompt "abc" --max-tokens 12 --temperature 0 | head -c 300
    hone generate --device cpu --compute f32 --model "$work/tiny" --prompt "abc" --max-tokens 12 --temperature 0 | head -c 300
    hone eval --device cuda --compute f32 --model "$work/tiny" --data "$work/tiny/rows.jsonl"
    hone eval --device cpu --compute f32 --model "$work/tiny" --data "$work/tiny/rows.jsonl"
}

# Beside PEFT on this GPU, where Python has it.
losses() {
    set -e
    python3 "$folder/make_model.py" smollm2-135m "$work/135m" 200
    python3 "$folder/tests/golden/hundred_losses.py" "$(command -v hone)" "$work/135m"
}

# Offloading leaves the bits alone, and so does kill -9 in the middle.
offload() {
    set -e
    python3 "$folder/make_model.py" tiny "$work/tiny" 200
    run() { # NAME FLAGS…, in a process that becomes the program
        name=$1
        shift
        exec hone train --device cuda --model "$work/tiny" --data "$work/tiny/rows.jsonl" --max-length 512 \
            --batch-size 8 --epochs 8 --save-every 20 --output "$work/tiny-$name" "$@" >/dev/null
    }
    result() { find "$work/tiny-$1/adapter" "$work/tiny-$1/model" -name '*.safetensors' -exec cat {} + 2>/dev/null || true; }
    for how in "--compute bf16 --optimizer adamw --lora-targets all-linear,lm_head" "--compute bf16 --optimizer adamw8bit --lora-dropout 0.1" \
        "--compute f32 --optimizer muon" "--compute bf16 --method full"; do
        rm -rf "$work/tiny-kept" "$work/tiny-away" "$work/tiny-killed"
        (run kept $how --recompute block)
        away="$how --recompute offload --offload-optimizer"
        (run away $away)
        run killed $away &
        pid=$!
        until [ -d "$work/tiny-killed/checkpoints/step-00000040" ]; do sleep 0.01; done
        kill -9 $pid
        wait $pid || true
        (run killed $away --resume)
        result kept >"$work/kept"
        result away | cmp - "$work/kept"
        result killed | cmp - "$work/kept"
        echo "RESULT $how offloaded, and killed: same $(wc -c <"$work/kept") bytes"
    done
}

# Each test by itself under a tool of compute-sanitizer, eight at a time; what the tool found, by test. Those that
# HONE_GPU_TESTS names, a regular expression, where it is set; not that of rows which would take minutes so.
checked() { # TOOL [options]
    tool=$1
    rm -f "$work/$tool"-*
    [ -s "$work/ops" ] || ops >/dev/null
    sed -n 's/^\[ RUN *\] //p' "$work/ops" | grep -v long_rows | grep -E "${HONE_GPU_TESTS:-.}" | HONE_TEST_DEVICE=cuda xargs -P 8 -I{} sh -c \
        'HONE_TEST_FILTER={} timeout 200 compute-sanitizer --tool "$@" --print-limit 5 test_device_ops >"$0-{}" 2>&1' "$work/$tool" "$@"
    clean=$(grep -lE 'SUMMARY: 0 (errors|hazards)' "$work/$tool"-* | wc -l)
    for log in "$work/$tool"-*; do
        grep -qE 'SUMMARY: 0 (errors|hazards)' "$log" || { echo "--- ${log##*/}" && grep -a '=====' "$log" | head -12; }
    done
    echo "RESULT $tool: $clean of $(ls "$work/$tool"-* | wc -l) tests clean"
    [ "$clean" = "$(ls "$work/$tool"-* | wc -l)" ]
}

sanitizer() { checked memcheck; }

races() { checked racecheck; }

# Of memory of the device that nobody wrote at all: the op tests fill the arena with what is no number, so that
# reading what no operation has written makes results differ, here and without the tool.
unwritten() { checked initcheck; }

one_b() { [ -f "$work/1b/rows.jsonl" ] || python3 "$folder/make_model.py" llama3.2-1b "$work/1b" 200; }

# A step is ROWS rows of 2,048 tokens, all trained, LoRA r16 on all seven linears.
train() { # MODEL ROWS RECOMPUTE STEPS [flags]
    model=$1 rows=$2 recompute=$3 steps=$4
    shift 4
    rm -rf "$work/run-$model"
    hone train --device "${device:-cuda}" --model "$work/$model" --data "$work/$model/rows.jsonl" --max-length 2048 --batch-size "$rows" \
        --micro-batch-tokens "${micro:-$((rows * 2048))}" --recompute "$recompute" --frozen-weights stored --lora-rank 16 --max-steps "$steps" \
        --output "$work/run-$model" "$@"
}

# Llama-3.2-1B's shape.
speed() {
    set -e
    one_b
    for recompute in none selective block; do
        train 1b 8 $recompute 20 | tail -5
        loss_of "$work/run-1b" "1b $recompute"
    done
    train 1b 8 none 20 --compute fp8 | tail -5
    loss_of "$work/run-1b" "1b fp8"
}

# Other weights and methods at the same shape.
methods() {
    set -e
    one_b
    for base in nf4 int8 mlx-4bit mlx-mxfp4; do
        train 1b 8 none 8 --method qlora --base-type $base | tail -5
        loss_of "$work/run-1b" "1b $base"
    done
    train 1b 8 none 8 --method dora | tail -5
    loss_of "$work/run-1b" "1b dora"
}

# Bytes a second of a copy from page-locked memory.
copy_rate() {
    python3 - <<END
import time, torch
host, there = torch.empty(1 << 30, dtype=torch.uint8, pin_memory=True), torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
def rate():
    begin = time.time()
    there.copy_(host)
    torch.cuda.synchronize()
    return host.numel() / (time.time() - begin)
print(max(rate() for _ in range(3)))
END
}

# What a run takes of the GPU beside its plan; how fast its weights come there, and how soon the first step.
memory() {
    failed=0
    one_b
    rate=$(copy_rate)
    echo "RESULT a copy from page-locked memory: $rate bytes a second"
    look() { # NAME ROWS RECOMPUTE [flags]; the rate counts where no weight is made on the way
        name=$1 rows=$2 recompute=$3
        shift 3
        train 1b "$rows" "$recompute" 6 --save-every 100 "$@" >/dev/null
        python3 "$folder/plan_line.py" "$work/run-1b" "1b $name" $fast || failed=1
    }
    fast=$rate
    look "lora none" 8 none
    look "lora selective" 8 selective
    look "lora block" 2 block
    look "lora offload" 2 offload --offload-optimizer
    look dora 2 block --method dora
    fast=
    look nf4 2 block --method qlora
    look fp8 2 block --compute fp8
    rm -rf "$work/run-1b"
    hone train --device cuda --memory 4GiB --model "$work/1b" --data "$work/1b/rows.jsonl" --max-length 2048 --batch-size 8 --max-steps 4 --save-every 100 \
        --output "$work/run-1b" >/dev/null
    python3 "$folder/plan_line.py" "$work/run-1b" "1b --memory 4GiB" || failed=1
    [ -f "$work/135m/rows.jsonl" ] || python3 "$folder/make_model.py" smollm2-135m "$work/135m" 100
    rm -rf "$work/run-135m"
    hone train --device cuda --method full --model "$work/135m" --data "$work/135m/rows.jsonl" --max-length 2048 --batch-size 8 --max-steps 4 --keep 1 \
        --save-every 100 --output "$work/run-135m" >/dev/null
    python3 "$folder/plan_line.py" "$work/run-135m" "135m full" || failed=1
    [ -f "$work/135m-lengths/rows.jsonl" ] || python3 "$folder/make_model.py" smollm2-135m "$work/135m-lengths" 400 60
    for bound in "" "--memory 4GiB"; do
        rm -rf "$work/run-135m"
        hone train --device cuda --model "$work/135m-lengths" --data "$work/135m-lengths/rows.jsonl" --valid-split 0.1 --max-length 2048 --batch-size 8 \
            --epochs 2 --save-every 1000 --output "$work/run-135m" $bound >/dev/null
        python3 "$folder/plan_line.py" "$work/run-135m" "135m, rows of 60 to 1200 tokens $bound" || failed=1
    done
    return $failed
}

# One sentence and the right status where a GPU cannot be opened or is full, and nothing left behind.
errors() {
    set -e
    one_b
    expect() { # STATUS WORDS FLAGS…
        wanted=$1 words=$2 got=0
        shift 2
        rm -rf "$work/run-error"
        hone train --model "$work/1b" --data "$work/1b/rows.jsonl" --max-length 2048 --batch-size 8 --output "$work/run-error" "$@" 2>"$work/said" >/dev/null || got=$?
        cat "$work/said"
        [ $got = "$wanted" ] && [ "$(grep -c . "$work/said")" = 1 ] && grep -q "$words" "$work/said" && [ ! -e "$work/run-error" ] || { echo "status $got, expected $wanted and \"$words\""; exit 1; }
    }
    expect 2 'there is no GPU 7' --device cuda:7
    expect 2 'no device "cuda:-1"' --device cuda:-1
    expect 2 'no device "cuda:x"' --device cuda:x
    expect 4 'base-type nf4' --device cuda --memory 1GiB
    for left in 1500 100; do
        python3 -c "import time, torch; x = torch.empty(torch.cuda.mem_get_info()[0] - $left * 2**20, dtype=torch.uint8, device='cuda'); print('held', flush=True); time.sleep(60)" >"$work/held" &
        holder=$!
        until [ -s "$work/held" ]; do sleep 0.1; done
        expect 4 . --device cuda
        expect 4 . --device cuda --memory 20GiB
        kill $holder
        wait $holder || true
        : >"$work/held"
    done
    echo "RESULT each refused in one sentence"
}

trace() {
    set -e
    one_b
    train 1b 8 none 4 --trace 4 >/dev/null
    python3 "$folder/trace_table.py" "$work/run-1b/trace.json"
}

# One GPU, two, one: the same steps; losses equal to 1e-5. Then runs that are killed, stopped and gone on with.
two() {
    set -e
    one_b
    for device in cuda:0 cuda:0,1 cuda:0; do
        micro=16384 train 1b 16 none 14 | tail -3
        loss_of "$work/run-1b" "1b $device"
        python3 "$folder/plan_line.py" "$work/run-1b" "1b $device"
    done
    HONE_TEST_RANKS=cuda:0,cuda:1 python3 "$folder/tests/e2e/ranks.py" "$(command -v hone)"
}

decode() {
    set -e
    one_b
    hone bench --device cuda --compute bf16 --model "$work/1b" --prompt-tokens 512 --max-tokens 64 | tee "$work/decode"
    echo "RESULT $(tail -n 2 "$work/decode" | tr -s ' ' | tr '\n' ' ')"
}

# Llama-3.1-8B's shape.
large() {
    set -e
    python3 "$folder/make_model.py" llama3.1-8b "$work/8b" 100
    for recompute in none selective block; do
        train 8b 4 $recompute 10 | tail -5
        loss_of "$work/run-8b" "8b $recompute"
    done
    micro=4096 train 8b 4 offload 10 --method qlora --offload-optimizer | tail -5
    loss_of "$work/run-8b" "8b nf4, offloaded"
    rm -rf "$work/8b"
}

floor() {
    for kind in bf16 fp8; do python3 "$folder/tests/perf/gpu/floor.py" llama3.2-1b 8 $kind | sed 's/^/RESULT /'; done
}

smollm2() {
    set -e
    [ -f "$work/smollm2.gguf" ] || cat "$work"/smollm2.part-* >"$work/smollm2.gguf"
    for compute in f32 bf16 f16 fp8; do
        rm -rf "$work/run-smollm2"
        hone train --device cuda --compute $compute --model "$work/smollm2.gguf" --data "$folder/demo/train.jsonl" \
            --valid "$folder/demo/valid.jsonl" --epochs 1 --output "$work/run-smollm2" | tail -4
        loss_of "$work/run-smollm2" "smollm2 $compute"
    done
}

# Greedy answers in f32 of the processor and of the GPU, all at once and one by one. While decoding, the
# processor rounds activations to 16 bits, so where two tokens are all but as likely answers may part.
answers() {
    set -e
    [ -f "$work/smollm2.gguf" ] || cat "$work"/smollm2.part-* >"$work/smollm2.gguf"
    head -n 24 "$folder/demo/valid.jsonl" | sed 's/, {"role": "assistant".*/]}/' >"$work/questions.jsonl"
    ask() { hone generate --compute f32 --model "$work/smollm2.gguf" --max-tokens 48 --temperature 0 "$@"; }
    for device in cpu cuda; do
        rm -f "$work/answers-$device"
        ask --device $device --batch "$work/questions.jsonl" --output "$work/answers-$device"
    done
    ask --device cuda --prompt "Define ACADEME." --json
    python3 - "$work/answers-cpu" "$work/answers-cuda" <<END
import json, sys
cpu, cuda = ([json.loads(line)["text"] for line in open(path)] for path in sys.argv[1:])
alike = sum(a == b for a, b in zip(cpu, cuda, strict=True))
print(f"RESULT {alike} of {len(cpu)} answers alike")
sys.exit(alike < 0.8 * len(cpu))
END
}

# The first steps of full tuning, on the processor and on the GPU.
full() {
    set -e
    [ -f "$work/135m/rows.jsonl" ] || python3 "$folder/make_model.py" smollm2-135m "$work/135m" 100
    for device in cpu cuda; do
        rm -rf "$work/run-full"
        hone train --device $device --compute f32 --method full --model "$work/135m" --data "$work/135m/rows.jsonl" --max-length 256 \
            --overlength truncate --batch-size 8 --max-steps 5 --learning-rate 1e-4 --output "$work/run-full" | tail -3
        loss_of "$work/run-full" "full $device"
    done
}

# The functions above are commands of `timeout` through a shell that reads them from this file.
if [ "${HONE_GPU_STAGE-}" ]; then
    "$HONE_GPU_STAGE"
    exit $?
fi
for name in machine ops golden tiny losses offload smollm2 answers full speed methods memory errors trace decode floor large two sanitizer races unwritten; do
    case $name in sanitizer | races | unwritten) limit=400 ;; ops | speed | smollm2 | floor) limit=150 ;; two | large) limit=250 ;; *) limit=100 ;; esac
    tail_bytes=2500
    [ $name = trace ] && tail_bytes=7000
    stage $name $limit env HONE_GPU_STAGE=$name sh "$0" "$folder" "$out"
done
echo
cat "$table"
cp "$table" "$out/table.txt"
! grep -q FAILED "$table"
