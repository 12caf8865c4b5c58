"""Who counts as listed: executable, uid and exec'd script together, at this exec and no other."""

import errno
import json
import shutil

import pytest

from bpf.abi import EventKind, KernelFilter, KernelReason, ProcessFlag, ProcessState
from bpf.record_io import read_answer
from tests.kernel.lab_io import PYTHON, Client, Lab, until

SOMEBODY = 64001
"""A uid that no account has."""


def redirected(lab: Lab, client: Client) -> bool:
    """Let a client connect to a port of interest; whether it came to the listener (else to the server itself)."""
    assert client.connect("127.0.0.1", lab.service) == 0
    if lab.nobody_came():
        lab.straight4.accept()[0].close()
        return False
    lab.answer()
    return True


def test_executable_and_uid_must_both_hold(lab: Lab) -> None:
    """The listed executable as another uid, and another executable as the listed uid, pass straight."""
    lab.rule(KernelFilter(exe=lab.exe(lab.bound), uid=SOMEBODY, script=None))
    assert redirected(lab, lab.client(lab.bound, uid=SOMEBODY))
    assert not redirected(lab, lab.client(lab.bound, uid=SOMEBODY + 1))
    assert not redirected(lab, lab.client(lab.other, uid=SOMEBODY))


def test_uid_alone_is_enough_when_the_filter_says_so(lab: Lab) -> None:
    """A filter without executable takes every program of the uid, and nobody else's."""
    lab.rule(KernelFilter(exe=None, uid=SOMEBODY, script=None))
    assert redirected(lab, lab.client(lab.other, uid=SOMEBODY))
    assert not redirected(lab, lab.client(lab.other))


def test_process_started_before_the_filter_is_judged_at_connect(lab: Lab) -> None:
    """Executable and uid are read from the task, so no exec needs to have been seen."""
    client, stranger = lab.client(lab.bound), lab.client(lab.other)
    client.run("result = 1")
    lab.rule_exe()
    assert redirected(lab, client)
    assert not redirected(lab, stranger)


def test_script_is_the_one_that_was_executed(lab: Lab) -> None:
    """``#!`` by its listed path is taken; the same file by argv, a copy, a link to it and another script are not."""
    tool = lab.script("tool")
    copy = lab.home / "copy"
    shutil.copy(tool, copy)
    link = lab.home / "link"
    link.symlink_to(tool)
    lab.rule(KernelFilter(exe=lab.exe(lab.bound), uid=0, script=str(tool)))
    client = lab.start([str(tool)])
    assert redirected(lab, client)
    entry = lab.entry(client.pid)
    assert entry is not None
    assert lab.kernel.script_text(entry.script_id) == str(tool)
    for argv in ([str(lab.bound), "-I", str(tool)], [str(copy)], [str(link)], [str(lab.script("elsewhere"))]):
        assert not redirected(lab, lab.start(argv))


def test_script_and_uid_must_both_hold(lab: Lab) -> None:
    """The listed script run by another user passes straight."""
    tool = lab.script("tool")
    lab.rule(KernelFilter(exe=lab.exe(lab.bound), uid=SOMEBODY, script=str(tool)))
    assert redirected(lab, lab.start([str(tool)], uid=SOMEBODY))
    assert not redirected(lab, lab.start([str(tool)]))


def test_script_is_remembered_when_root_becomes_the_listed_user(lab: Lab) -> None:
    """A daemon that starts as root and drops to the listed uid counts from then on."""
    tool = lab.script("tool")
    lab.rule(KernelFilter(exe=lab.exe(lab.bound), uid=SOMEBODY, script=str(tool)))
    client = lab.start([str(tool)])
    assert not redirected(lab, client)
    client.run(f"os.setresuid({SOMEBODY}, {SOMEBODY}, {SOMEBODY})")
    assert redirected(lab, client)


def test_uid_change_takes_the_verdict_away(lab: Lab) -> None:
    """A bound process that becomes another user is asked again, and passes straight as that user."""
    lab.rule(KernelFilter(exe=lab.exe(lab.bound), uid=0, script=None))
    client = lab.client()
    assert redirected(lab, client)
    assert lab.bind(client.pid).state is ProcessState.BOUND
    client.run(f"os.setresuid({SOMEBODY}, {SOMEBODY}, {SOMEBODY})")
    assert not redirected(lab, client)


def test_exec_is_judged_at_once(lab: Lab) -> None:
    """The entry is there when the program starts, before it connects, and an event says so."""
    lab.rule_exe()
    lab.kernel.drain()
    client = lab.client()
    client.run("result = 1")
    entry = lab.entry(client.pid)
    assert entry is not None
    assert (entry.state, entry.uid, entry.exe_ino) == (ProcessState.PENDING, 0, lab.bound.stat().st_ino)
    assert EventKind.PENDING in {e.kind for e in lab.kernel.drain() if e.tgid == client.pid}


def test_exec_of_another_program_ends_the_verdict(lab: Lab) -> None:
    """After exec the old key is gone, its connection reads process-changed, a verdict for it is refused, and the new program passes."""
    lab.rule_exe()
    client = lab.client()
    client.connect("127.9.8.7", 443)
    client.run("s.set_inheritable(True)")
    with lab.accept() as sock:
        before = lab.bind(client.pid)
        assert read_answer(sock).bound
        lab.kernel.drain()
        client.become(lab.other)
        assert read_answer(sock).reason is KernelReason.PROCESS_CHANGED
        assert not read_answer(sock).bound
    assert not lab.kernel.settle(before.tgid, before.start_ns, before.exec_id, ProcessState.BOUND, 7)
    told = [e for e in lab.kernel.drain() if e.kind is EventKind.EXEC]
    assert [(e.tgid, e.exec_id) for e in told] == [(client.pid, before.exec_id + 1)]
    assert not redirected(lab, client)


def test_exec_of_the_same_program_must_be_attested_anew(lab: Lab) -> None:
    """Same executable, next exec: PENDING, under the next exec id."""
    lab.rule_exe()
    client = lab.client()
    client.run("pass")
    before = lab.bind(client.pid)
    client.become(lab.bound)
    after = lab.entry(client.pid)
    assert after is not None
    assert (after.state, after.exec_id, after.identity) == (ProcessState.PENDING, before.exec_id + 1, 0)


def test_forked_child_takes_over_the_verdict(lab: Lab) -> None:
    """A plain fork is bound like its parent; the parent keeps its own key."""
    lab.rule_exe()
    client = lab.client()
    client.run("pass")
    parent = lab.bind(client.pid, identity=9)
    child_pid = client.run("r, w = os.pipe()\nchild = os.fork()\nif not child: os.read(r, 1); os._exit(0)\nresult = child")
    child = lab.entry(child_pid)
    assert child is not None
    assert (child.state, child.identity, child.exec_id) == (ProcessState.BOUND, 9, parent.exec_id)
    assert child.start_ns >= parent.start_ns
    client.run("os.write(w, b'x'); os.waitpid(child, 0)")
    until(lambda: lab.entry(child_pid) is None)


def test_child_in_new_namespaces_must_be_attested_anew(lab: Lab) -> None:
    """clone() with CLONE_NEWNET: the entry is there, and PENDING."""
    lab.rule_exe()
    client = lab.client()
    client.run("pass")
    lab.bind(client.pid)
    child_pid = client.run(
        "import ctypes\nr, w = os.pipe()\nlibc = ctypes.CDLL(None)\n"
        "child = libc.syscall(56, 0x40000000 | 17, 0, 0, 0, 0)\nif not child: os.read(r, 1); os._exit(0)\nresult = child"
    )
    child = lab.entry(child_pid)
    assert child is not None
    assert (child.state, child.identity) == (ProcessState.PENDING, 0)
    client.run("os.write(w, b'x'); os.waitpid(child, 0)")


def test_thread_is_its_process(lab: Lab) -> None:
    """A connect from another thread has the process's key, and the thread's own id beside it; an ending thread ends nothing."""
    lab.rule_exe()
    client = lab.client()
    client.run(
        "import threading\ns = socket.socket()\n"
        "t = threading.Thread(target=lambda: s.connect(('127.9.8.7', 443)))\nt.start()\nt.join()\nresult = t.native_id"
    )
    record = lab.answer().record
    assert record.tgid == client.pid
    assert record.tid != client.pid
    assert lab.entry(client.pid) is not None


def test_entry_ends_with_the_process(lab: Lab) -> None:
    """Exit takes the entry away, tells so, and a verdict for the dead is refused."""
    lab.rule_exe()
    client = lab.client()
    client.connect("127.9.8.7", 443)
    with lab.accept() as sock:
        before = lab.bind(client.pid)
        lab.kernel.drain()
        client.close()
        until(lambda: lab.entry(client.pid) is None)
        assert read_answer(sock).reason is KernelReason.PROCESS_CHANGED
    assert EventKind.EXIT in {e.kind for e in lab.kernel.drain() if e.tgid == client.pid}
    assert not lab.kernel.settle(before.tgid, before.start_ns, before.exec_id, ProcessState.BOUND, 7)


def test_foreign_user_namespace_is_seen(lab: Lab) -> None:
    """unshare(CLONE_NEWUSER) after the verdict: the next connect is asked again, and the record carries the flag."""
    lab.rule_exe()
    client = lab.client()
    client.run("pass")
    lab.bind(client.pid)
    client.run("import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0")
    assert client.connect("127.9.8.7", 443) == 0
    with lab.accept() as sock:
        answer = read_answer(sock)
        assert answer.record.flags & ProcessFlag.FOREIGN_USERNS
        assert answer.state is ProcessState.PENDING


def test_foreign_mount_namespace_is_seen(lab: Lab) -> None:
    """unshare(CLONE_NEWNS) likewise."""
    lab.rule_exe()
    client = lab.client()
    client.run("import ctypes\nassert ctypes.CDLL(None).unshare(0x20000) == 0")
    assert client.connect("127.9.8.7", 443) == 0
    assert lab.answer().record.flags == ProcessFlag.FOREIGN_MNTNS


def test_tracer_is_seen(lab: Lab) -> None:
    """A traced thread's connect carries the flag; an untraced one's does not."""
    lab.rule_exe()
    client = lab.client()
    client.run("import ctypes\nassert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0")  # PTRACE_TRACEME
    assert client.connect("127.9.8.7", 443) == 0
    assert lab.answer().record.flags == ProcessFlag.TRACED
    plain = lab.client()
    assert plain.connect("127.9.8.7", 443) == 0
    assert lab.answer().record.flags == 0


def test_new_filters_ask_again(lab: Lab) -> None:
    """After a swap a bound process must be settled under the new set, and one no longer listed passes straight."""
    lab.rule_exe()
    client = lab.client()
    assert client.connect("127.9.8.7", 443) == 0
    with lab.accept() as sock:
        entry = lab.bind(client.pid)
        assert read_answer(sock).current
        lab.rule(KernelFilter(exe=lab.exe(lab.bound), uid=None, script=None), revision=2)
        answer = read_answer(sock)
        assert (answer.current, answer.revision, answer.record.revision) == (False, 2, 1)
        assert lab.kernel.settle(entry.tgid, entry.start_ns, entry.exec_id, ProcessState.BOUND, 8)
        answer = read_answer(sock)
        assert (answer.current, answer.identity, answer.bound) == (True, 8, True)
        lab.rule(KernelFilter(exe=lab.exe(lab.other), uid=None, script=None), revision=3)
        assert not lab.kernel.settle(entry.tgid, entry.start_ns, entry.exec_id, ProcessState.BOUND, 8)
    assert not redirected(lab, client)


def test_settled_as_nobody_passes_straight(lab: Lab) -> None:
    """What user space finds to be nobody's is left alone until it runs another program."""
    lab.rule_exe()
    client = lab.client()
    client.run("pass")
    entry = lab.entry(client.pid)
    assert entry is not None
    assert lab.kernel.settle(entry.tgid, entry.start_ns, entry.exec_id, ProcessState.UNBOUND, 0)
    assert not redirected(lab, client)


def test_swap_never_lets_a_listed_process_through(lab: Lab) -> None:
    """While filters are swapped hundreds of times, every connect of a listed process is redirected."""
    lab.rule_exe()
    client = lab.client()
    assert client.process.stdin is not None
    assert client.process.stdout is not None
    one = f"c = socket.socket(); c.settimeout(5); c.connect(('127.0.0.1', {lab.service})); c.close()"
    client.process.stdin.write(json.dumps(f"for _ in range(400): {one}\nresult = 'done'") + "\n")
    client.process.stdin.flush()
    rule = KernelFilter(exe=lab.exe(lab.bound), uid=None, script=None)
    for number in range(400):
        lab.kernel.swap_filters([rule], ports=[lab.service], excluded=["192.0.2.0/24"], revision=number)
        lab.accept().close()
    assert '"done"' in client.process.stdout.readline()
    lab.straight4.settimeout(0)
    with pytest.raises(BlockingIOError):
        lab.straight4.accept()
    lab.straight4.settimeout(5)


def test_interpreter_of_the_machine_is_untouched(lab: Lab) -> None:
    """An unrelated Python on the same machine has no entry and pays one look-up."""
    lab.rule_exe()
    client = lab.client(PYTHON)
    assert not redirected(lab, client)
    assert lab.entry(client.pid) is None


def test_full_table_refuses_and_says_so(lab: Lab) -> None:
    """A listed process for which there is no room is refused (table-full), one that is not listed is not."""
    lab.rule_exe()
    shape = lab.fill_table()
    try:
        client, stranger = lab.client(), lab.client(lab.other)
        assert client.connect("127.9.8.7", 443) == errno.ECONNREFUSED
        assert {e.reason for e in lab.refusals()} == {KernelReason.TABLE_FULL}
        assert not redirected(lab, stranger)
    finally:
        lab.empty_table(shape)
    assert redirected(lab, lab.client())
