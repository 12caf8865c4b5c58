"""
Show that this kernel runs our kind of BPF program, before any test of ours is blamed.

In: nothing; runs inside the guest as root.  Out: one JSON object on stdout, exit status 0 when the program loaded and fired.
The program is a connect4 hook on a cgroup of its own that refuses one port; compiled by the distribution's bcc.
"""

import json
import os
import platform
import socket
import sys
import tempfile
import time
from pathlib import Path

TEXT = r"""
BPF_ARRAY(fired, u64, 1);
int refuse_connect(struct bpf_sock_addr *ctx)
{
	int zero = 0;
	u64 *n = fired.lookup(&zero);
	if (n)
		__sync_fetch_and_add(n, 1);
	return ctx->user_port != 0x9210 /* 4242 in network order */;
}
"""
STUBS = {
    "linux/types.h": """
typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32; typedef unsigned long long u64;
typedef signed char s8; typedef short s16; typedef int s32; typedef long long s64;
typedef u8 __u8; typedef u16 __u16; typedef u32 __u32; typedef u64 __u64;
typedef s8 __s8; typedef s16 __s16; typedef s32 __s32; typedef s64 __s64;
typedef u16 __be16; typedef u32 __be32; typedef u64 __be64; typedef u16 __sum16; typedef u32 __wsum;
typedef u64 __aligned_u64 __attribute__((aligned(8))); typedef unsigned long size_t; typedef unsigned long uintptr_t;
typedef _Bool bool;
""",
    "linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
    "linux/version.h": "#define LINUX_VERSION_CODE 393472\n#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n",
    "uapi/linux/bpf_common.h": "",
    "uapi/linux/bpf.h": "",
    "uapi/linux/if_packet.h": "",
    "linux/log2.h": "",
    "asm/byteorder.h": "",
    "asm/page.h": "#define PAGE_SIZE 4096\n",
}
"""What bcc includes on its own, for a machine without kernel headers."""

CGROUP_SOCK_ADDR = 18  # enum bpf_prog_type, linux/bpf.h
CGROUP_INET4_CONNECT = 10  # enum bpf_attach_type, linux/bpf.h
PROBE_CGROUP = Path("/sys/fs/cgroup/credwire-probe")


def _refused_inside(cgroup: Path) -> bool:
    """Fork a child, move it into ``cgroup`` and let it connect to the refused port."""
    child = os.fork()
    if child == 0:
        (cgroup / "cgroup.procs").write_text(str(os.getpid()))
        with socket.socket() as sock:
            try:
                sock.connect(("127.0.0.1", 4242))
            except PermissionError:
                os._exit(0)
            except OSError:
                os._exit(1)
        os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def probe() -> dict[str, object]:
    """Compile, load with the attach type the verifier wants, attach, count one refusal, detach."""
    from bcc import BPF  # its import takes seconds under emulation and belongs to the time measured

    found: dict[str, object] = {
        "kernel": platform.release(),
        "lsm": Path("/sys/kernel/security/lsm").read_text().strip(),
        "btf_bytes": Path("/sys/kernel/btf/vmlinux").stat().st_size,
        "python": platform.python_version(),
    }
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as source:
        for name, text in STUBS.items():
            for include in ("include", "arch/x86/include"):
                path = Path(source) / include / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        os.environ["BCC_KERNEL_SOURCE"] = source
        bpf = BPF(text=TEXT)
    found["compile_s"] = round(time.monotonic() - began, 2)
    function = bpf.load_func("refuse_connect", CGROUP_SOCK_ADDR, attach_type=CGROUP_INET4_CONNECT)
    PROBE_CGROUP.mkdir(exist_ok=True)
    directory = os.open(PROBE_CGROUP, os.O_DIRECTORY | os.O_RDONLY)
    bpf.attach_func(function, directory, CGROUP_INET4_CONNECT)
    try:
        found["refused"] = _refused_inside(PROBE_CGROUP)
        found["fired"] = bpf["fired"][0].value
    finally:
        bpf.detach_func(function, directory, CGROUP_INET4_CONNECT)
        os.close(directory)
        PROBE_CGROUP.rmdir()
    return found


if __name__ == "__main__":
    result = probe()
    json.dump(result, sys.stdout)
    print()
    sys.exit(0 if result["refused"] and result["fired"] == 1 else 1)
