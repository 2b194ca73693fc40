#!/usr/bin/env bash
# The tools on real microscope images of every kind the project reads, where they are there: the folder
# $UNET_TEST_DATA with isbi2012/ (8-bit grey, labels 0 and 255), dic_hela/tiff/ (LZW TIFF), bbbc039/
# (16-bit PNG). Prints TAP; every case is skipped without the folder.
#
#   test_real_images.sh UNETC UNETRUN SOURCE_ROOT
set -euo pipefail
unetc=$1
unetrun=$2
root=$3
data=${UNET_TEST_DATA:-}
source "$(dirname "${BASH_SOURCE[0]}")/../tap.sh"

# check_on FOLDER TITLE COMMAND...: one case, skipped when the folder of images is not there
check_on() {
    local folder=$data/$1 title=$2
    shift 2
    if [[ -z $data ]]; then
        skip "$title" "no real images: UNET_TEST_DATA is not set (tools/test --data DIR)"
    elif [[ ! -d $folder ]]; then
        skip "$title" "no folder $folder"
    else
        check "$title" "$@"
    fi
}

train() {
    "$unetc" "$root/models/demo.yaml" --set width=4 --set tile=108 -o "$scratch/demo.plan" &&
        "$unetrun" train "$scratch/demo.plan" --data "$data/isbi2012" --val-frames 09-11 \
            --out "$scratch/run" --steps 3 --validate-every 3
    # A header, three steps, and a validation that covered three images of 512 x 512.
    [[ $(wc -l <"$scratch/run/metrics.csv") == 4 && -e $scratch/run/best.safetensors ]]
}
eval_json() {
    "$unetrun" eval "$scratch/demo.plan" --weights "$scratch/run/last.safetensors" \
        --data "$data/isbi2012" --frames 09 --json >"$scratch/eval.json"
    cat "$scratch/eval.json"
    python3 -c 'import json, sys
scores = json.load(open(sys.argv[1]))
error = scores["pixel_error"]
sys.exit(not 0 < error < 1)' "$scratch/eval.json"
}
# infer FOLDER PATTERN: one image; the result has its size and only label values of the model
infer() {
    local image
    image=$(find "$data/$1" -name "$2" | sort | head -n 1)
    "$unetrun" infer "$scratch/demo.plan" --weights "$scratch/run/last.safetensors" \
        --out "$scratch/$1" "$image"
    python3 -c 'import sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import glob, png
out = png.read(glob.glob(sys.argv[2] + "/*.png")[0])
print(out.width, out.height, sorted(set(out.data)))
if (out.width, out.height) != tuple(map(int, sys.argv[3].split("x"))) or set(out.data) - {0, 255}:
    sys.exit(1)' "$root/tools" "$scratch/$1" "$3"
}
wrong_labels() {
    local status=0
    "$unetrun" train "$scratch/demo.plan" --data "$data/bbbc039" --out "$scratch/none" --steps 1 ||
        status=$?
    [[ $status == 1 && ! -e $scratch/none/last.safetensors ]]
}

echo "1..6"
check_on isbi2012 "trains on 8-bit PNGs with frames held out" train
check_on isbi2012 "scores a held-out frame" eval_json
check_on isbi2012 "segments an 8-bit PNG" infer isbi2012/images '*.png' 512x512
check_on dic_hela/tiff "segments an LZW TIFF" infer dic_hela/tiff 't0*.tif' 512x512
check_on bbbc039 "segments a 16-bit PNG" infer bbbc039/images '*.png' 696x520
check_on bbbc039 "refuses labels the model does not list" wrong_labels
exit "$failed"
