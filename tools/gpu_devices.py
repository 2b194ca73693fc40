"""The devices of the drivers that tools/fetch-drivers gets, and how to run a program on one:
tools/with-driver and tools/gpu-report. Pretended devices compile and run nothing."""
import os
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))


class Device:
    """driver: libvulkan_DRIVER.so; shim: the library that pretends the device, if any; env: what
    selects the device."""

    def __init__(self, driver, shim, env, title):
        self.driver, self.shim, self.env, self.title = driver, shim, env, title


def _amd(name, title):
    return Device("radeon", "amdgpu", {"AMDGPU_GPU_ID": name}, title)


def _nvidia(chipset, title):
    return Device("nouveau", "nouveau", {"NOUVEAU_CHIPSET": chipset}, title)


PRETENDED = {
    "vega10": _amd("vega10", "AMD Vega 10 (GCN 5)"),
    "navi21": _amd("navi21", "AMD Navi 21 (RDNA 2)"),
    "navi31": _amd("navi31", "AMD Navi 31 (RDNA 3)"),
    "gfx1201": _amd("gfx1201", "AMD Navi 48 (RDNA 4)"),
    "162": _nvidia("162", "NVIDIA TU102 (Turing)"),
    "172": _nvidia("172", "NVIDIA GA102 (Ampere)"),
    "740": Device("freedreno", "freedreno", {"FD_GPU_ID": "740"}, "Qualcomm Adreno 740"),
}
DEVICES = {
    "lavapipe": Device("lvp", None, {"LP_NATIVE_VECTOR_WIDTH": "256"}, "CPU, vectors of 256 bits"),
    "lavapipe-512": Device("lvp", None, {"LP_NATIVE_VECTOR_WIDTH": "512"},
                           "CPU, vectors of 512 bits"),
    **PRETENDED,
}


class Failure(Exception):
    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def fetch_drivers():
    """The folder with the drivers' libraries."""
    run = subprocess.run([os.path.join(HERE, "fetch-drivers")], capture_output=True, text=True)
    if run.returncode != 0:
        raise Failure(4, run.stderr.strip().removeprefix("fetch-drivers: "))
    return run.stdout.strip()


def command(libraries, name, program):
    """The words that run a program on a device, and the environment they need. The drivers bring
    their own C library and program loader; what else the program needs is the system's."""
    device = DEVICES[name]
    loader = [n for n in os.listdir(libraries) if n.startswith("ld-linux")]
    if not loader:
        raise Failure(4, "%s: no program loader among the drivers" % libraries)
    share = os.path.join(libraries, "..", "..", "share", "vulkan")
    manifest = os.path.normpath(os.path.join(share, "icd.d", device.driver + "_icd.json"))
    layers = [os.environ.get("VK_LAYER_PATH"), os.path.normpath(share + "/explicit_layer.d")]
    env = {"VK_DRIVER_FILES": manifest, "VK_ICD_FILENAMES": manifest,
           "VK_LAYER_PATH": ":".join(filter(None, layers)),
           "MESA_SHADER_CACHE_DISABLE": "true", **device.env}
    words = [os.path.join(libraries, loader[0])]
    if device.shim:
        words += ["--preload", os.path.join(libraries, "lib%s_noop_drm_shim.so" % device.shim)]
    system = "/usr/lib/" + os.path.basename(libraries)
    path = [libraries, system, os.environ.get("LD_LIBRARY_PATH")]
    return words + ["--library-path", ":".join(filter(None, path)), program], env
