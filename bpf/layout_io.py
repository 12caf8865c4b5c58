"""
Ask a C compiler what it makes of bpf/abi.h, for tests.

In: gcc (or any compiler that knows -gbtf).  Out: fields of every struct as the object's BTF describes them, read by the same reader that
reads the kernel's.  The programs themselves are held to bpf/abi.py by assertions at each compilation (bpf/abi.py ``assertions``).
"""

import struct
import subprocess
import tempfile
from pathlib import Path

from bpf.abi import ENUMS, LAYOUTS, Field, fields
from bpf.btf import Btf
from bpf.errors import KernelError

HEADER = Path(__file__).resolve().parent / "abi.h"
_TYPES = "typedef unsigned char __u8; typedef unsigned short __u16; typedef unsigned int __u32; typedef unsigned long long __u64;\n"


def compiled_btf(source: str, compiler: str = "gcc") -> Btf:
    """Compile C and read the BTF of the object; raises KernelError when the compiler is missing or refuses."""
    with tempfile.TemporaryDirectory(prefix="cw-layout-") as directory:
        text, target = Path(directory) / "abi.c", Path(directory) / "abi.o"
        text.write_text(source)
        try:
            subprocess.run([compiler, "-gbtf", "-c", str(text), "-o", str(target)], check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise KernelError(f'no compiler "{compiler}"', hint="apt-get install gcc") from None
        except subprocess.CalledProcessError as error:
            raise KernelError(f"bpf/abi.h does not compile: {error.stderr.strip()[-500:]}") from None
        return Btf(section(target.read_bytes(), ".BTF"))


def section(elf: bytes, wanted: str) -> bytes:
    """Cut one section out of a 64-bit little-endian ELF object; raises KernelError when it is not there.  Source: elf(5)."""
    at, size, count, names = struct.unpack_from("<40xQ", elf)[0], *struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQ", elf, at + i * size) for i in range(count)]
    text_at = headers[names][4]
    for name, _kind, _flags, _address, offset, length in headers:
        label = elf[text_at + name : elf.index(b"\0", text_at + name)].decode()
        if label == wanted:
            return elf[offset : offset + length]
    raise KernelError(f'the object has no section "{wanted}"', hint="gcc 12 and later write it with -gbtf")


def c_layouts() -> dict[str, tuple[int, tuple[Field, ...]]]:
    """Give size and fields of every struct in bpf/abi.h, in C's own words; padding included."""
    users = "".join(f"struct {name} use_{name};\n" for name in LAYOUTS)
    btf = compiled_btf(f'{_TYPES}#include "{HEADER}"\n{users}')
    found = {}
    for name in LAYOUTS:
        type_id = btf.find(name)
        seen = []
        for field in fields(name):
            member = btf.member(type_id, field.name)
            seen.append(Field(field.name, member.offset, btf.size(member.type_id)))
        found[name] = (btf.size(type_id), tuple(seen))
    return found


def c_enums() -> dict[str, int]:
    """Give every enumerator of bpf/abi.h that bpf/abi.py names, with C's value."""
    values = "".join(
        f"struct value_{prefix}{member} {{ char bytes[{prefix}{member} + 1]; }} use_{prefix}{member};\n" for prefix, member in _members()
    )
    btf = compiled_btf(f'{_TYPES}#include "{HEADER}"\n{values}')
    return {f"{prefix}{member}": btf.size(btf.find(f"value_{prefix}{member}")) - 1 for prefix, member in _members()}


def _members() -> list[tuple[str, str]]:
    return [(prefix, member) for prefix, twin in ENUMS.items() for member in twin.__members__]


def c_struct_fields(name: str) -> list[str]:
    """Give the names of a struct's direct fields as C has them, to see that Python names them all."""
    btf = compiled_btf(f'{_TYPES}#include "{HEADER}"\nstruct {name} use_it;\n')
    return [member.name for member in btf.members(btf.find(name))]
