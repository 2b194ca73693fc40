# tap.sh: what the shell tests share; they source it. A scratch folder that goes away at the end, and
# cases counted and printed as TAP. A test announces "1..N" first and ends with: exit "$failed"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
number=0
failed=0

# check TITLE COMMAND...: one case; the output of the command stays in $scratch/log
check() {
    local title=$1
    shift
    number=$((number + 1))
    if "$@" >"$scratch/log" 2>&1; then
        echo "ok $number - $title"
    else
        sed 's/^/# /' "$scratch/log"
        echo "not ok $number - $title"
        failed=1
    fi
    # Messages of the validation layers belong into the output of the test.
    grep -i "validation \(error\|warning\)" "$scratch/log" || true
}

# skip TITLE REASON: one case that cannot run here
skip() {
    number=$((number + 1))
    echo "ok $number - $1 # SKIP $2"
}
