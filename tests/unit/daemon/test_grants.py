"""
The table of grants.

In: grants of two processes and two workers.  Out: each look-up finds its own and nothing else; an ended grant is remembered, not obeyed.
"""

from control.daemon.grants import KEPT_AFTER, Grant, Grants
from control.facts.model import Facts, FileId, PathFact, ProcessKey
from control.units import ExecId, Gid, Pid, Revision, StartNs, Uid, UnixSeconds


def grant(name: str, *, tgid: int = 10, exec_id: int = 1, worker: int = 0, bindings: tuple[str, ...] = ("b",)) -> Grant:
    key = ProcessKey(Pid(tgid), StartNs(1), ExecId(exec_id))
    exe = PathFact("/usr/bin/x", FileId(1, 2), True)
    facts = Facts(key=key, uid=Uid(1), gid=Gid(1), exe=exe, exe_sha256=None, script=None, traced=False)
    return Grant(name, worker, "i", bindings, facts, "192.0.2.1", 443, Revision(1), UnixSeconds(0))


def test_a_process_finds_its_grants_and_no_others() -> None:
    """Grants are found by pid, whatever program runs in it now; another pid's are not."""
    grants = Grants()
    for one in (grant("a"), grant("b", exec_id=2), grant("c", tgid=11)):
        grants.add(one)
    assert {g.id for g in grants.of_process(10)} == {"a", "b"}
    assert grants.of_process(12) == []


def test_a_dropped_grant_gives_nothing_but_its_name() -> None:
    """After the end a grant answers "whose was it" for the audit, and no longer "may it"."""
    grants = Grants()
    grants.add(grant("a"))
    assert grants.drop("a") is not None
    assert grants.get("a") is None
    assert grants.of_process(10) == []
    assert (found := grants.whose("a")) is not None
    assert found.id == "a"
    assert grants.drop("a") is None


def test_memory_of_ended_grants_is_bounded() -> None:
    """The oldest ended grant is forgotten first."""
    grants = Grants()
    for n in range(KEPT_AFTER + 1):
        grants.add(grant(str(n)))
        grants.drop(str(n))
    assert grants.whose("0") is None
    assert grants.whose("1") is not None
    assert len(grants) == 0


def test_a_worker_finds_the_grants_it_serves() -> None:
    """When a worker dies, exactly its grants are withdrawn."""
    grants = Grants()
    grants.add(grant("a", worker=0))
    grants.add(grant("b", worker=1))
    assert [g.id for g in grants.of_worker(1)] == ["b"]


def test_processes_of_a_binding_are_those_whose_grants_cover_it() -> None:
    """binding list shows who is bound now."""
    grants = Grants()
    grants.add(grant("a", bindings=("x", "y")))
    grants.add(grant("b", tgid=11, bindings=("y",)))
    assert {key.tgid for key in grants.processes_of("y")} == {10, 11}
    assert {key.tgid for key in grants.processes_of("x")} == {10}
