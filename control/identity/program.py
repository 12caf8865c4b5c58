"""
Tell programs that do what others tell them from programs of their own.

In: the path of an executable.  Out: whether its path says nothing about what it does.  Pure.
"""

import re
from functools import lru_cache

_INTERPRETER = re.compile(
    r"(python|pypy|perl|ruby|php|phpdbg|lua|luajit|tclsh|wish|expect|node|nodejs)[0-9.]*(-dbg|d|m|-[0-9].*|-[a-z0-9_]+-linux-[a-z0-9]+)?"
    r"|php-?(cgi|fpm|cli)[0-9.]*"
    r"|java|jshell|dotnet|mono|deno|bun|guile[0-9.-]*|Rscript|R|erl|beam\.smp|irb[0-9.]*|julia|groovy|scala|elixir"
    r"|(ba|da|z|k|mk|pdk|a|tc|c|fi)?sh[0-9.]*(-static)?|rbash|busybox|toybox|pwsh|nu|xonsh|env|xargs|awk|gawk|mawk|original-awk|sed|find|make"
    r"|ld-linux.*|ld-musl.*|ld\.so.*|ld-[0-9].*|qemu-.*|wine(64)?|gdb|strace|ltrace|emacs.*|vim?(\.[a-z0-9-]+)?|nvim"
)
_RELAY = re.compile(
    r"docker-proxy|sshd?|socat|nc|ncat|netcat|nc\.(openbsd|traditional)|redsocks|stunnel4?|tinyproxy|squid|haproxy|gost|chisel"
)


@lru_cache(4096)
def is_interpreter(path: str) -> bool:
    """Say whether the executable runs whatever it is told to, so that its path says nothing about the program."""
    return _INTERPRETER.fullmatch(path.rsplit("/", 1)[-1]) is not None


@lru_cache(4096)
def is_relay(path: str) -> bool:
    """Say whether the executable speaks for others, who would use its credential."""
    return _RELAY.fullmatch(path.rsplit("/", 1)[-1]) is not None
