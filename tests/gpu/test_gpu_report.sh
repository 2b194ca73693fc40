#!/usr/bin/env bash
# The kernels of the paper's network on real GPU compilers (tools/gpu-report): nothing spills but
# what is known to, and the inner loops of large tiles are mostly multiply-adds. Prints TAP; skipped
# where the drivers cannot be fetched.
#
#   test_gpu_report.sh BUILD SOURCE_ROOT
set -euo pipefail
build=$1
root=$2
source "$(dirname "${BASH_SOURCE[0]}")/../tap.sh"

devices=(vega10 navi21 navi31 gfx1201 162 172 740)
precisions=(single mixed)
echo "1..$((${#devices[@]} * ${#precisions[@]}))"
if ! "$root/tools/fetch-drivers" >"$scratch/drivers" 2>&1; then
    reason=$(tail -n 1 "$scratch/drivers")
fi
for precision in "${precisions[@]}"; do
    for device in "${devices[@]}"; do
        title="kernels of models/unet.yaml, precision $precision, on $device"
        if [[ -n ${reason:-} ]]; then
            skip "$title" "${reason#fetch-drivers: }"
        else
            check "$title" "$root/tools/gpu-report" --build "$build" --check --devices "$device" \
                --set precision="$precision" "$root/models/unet.yaml"
        fi
    done
done
exit "$failed"
