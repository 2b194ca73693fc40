#!/usr/bin/env python3
"""tools/gpu_listing.py and the judgement of tools/gpu-report, on listings made by hand: no driver.

    test_listing.py SOURCE_ROOT
"""
import contextlib
import importlib.machinery
import importlib.util
import io
import os
import sys

sys.dont_write_bytecode = True
sys.path[:0] = [os.path.join(sys.argv[1], "tools"), os.path.join(sys.argv[1], "tests")]
import gpu_listing  # noqa: E402
import tap  # noqa: E402

# A loop in a loop. The outer one is entered in its middle and jumps back from its last block but
# one; padding follows a jump; one instruction does two things; integer products do not count.
ACO = """BB0:
\tv_mov_b32_e32 v1, 0                 ; 7e020280
\tv_fma_f32 v1, v2, v3, v1            ; outside all loops
\ts_branch BB2                        ; bfa00001
\ts_nop 0
BB1:
\tbuffer_load_b32 v4, v5, s[0:3], 0 offen
\tds_store_b32 v6, v4
BB2:
\ts_barrier
\tv_add_nc_u32_e32 v5, 4, v5
BB3:
\tds_load_b64 v[8:9], v7
\tv_dual_fmac_f32 v1, v8, v2 :: v_dual_fmac_f32 v3, v9, v2
\tv_fmac_f32_e32 v10, v8, v9
\tv_mad_u32_u24 v11, v8, v9, v10
\ts_cbranch_scc1 BB3
BB4:
\ts_cbranch_scc0 BB1
BB5:
\tv_fma_f32 v1, v2, v3, v1
\ts_endpgm
"""
NAK = """block 0 L0 [] -> {
      r0       = mov 0x0                                           // delay=1
} -> [1]
block 1 L1 [0, 2] -> {
      r4       = ld.global.a64.strong.gpu.b32 [r2..4]              // delay=1
      ur4      = uiadd3 ur4 ur4 0x8                                // delay=1
      r5       = iadd3 r5 0x1 rZ                                   // delay=1
                 st.shared.b32 [r5] r4                             // delay=1
} -> [2]
block.u 2 L2 [1, 2] -> {
      r6..8    = ld.shared.b64 [r5]                                // delay=1
      r1       = ffma.ftz r6 r7 r1                                 // delay=1
      r2       = ffma.ftz r6 r7 r2                                 // delay=1
@!p1  r3       = ffma.ftz r6 r7 r3                                 // delay=1
      r9       = imad r6 r7 r3                                     // delay=1
@p0              bra pT L2                                         // delay=1
} -> [2, 1, 3]
block 3 L3 [2] -> {
      r1       = ffma.ftz r6 r7 r1                                 // delay=1
                 exit                                              // delay=1
} -> []
"""
IR3 = """; a remark
@in(r0.x)\tin1 (wrmask=0x7)
mov.f32f32 r1.x, 0.000000
(rpt2)mad.f32 r1.x, r2.x, r3.x, r1.x
l10:
isam.v.base0 (u32)(xyzw)r16.x, r15.y, s#0, t#2
add.u r5.x, r5.x, 1
(sy)stl.u32 l[r6.x], r16.x, 4
l20:
cmps.s.ne up0.y, r48.w, 0
(ss)br !p0.y, #l30
ldl.u32 r4.z, l[r18.x], 4
(ss)(rpt1)mad.f32 r10.w, r0.x, (r)r4.z, (r)(last)r10.w
(nop3) mad.f32 r1.x, r4.z, r5.x, r1.x
mul.f r9.x, r4.z, r5.x
jump #l20
l30:
br p0.x, #l10
end
(rpt1)nop
"""
STRAIGHT = "BB0:\n\tv_fma_f32 v1, v2, v3, v1\n\ts_endpgm\n"


def check_aco():
    loop = gpu_listing.inner_loop(ACO)
    assert loop.counts == {"multiply-add": 3, "vector": 1, "shared": 1, "memory": 0,
                           "scalar": 1}, loop.counts
    assert loop.outer.counts == {"multiply-add": 0, "vector": 1, "shared": 1, "memory": 1,
                                 "scalar": 2}, loop.outer.counts
    assert loop.share() == 3 / 4
    assert loop.share(turns=2) == 6 / 9


def check_nak():
    loop = gpu_listing.inner_loop(NAK)
    assert loop.counts == {"multiply-add": 3, "vector": 1, "shared": 1, "memory": 0,
                           "scalar": 1}, loop.counts
    assert loop.outer.counts == {"multiply-add": 0, "vector": 1, "shared": 1, "memory": 1,
                                 "scalar": 1}, loop.outer.counts


def check_ir3():
    loop = gpu_listing.inner_loop(IR3)
    assert loop.counts == {"multiply-add": 3, "vector": 1, "shared": 1, "memory": 0,
                           "scalar": 3}, loop.counts
    assert loop.outer.counts == {"multiply-add": 0, "vector": 1, "shared": 1, "memory": 1,
                                 "scalar": 1}, loop.outer.counts


def check_no_loop():
    assert gpu_listing.inner_loop(STRAIGHT) is None


def judged(spilled, tile_vecs, listing):
    """What --check says of one kernel of a pretended result."""
    path = os.path.join(sys.argv[1], "tools", "gpu-report")
    loader = importlib.machinery.SourceFileLoader("gpu_report", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_report", loader))
    loader.exec_module(module)
    statistics = {name: 1.0 for name in ("VGPRs", "SGPRs", "LDS size", "Subgroups per SIMD",
                                         "Instructions", "Inverse Throughput")}
    statistics.update({"Spilled VGPRs": spilled, "Spilled SGPRs": 0.0, "Scratch size": 0.0})
    pipeline = {"shader": "conv_tile", "constants": [128, 1, 1, 0, 8, tile_vecs, 2, 3, 3, 3, 0, 1],
                "records": 1, "gflop": 1.0, "shared_bytes": 0, "statistics": statistics,
                "listings": {"Assembly": listing}}
    arguments = type("Arguments", (), {"all": False, "markdown": False, "listings": None})
    with contextlib.redirect_stdout(io.StringIO()):
        return module.report("navi31", {"driver": "none", "pipelines": [pipeline]}, arguments)


def check_judgement():
    poor = ACO.replace("v_fmac_f32_e32", "v_mul_f32_e32")
    assert judged(0.0, 2, ACO) == []
    assert "spills" in judged(3.0, 2, ACO)[0]
    assert "50 % multiply-adds" in judged(0.0, 2, poor)[0]
    assert "no loop" in judged(0.0, 2, STRAIGHT)[0]


sys.exit(tap.run([("loops of an ACO listing", check_aco), ("loops of a NAK listing", check_nak),
                  ("loops of an IR3 listing", check_ir3),
                  ("a listing without loops", check_no_loop),
                  ("spills and poor loops are found", check_judgement)]))
