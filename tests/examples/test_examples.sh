#!/usr/bin/env bash
# Runs the programs of examples/ as their README shows. Prints TAP.
#
#   test_examples.sh EXAMPLES_FOLDER UNETC UNETRUN SOURCE_ROOT
set -euo pipefail
examples=$1
unetc=$2
unetrun=$3
root=$4
source "$(dirname "${BASH_SOURCE[0]}")/../tap.sh"

prints() {
    local wanted=$1
    shift
    "$@" | tee "$scratch/printed"
    grep -q -- "$wanted" "$scratch/printed"
}
short() {
    [[ $(wc -l <"$1") -le 120 ]]
}

cat >"$scratch/model.yaml" <<'EOF'
input: {tile: 44}
labels: [{value: 0, class: membrane}, {value: 255, class: cell}]
layers: [{conv: 4}, relu, {conv: {channels: 2, kernel: 1}}, cross_entropy]
EOF

echo "1..9"
for name in inspect_plan segment train_arrays; do
    check "$name is at most 120 lines long" short "$root/examples/$name.c"
done
check "a model compiles" "$unetc" "$scratch/model.yaml" -o "$scratch/model.plan"
check "inspect_plan lists the programs" prints train_step "$examples/inspect_plan" "$scratch/model.plan"
check "train_arrays trains" "$examples/train_arrays" "$scratch/arrays.safetensors"
check "samples and weights" bash -c '
    "$1" sample "$2/data" --count 1 --size 100x90 --quiet &&
    "$1" train "$2/model.plan" --data "$2/data" --out "$2/run" --steps 2' bash "$unetrun" "$scratch"
check "segment writes what unetrun infer writes" bash -c '
    "$1/segment" "$3/model.plan" "$3/run/last.safetensors" "$3"/data/images/*.png "$3/a.png" &&
    "$2" infer "$3/model.plan" --weights "$3/run/last.safetensors" --out "$3/out" \
        "$3"/data/images/*.png &&
    python3 -c "
import sys; sys.path.insert(0, sys.argv[1]); sys.dont_write_bytecode = True
import png, glob
a, b = png.read(sys.argv[2]), png.read(glob.glob(sys.argv[3])[0])
sys.exit((a.width, a.data) != (b.width, b.data))" "$4/tools" "$3/a.png" "$3/out/*.png"' \
    bash "$examples" "$unetrun" "$scratch" "$root"
check "segment rejects weights that are none" bash -c '
    status=0
    "$1/segment" "$2/model.plan" "$2/model.yaml" "$2"/data/images/*.png "$2/b.png" || status=$?
    [[ $status != 0 && ! -e $2/b.png ]]' bash "$examples" "$scratch"
exit "$failed"
