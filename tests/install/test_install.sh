#!/usr/bin/env bash
# Installs a build into a scratch folder and builds a small program outside the tree against what
# pkg-config says, with the shared and with the static libraries. Prints TAP.
#
#   test_install.sh BUILD SOURCE_ROOT
set -euo pipefail
build=$(cd "$1" && pwd)
root=$(cd "$2" && pwd)
source "$(dirname "${BASH_SOURCE[0]}")/../tap.sh"

echo "1..9"
check "meson install" meson install -C "$build" --no-rebuild --destdir "$scratch/dest"
pkgconfig=$(dirname "$(find "$scratch/dest" -name unet-runtime.pc | head -n 1)")
lib=$(dirname "$pkgconfig")
export PKG_CONFIG_PATH=$pkgconfig PKG_CONFIG_SYSROOT_DIR=$scratch/dest

cat >"$scratch/compile.c" <<'EOF'
#include <compiler/compiler.h>

int main(int argc, char **argv) {
    struct plan *plan;
    struct err err;
    if (argc != 3 || !unet_compile_file(argv[1], 0, &plan, &err) || !plan_save(plan, argv[2], &err)) {
        fprintf(stderr, "%s\n", argc == 3 ? err.text : "usage");
        return 1;
    }
    printf("%u parameters tensors\n", plan->n_params);
    plan_free(plan);
    return 0;
}
EOF
cat >"$scratch/inspect.c" <<'EOF'
#include <runtime/runtime.h>

int main(int argc, char **argv) {
    struct plan *plan;
    struct err err;
    if (argc != 2 || !plan_load(argv[1], &plan, &err) || !plan_verify(plan, 0, &err)) {
        fprintf(stderr, "%s\n", argc == 2 ? err.text : "usage");
        return 1;
    }
    printf("%u programs\n", plan->n_programs);
    plan_free(plan);
    unet_device_close(0);
    return 0;
}
EOF

# build LINKAGE MODULE SOURCE OUTPUT
build() {
    local flags=(--cflags --libs)
    if [[ $1 == static ]]; then
        flags+=(--static)
    fi
    # The words of pkg-config are meant to be split.
    # shellcheck disable=SC2046
    "${CC:-cc}" -std=c11 -Wall -Wextra -Werror "$3" -o "$4" $(pkg-config "${flags[@]}" "$2")
}
only_api_exported() {
    local extra
    extra=$(nm -D --defined-only "$lib"/libunet-runtime.so "$lib"/libunet-compiler.so |
        awk 'NF == 3 && $3 !~ /^(unet|plan)_/ {print $3}')
    [[ -z $extra ]] || { echo "also exported: $extra"; return 1; }
}

check "a program against the shared compiler" build shared unet-compiler "$scratch/compile.c" "$scratch/c1"
check "a program against the shared runtime" build shared unet-runtime "$scratch/inspect.c" "$scratch/r1"
check "it compiles a model" env LD_LIBRARY_PATH="$lib" "$scratch/c1" "$root/tests/parity/unet-small.yaml" "$scratch/a.plan"
check "it inspects the plan" env LD_LIBRARY_PATH="$lib" "$scratch/r1" "$scratch/a.plan"
check "the shared libraries export the API only" only_api_exported
rm -f "$lib"/libunet-*.so*
check "a program against the static compiler" build static unet-compiler "$scratch/compile.c" "$scratch/c2"
check "a program against the static runtime" build static unet-runtime "$scratch/inspect.c" "$scratch/r2"
check "both run and agree" bash -c '
    "$1/c2" "$2" "$1/b.plan" && "$1/r2" "$1/b.plan" && cmp "$1/a.plan" "$1/b.plan"' \
    bash "$scratch" "$root/tests/parity/unet-small.yaml"
exit "$failed"
