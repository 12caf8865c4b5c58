"""
Compile the programs: ``python -m bpf.compile_io FILE``, run as a child because LLVM takes 130 MB and stays.

In: bpf/abi.h, bpf/prog/*, the kernel's BTF.  Out: FILE with every program's bytecode (bpf/cache.py), written whole or not at all.
bcc compiles; it creates no map and loads nothing: maps are numbers in the source, which bpf/kernel_io.py replaces by descriptors.
bcc rewrites C only in the main text, which is why all our code sits in headers and the main text holds thin functions.
"""

import os
import sys
from pathlib import Path

from bpf import abi, cache
from bpf.btf import Btf, defines
from bpf.cache_io import FLAGS, HERE, MAIN, read_btf, sources
from bpf.programs import PROGRAMS


def compile_all() -> tuple[bytes, dict[str, bytes]]:
    """Give the build key and every program's bytecode."""
    from bcc import BPF  # noqa: PLC0415  # LLVM: only here, only now

    files = sources()
    raw_btf = read_btf()
    text = files[MAIN].decode() + abi.assertions()
    flags = [*FLAGS, f"-I{HERE}", *defines(Btf(raw_btf))]
    built = BPF(text=f'#line 1 "{MAIN}"\n{text}', cflags=flags)
    return cache.key_of(files, raw_btf, FLAGS), {program.name: bytes(built.dump_func(program.name)) for program in PROGRAMS}


def main(target: Path) -> None:
    """Compile and write ``target``."""
    key, programs = compile_all()
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(cache.encode(key, programs))
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
