#!/bin/sh
# What ./demo says and does around the program: stopped in training it says where, started again it goes on, and
# its minutes stand beside the names of its stages. The program and the tools are stand-ins that take no time.
#   test_demo.sh SOURCE_DIRECTORY
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/tools" "$work/build" "$work/.cache/demo"
cp "$1/demo" "$work/demo"
for tool in install build fetch; do
    printf '#!/bin/sh\n' >"$work/tools/$tool.sh"
    chmod +x "$work/tools/$tool.sh"
done
cat >"$work/build/hone" <<'END'
#!/bin/sh
echo "$*" >>said
case $1 in
eval) echo '{"loss":3.54473051,"perplexity":1}' ;;
generate) echo "An answer." ;;
train)
    mkdir -p runs/devil/adapter
    [ -f runs/devil/recipe.yaml ] && echo done >runs/devil/adapter/adapter_model.safetensors && exit 0
    touch runs/devil/recipe.yaml
    exit 130
    ;;
esac
END
chmod +x "$work/build/hone"
for word in A B C; do echo "{\"messages\":[{\"role\":\"user\",\"content\":\"Define $word.\"}]}"; done >"$work/.cache/demo/valid.jsonl"

fail() { echo "demo: $*"; cat "$work/out"; exit 1; }
status=0
"$work/demo" >"$work/out" 2>&1 || status=$?
[ "$status" = 130 ] || fail "an interrupted training leaves with $status"
grep -q '^Stopped at: Training. Start ./demo again' "$work/out" || fail "where it stopped is not said"
"$work/demo" >"$work/out" 2>&1 || fail "started again it fails"
[ "$(grep -c '^eval' "$work/said")" = 2 ] || fail "what was measured is measured again"
[ "$(grep -c '^train.*--resume' "$work/said")" = 1 ] || fail "training does not go on with --resume"
grep -q '^  before 3.5447    after 3.5447$' "$work/out" || fail "the losses do not stand side by side"
[ "$(grep -c '^  An answer\. *| An answer\.$' "$work/out")" = 3 ] || fail "the answers do not stand side by side"
for stage in Packages Build Model "Before: held-out loss and answers" Training "After: held-out loss and answers"; do
    grep -q "^ *[0-9.]* min *$stage\$" "$work/out" || fail "the minutes of \"$stage\" are missing"
done
"$work/demo" >"$work/out" 2>&1 && [ "$(grep -c '^train' "$work/said")" = 2 ] || fail "after the end it trains again"
echo "demo: ok"
