"""Who a process is: one identity, or a reason."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.errors import Refusal, ResourceError
from control.facts.model import Facts, FileId, PackageFact, PathFact, ProcessKey
from control.identity.account import Accounts, resolve
from control.identity.match import explain, identify, mismatch, wanted
from control.identity.model import Identity, Selector
from control.identity.selector.registry import KINDS
from control.reason import Reason
from control.units import ExecId, Gid, Pid, StartNs, Uid

EXE, SCRIPT, SHA = "/usr/bin/python3.11", "/opt/oci/bin/oci", "ab" * 32


def path(text: str, fault: str = "") -> PathFact:
    """A path that is root's alone unless ``fault`` says otherwise."""
    return PathFact(text, FileId(1, 2), not fault, fault)


def facts(
    *,
    uid: int = 1001,
    exe: PathFact | None = None,
    sha: str | None = SHA,
    script: PathFact | None = None,
    traced: bool = False,
    foreign: str = "",
) -> Facts:
    """Facts of the OCI CLI unless told otherwise."""
    key = ProcessKey(Pid(7), StartNs(1), ExecId(1))
    return Facts(key, Uid(uid), Gid(uid), exe or path(EXE), sha, script or path(SCRIPT), traced, foreign)


def identity(name: str = "oci-cli", *groups: dict[str, tuple[str, ...]], allow_root: bool = False) -> Identity:
    """An identity whose selectors are ``groups``; uid, executable and script when there are none."""
    wanted = groups or ({"unix:uid": ("1001",), "unix:exe:path": (EXE,), "script:path": (SCRIPT,)},)
    selectors = tuple(tuple(Selector(kind, values) for kind, values in group.items()) for group in wanted)
    return Identity(name, f"spiffe://t/{name}", "prod", selectors, allow_root=allow_root)


def reason(found: Identity | Refusal) -> Reason:
    """The reason of a refusal; GRANTED for an identity."""
    return found.reason if isinstance(found, Refusal) else Reason.GRANTED


def test_a_process_that_meets_every_selector_of_a_group_is_that_identity() -> None:
    """uid, executable and script together."""
    assert identify(facts(), [identity()]) == identity()


@pytest.mark.parametrize(
    "other",
    [
        facts(uid=1002),
        facts(exe=path("/usr/bin/python3.12")),
        facts(script=path("/home/u/oci")),
        facts(script=path("/opt/oci/bin/oci2")),
    ],
)
def test_one_selector_that_fails_is_no_identity(other: Facts) -> None:
    """Another uid, executable or script: nobody, and so untouched."""
    assert reason(identify(other, [identity()])) is Reason.IDENTITY_NONE


def test_a_plain_executable_has_no_script() -> None:
    """A missing script never equals one."""
    plain = Facts(ProcessKey(Pid(7), StartNs(1), ExecId(1)), Uid(1001), Gid(1), path(EXE), SHA, None, False)
    assert reason(identify(plain, [identity()])) is Reason.IDENTITY_NONE


def test_values_are_alternatives_and_groups_are_alternatives() -> None:
    """Any of the values, any of the groups."""
    either = identity("x", {"unix:uid": ("1000", "1001")}, {"unix:exe:path": ("/usr/bin/curl",)})
    assert identify(facts(), [either]) == either
    assert identify(facts(uid=5, exe=path("/usr/bin/curl")), [either]) == either
    assert reason(identify(facts(uid=5), [either])) is Reason.IDENTITY_NONE


def test_two_identities_are_refused_and_both_are_named() -> None:
    """Nobody guesses which one was meant."""
    found = identify(facts(), [identity(), identity("by-uid", {"unix:uid": ("1001",)})])
    assert isinstance(found, Refusal)
    assert found.reason is Reason.IDENTITY_AMBIGUOUS
    assert '"by-uid"' in found.detail
    assert '"oci-cli"' in found.detail


def test_a_traced_process_is_refused_and_an_unrelated_one_is_left_alone() -> None:
    """A debugger takes the identity away; whoever has none is not told about debuggers."""
    assert reason(identify(facts(traced=True), [identity()])) is Reason.PROCESS_TRACED
    assert reason(identify(facts(traced=True, uid=5), [identity()])) is Reason.IDENTITY_NONE


def test_a_foreign_namespace_is_refused_by_its_name() -> None:
    """The genuine executable with another /etc around it."""
    found = identify(facts(foreign="mount namespace"), [identity()])
    assert isinstance(found, Refusal)
    assert found.reason is Reason.NAMESPACE_FOREIGN
    assert "mount namespace" in found.detail


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (facts(exe=path(EXE, "/usr/bin is owned by uid 5")), Reason.EXE_PATH_UNTRUSTED),
        (facts(script=path(SCRIPT, "/opt is owned by uid 5")), Reason.SCRIPT_PATH_UNTRUSTED),
    ],
)
def test_a_path_that_others_may_change_is_refused_with_the_component(other: Facts, expected: Reason) -> None:
    """The right text at an untrusted place is a reason of its own; with another uid it is nobody."""
    found = identify(other, [identity()])
    assert isinstance(found, Refusal)
    assert found.reason is expected
    assert "owned by uid 5" in found.detail
    wrong_uid = Facts(other.key, Uid(9), other.gid, other.exe, other.exe_sha256, other.script, False)
    assert reason(identify(wrong_uid, [identity()])) is Reason.IDENTITY_NONE


def test_a_digest_holds_wherever_the_file_lies() -> None:
    """The path may be anybody's when the bytes are the right ones; no digest is no match."""
    by_digest = identity("x", {"unix:uid": ("1001",), "unix:exe:sha256": (SHA,)})
    assert identify(facts(exe=path("/home/u/tool", "owned by uid 1001")), [by_digest]) == by_digest
    assert reason(identify(facts(sha=None), [by_digest])) is Reason.IDENTITY_NONE
    assert reason(identify(facts(sha="cd" * 32), [by_digest])) is Reason.IDENTITY_NONE


def test_root_is_nobody_unless_the_identity_allows_it() -> None:
    """An identity by executable alone does not become root's by the way."""
    by_exe = identity("x", {"unix:exe:path": (EXE,)})
    assert reason(identify(facts(uid=0), [by_exe])) is Reason.IDENTITY_NONE
    allowed = identity("x", {"unix:exe:path": (EXE,)}, allow_root=True)
    assert identify(facts(uid=0), [allowed]) == allowed
    assert any(not clause.holds and clause.kind == "allowRoot" for clause in explain(facts(uid=0), [by_exe])[0].alternatives[0])


def test_explain_shows_every_clause_of_every_identity() -> None:
    """What was wanted, whether it holds, what was seen."""
    shown = explain(facts(uid=7), [identity(), identity("other", {"unix:uid": ("7",)})])
    assert [one.identity for one in shown] == ["oci-cli", "other"]
    assert [(c.kind, c.holds, c.saw) for c in shown[0].alternatives[0]] == [
        ("unix:uid", False, "7"),
        ("unix:exe:path", True, EXE),
        ("script:path", True, SCRIPT),
    ]
    assert [one.matches for one in shown] == [False, True]


@given(st.integers(0, 2**32 - 2), st.sampled_from([EXE, "/usr/bin/curl", "/x"]), st.booleans())
def test_an_identity_is_only_given_when_every_clause_holds(uid: int, exe: str, trusted: bool) -> None:
    """identify and explain never disagree."""
    asked = facts(uid=uid, exe=path(exe, "" if trusted else "not root's"))
    several = [identity("a", {"unix:uid": ("1001",), "unix:exe:path": (EXE,)}), identity("b", {"unix:exe:path": ("/usr/bin/curl",)})]
    found = identify(asked, several)
    matching = [one.identity for one in explain(asked, several) if one.matches]
    assert (isinstance(found, Identity) and [found.name] == matching) or (isinstance(found, Refusal) and len(matching) != 1)


MD5 = "cd" * 16
CURL = "/usr/bin/curl"
BY_PACKAGE = identity("curl", {"unix:uid": ("1001",), "unix:exe:package": ("curl", "curl:amd64")})


def packaged(exe: str = CURL, *, md5: str | None = MD5, says: str = MD5, fault: str = "", package: str = "curl") -> Facts:
    """Facts of a program that a package owns."""
    return msgspec.structs.replace(facts(exe=path(exe, fault)), script=None, exe_md5=md5, packages=(PackageFact(package, says),))


def test_a_gid_holds_for_every_thread_or_not_at_all() -> None:
    """The effective one; a process whose threads differ has none."""
    by_gid = identity("g", {"unix:uid": ("1001",), "unix:gid": ("1001",)})
    assert identify(facts(), [by_gid]) == by_gid
    assert reason(identify(msgspec.structs.replace(facts(), gid=Gid(5)), [by_gid])) is Reason.IDENTITY_NONE
    mixed = msgspec.structs.replace(facts(), one_gid=False)
    assert reason(identify(mixed, [by_gid])) is Reason.IDENTITY_NONE
    assert "another gid in others" in mismatch(mixed, [by_gid])


def test_a_packages_program_needs_path_owner_and_content() -> None:
    """Owned, root's alone, with the package's MD5; each failing alone has its own answer."""
    assert identify(packaged(), [BY_PACKAGE]) == BY_PACKAGE
    assert reason(identify(msgspec.structs.replace(packaged(), packages=()), [BY_PACKAGE])) is Reason.IDENTITY_NONE
    assert reason(identify(packaged(package="wget"), [BY_PACKAGE])) is Reason.IDENTITY_NONE
    assert reason(identify(packaged(fault="/usr is owned by uid 5"), [BY_PACKAGE])) is Reason.EXE_PATH_UNTRUSTED
    for other in (packaged(md5="00" * 16), packaged(md5=None), packaged(says=""), packaged(md5="", says="")):
        found = identify(other, [BY_PACKAGE])
        assert isinstance(found, Refusal)
        assert found.reason is Reason.EXE_MODIFIED
        assert "MD5" in found.detail
    unread = msgspec.structs.replace(packaged(), packages=(PackageFact("curl", "", "dpkg's database is not root's alone"),))
    assert reason(identify(unread, [BY_PACKAGE])) is Reason.IDENTITY_NONE
    assert "dpkg's database is not root's alone" in mismatch(unread, [BY_PACKAGE])


@pytest.mark.parametrize(
    "program", ["/usr/bin/python3.11", "/usr/bin/bash", "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "/usr/bin/env"]
)
def test_an_interpreter_of_a_package_needs_its_script(program: str) -> None:
    """The package alone is never enough; with the script beside it, it is."""
    bare = packaged(program)
    assert reason(identify(bare, [BY_PACKAGE])) is Reason.IDENTITY_NONE
    assert "runs whatever it is told to" in mismatch(bare, [BY_PACKAGE])
    scripted = identity("s", {"unix:exe:package": ("curl",), "script:path": (SCRIPT,)})
    assert identify(msgspec.structs.replace(bare, script=path(SCRIPT)), [scripted]) == scripted
    assert reason(identify(bare, [scripted])) is Reason.IDENTITY_NONE


def test_a_relay_of_a_package_is_nobody() -> None:
    """ssh speaks for others, with a script beside it or without."""
    for group in ({"unix:exe:package": ("curl",)}, {"unix:exe:package": ("curl",), "script:path": (SCRIPT,)}):
        asked = msgspec.structs.replace(packaged("/usr/bin/ssh"), script=path(SCRIPT))
        assert reason(identify(asked, [identity("r", group)])) is Reason.IDENTITY_NONE


def test_a_scripts_digest_counts_only_where_root_alone_could_put_it() -> None:
    """The right bytes at a path that others may change are what was shown, not what ran."""
    by_digest = identity("x", {"unix:uid": ("1001",), "script:path": (SCRIPT,), "script:sha256": (SHA,)})
    good = msgspec.structs.replace(facts(), script_sha256=SHA)
    assert identify(good, [by_digest]) == by_digest
    assert reason(identify(msgspec.structs.replace(good, script_sha256="cd" * 32), [by_digest])) is Reason.IDENTITY_NONE
    assert reason(identify(msgspec.structs.replace(good, script_sha256=None), [by_digest])) is Reason.IDENTITY_NONE
    assert reason(identify(msgspec.structs.replace(good, script=None), [by_digest])) is Reason.IDENTITY_NONE
    loose = msgspec.structs.replace(good, script=path(SCRIPT, "/opt is owned by uid 5"))
    found = identify(loose, [by_digest])
    assert isinstance(found, Refusal)
    assert found.reason is Reason.SCRIPT_PATH_UNTRUSTED


def test_people_are_told_what_was_seen_and_what_would_have_matched() -> None:
    """In one line for each clause that failed, of the identity that came nearest."""
    several = [identity("far", {"unix:uid": ("7",), "unix:exe:path": ("/x",)}), identity()]
    assert mismatch(facts(uid=5), several) == 'not "oci-cli": unix:uid: NO (saw 5; wants 1001)'
    assert mismatch(facts(), []) == ""
    by_name = identity("n", {"unix:user": ("svc", "old")})
    assert mismatch(facts(uid=5), [by_name]) == ('not "n": unix:user: NO (saw uid 5; wants svc or old (not looked up on this machine))')
    known = resolve([by_name], Accounts({"svc": 7}, {}))
    assert mismatch(facts(uid=5), known) == 'not "n": unix:user: NO (saw uid 5; wants svc or old (svc is 7, old is nobody))'
    loose = facts(exe=path(EXE, "/usr is owned by uid 5"))
    assert mismatch(loose, [identity()]) == (f'not "oci-cli": unix:exe:path: NO (saw {EXE}, but /usr is owned by uid 5; wants {EXE})')


def test_what_nobody_names_is_not_wanted() -> None:
    """By kind; digests and packages are only read for somebody."""
    assert wanted([identity(), BY_PACKAGE]) == {
        "unix:uid": {"1001"},
        "unix:exe:path": {EXE},
        "script:path": {SCRIPT},
        "unix:exe:package": {"curl", "curl:amd64"},
    }
    assert wanted([]) == {}


Check = Callable[[str], str]


@pytest.mark.parametrize(
    ("kind", "given_value", "normal"),
    [
        ("unix:uid", "1001", "1001"),
        ("unix:uid", "0", "0"),
        ("unix:exe:path", EXE, EXE),
        ("script:path", "/opt/a b/x", "/opt/a b/x"),
        ("unix:exe:sha256", "AB" * 32, SHA),
        ("script:sha256", "AB" * 32, SHA),
        ("unix:gid", "100", "100"),
        ("unix:user", "svc-backup", "svc-backup"),
        ("unix:user", "machine$", "machine$"),
        ("unix:group", "_ops.x", "_ops.x"),
        ("unix:exe:package", "libstdc++6:amd64", "libstdc++6:amd64"),
        ("unix:exe:package", "curl", "curl"),
    ],
)
def test_a_good_value_gets_its_normal_form(kind: str, given_value: str, normal: str) -> None:
    """Digests become lower case, the rest stays."""
    assert KINDS[kind].check(given_value) == normal


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("unix:uid", "oci"),
        ("unix:uid", "01"),
        ("unix:uid", "-1"),
        ("unix:uid", "4294967295"),
        ("unix:uid", "٣"),
        ("unix:exe:path", "python3"),
        ("unix:exe:path", "/usr/bin/*"),
        ("unix:exe:path", "/usr//bin/x"),
        ("unix:exe:path", "/usr/bin/../x"),
        ("unix:exe:path", "/usr/bin/"),
        ("unix:exe:path", "/usr/bin/ру"),
        ("unix:exe:path", "/" + "a" * 255),
        ("script:path", "/x\n"),
        ("unix:exe:sha256", "abc"),
        ("unix:exe:sha256", "g" * 64),
        ("script:sha256", "abc"),
        ("unix:gid", "ops"),
        ("unix:gid", "4294967295"),
        ("unix:user", "1001"),
        ("unix:user", "ро"),
        ("unix:user", "a b"),
        ("unix:user", "../x"),
        ("unix:user", "a" * 33),
        ("unix:group", "100"),
        ("unix:group", "-x"),
        ("unix:exe:package", "Curl"),
        ("unix:exe:package", "c"),
        ("unix:exe:package", "curl:"),
        ("unix:exe:package", "curl*"),
        ("unix:exe:package", "../curl"),
        ("unix:exe:package", "curl/.."),
        ("unix:exe:package", "curl\n"),
    ],
)
def test_a_bad_value_is_refused_with_a_hint(kind: str, value: str) -> None:
    """Names for uids, globs, second spellings, look-alikes, paths that the kernel's table cannot hold."""
    with pytest.raises(ResourceError) as caught:
        KINDS[kind].check(value)
    assert caught.value.hint
