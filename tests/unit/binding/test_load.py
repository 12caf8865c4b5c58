"""Documents: the good one becomes what it says, and each bad one is told where and what to try."""

from datetime import date

import pytest

from control.binding.load import Loaded, load
from control.binding.model import (
    BasicSigner,
    BearerSigner,
    CookieSigner,
    Destination,
    HeaderSigner,
    OciSigner,
    OciSource,
    QuerySigner,
    StaticSource,
    WireSigner,
)
from control.errors import ResourceError
from control.identity.model import Selector
from control.reason import Reason
from tests.unit.binding.bad import BAD, DANGLING, DUPLICATE, OVERBROAD, Bad
from tests.unit.binding.bad_static import BAD_STATIC, ORDERS, SECRET
from tests.unit.binding.docs import GOOD, SECOND, changed


def no_roots(path: str) -> str:
    """A look-up that knows one CA file."""
    if path == "/etc/credwire/ca.pem":
        return "PEM"
    raise ResourceError(Reason.RESOURCE_MALFORMED, f'CA file "{path}" is not there', hint="check the path")


def loaded(text: str, *further: str, today: date | None = None) -> Loaded:
    """Load one or several files."""
    files = [(f"{name}.yaml", one) for name, one in zip("abc", (text, *further), strict=False)]
    return load(files, no_roots, "corp.example", today=today)


def test_a_good_set_becomes_what_it_says() -> None:
    """Every field ends up where the later stages look."""
    found, errors, warnings = loaded(GOOD)
    assert errors == []
    assert warnings == []
    assert found is not None
    (identity,), (source,), (binding,) = found.identities, found.sources, found.bindings
    assert (identity.name, identity.spiffe_id, identity.environment, identity.egress) == (
        "oci-cli",
        "spiffe://corp.example/ops/oci-cli",
        "prod",
        "open",
    )
    assert identity.selectors == (
        (
            Selector("unix:uid", ("1001",)),
            Selector("unix:exe:path", ("/usr/bin/python3.11",)),
            Selector("script:path", ("/opt/oci/bin/oci",)),
        ),
    )
    assert (source.name, source.kind, source.audience, source.principal, source.ttl_cap_s) == (
        "oci-upst",
        "oci",
        "oci-prod",
        "svc-oci-cli",
        1800,
    )
    assert isinstance(source.of, OciSource)
    assert (source.of.domain, source.of.client_id) == ("https://idcs-1.identity.oraclecloud.com", "app")
    assert source.of.client_secret_file == "/etc/credwire/secrets/oci"
    assert (binding.name, binding.identity, binding.source, binding.signer, binding.mode) == (
        "oci-prod",
        "oci-cli",
        "oci-upst",
        OciSigner(),
        "enforce",
    )
    assert binding.destinations == (Destination(("*.us-ashburn-1.oraclecloud.com",), (443,), ("GET",), ("/20160918/users*",)),)
    assert found.owners["Federation/oci-domain"] == "team@example.org"


def test_the_split_into_files_does_not_matter_but_the_digest_sees_it() -> None:
    """Names are looked up over all files; the digest tells any change, also of a CA file."""
    whole = loaded(GOOD).found
    parts = GOOD.split("---\n")
    split = loaded("---\n".join(parts[2:]), "---\n".join(parts[:2])).found
    assert whole is not None
    assert split is not None
    assert (split.identities, split.sources, split.bindings) == (whole.identities, whole.sources, whole.bindings)
    assert split.digest != whole.digest
    assert loaded(GOOD).found == whole


def test_defaults_are_the_strict_ones() -> None:
    """Port 443, enforce, refuse, refuse, open, one hour."""
    text = GOOD
    for line in (
        "      ports: [443]\n",
        "  mode: enforce\n",
        "  onLeaseFailure: refuse\n",
        "  onDaemonDown: refuse\n",
        "  egress: open\n",
        "  ttlCap: 30m\n",
    ):
        assert line in text
        text = text.replace(line, "")
    found = loaded(text).found
    assert found is not None
    binding = found.bindings[0]
    assert (binding.mode, binding.on_lease_failure, binding.on_daemon_down) == ("enforce", "refuse", "refuse")
    assert binding.destinations[0].ports == (443,)
    assert (found.identities[0].egress, found.sources[0].ttl_cap_s) == ("open", 3600)


def test_upstream_roots_become_their_content() -> None:
    """For destinations and for the identity domain."""
    text = changed("      ports: [443]", "      upstreamRoots: /etc/credwire/ca.pem").replace(
        "    clientAuth", "    upstreamRoots: /etc/credwire/ca.pem\n    clientAuth"
    )
    found, errors, _ = loaded(text)
    assert errors == []
    assert found is not None
    assert found.bindings[0].destinations[0].upstream_roots == "PEM"
    assert found.sources[0].of.upstream_roots == "PEM"


@pytest.mark.parametrize("bad", BAD, ids=[f"{number}-{bad.says}" for number, bad in enumerate(BAD)])
def test_a_bad_document_is_told_where_and_what_to_try(bad: Bad) -> None:
    """One change to the good set: no set, and an error with its reason, file:line:column, sentence and hint."""
    found, errors, _ = loaded(changed(bad.old, bad.new))
    assert found is None
    fitting = [error for error in errors if bad.says in error.message]
    assert fitting, [str(error) for error in errors]
    error = fitting[0]
    assert error.reason is bad.reason
    assert error.place is not None
    assert error.place.file == "a.yaml"
    assert bad.at in (None, (error.place.line, error.place.column)), str(error)
    assert bad.hint in error.hint


@pytest.mark.parametrize("bad", BAD_STATIC, ids=[f"{number}-{bad.says}" for number, bad in enumerate(BAD_STATIC)])
def test_a_bad_static_source_or_signer_is_told_and_no_error_repeats_a_secret(bad: Bad) -> None:
    """The same for secrets of people's making; what may be one is in no sentence and in no hint."""
    assert ORDERS.count(bad.old) == 1, bad.old
    found, errors, _ = loaded(ORDERS.replace(bad.old, bad.new), GOOD)
    assert found is None
    fitting = [error for error in errors if bad.says in error.message]
    assert fitting, [str(error) for error in errors]
    assert fitting[0].reason is bad.reason
    place = fitting[0].place
    assert place is not None
    assert bad.at in (None, (place.line, place.column)), str(fitting[0])
    assert bad.hint in fitting[0].hint
    assert SECRET not in "".join(str(error) + error.hint for error in errors)


@pytest.mark.parametrize(
    ("wire", "signer"),
    [
        ("signer: header, header: X-Api-Key", HeaderSigner("x-api-key")),
        ('signer: header, header: Authorization, template: "Token {secret}"', HeaderSigner("authorization", "Token {secret}")),
        ("signer: bearer", BearerSigner()),
        ("signer: basic, username: svc", BasicSigner("svc")),
        ("signer: query, parameter: api_key", QuerySigner("api_key")),
        ("signer: cookie, cookie: __Host-session", CookieSigner("__Host-session")),
    ],
)
def test_a_static_source_is_used_by_five_signers(wire: str, signer: WireSigner) -> None:
    """Without a federation; its life is the time until it is read again."""
    found, errors, _ = loaded(GOOD, ORDERS.replace("signer: header, header: X-Api-Key", wire))
    assert [str(error) for error in errors] == []
    assert found is not None
    source, binding = found.sources[1], found.bindings[1]
    assert (source.kind, source.of, source.ttl_cap_s) == ("static", StaticSource(file="/etc/credwire/secrets/orders-key"), 3600)
    assert (source.audience, source.principal) == ("", "")
    assert binding.signer == signer
    by_systemd = ORDERS.replace("file: /etc/credwire/secrets/orders-key", "systemdCredential: orders-key")
    found = loaded(GOOD, by_systemd).found
    assert found is not None
    assert found.sources[1].of == StaticSource(systemd_credential="orders-key")


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("refuse", ("refuse", 0)),
        ("passthrough", ("passthrough", 0)),
        ("{stale: 10m}", ("stale", 600)),
        ("\n    stale: 24h", ("stale", 86400)),
    ],
)
def test_what_happens_without_a_lease(written: str, means: tuple[str, int]) -> None:
    """Refuse, use the last one for a while, or send without."""
    found = loaded(changed("onLeaseFailure: refuse", f"onLeaseFailure: {written}")).found
    assert found is not None
    assert (found.bindings[0].on_lease_failure, found.bindings[0].stale_s) == means


def test_places_and_reviews_are_kept_for_people() -> None:
    """Where each resource stands and when somebody last looked."""
    found = loaded(GOOD).found
    assert found is not None
    assert found.places["WorkloadCredential/oci-prod"] == "a.yaml:40:18"
    assert found.reviews == {"Federation/oci-domain": "2026-01-01"}
    assert set(found.places) == set(found.owners)


def test_all_errors_are_told_not_only_the_first() -> None:
    """Over several documents, kinds and files, in the order of their places."""
    text = changed("egress: open", "egress: closed").replace("issuer: self", "issuer: other").replace("methods: [GET]", "methods: [get]")
    _, errors, _ = loaded(text, "a: [", "kind: Federation\n")
    files = [error.place.file for error in errors if error.place]
    lines = [error.place.line for error in errors if error.place and error.place.file == "a.yaml"]
    assert lines == [12, 19, 49]
    assert files == sorted(files)
    assert {"a.yaml", "b.yaml", "c.yaml"} == set(files)


def test_a_duplicate_name_names_both_places() -> None:
    """Over files as well."""
    _, errors, _ = loaded(GOOD, GOOD.split("---\n", maxsplit=1)[0].replace("ops/oci-cli", "ops/other"))
    (error,) = errors
    assert error.reason is DUPLICATE
    assert str(error.place) == "b.yaml:3:18"
    assert "a.yaml:3:18" in error.message


def test_two_identities_of_one_spiffe_id_are_refused() -> None:
    """A workload ID belongs to one identity."""
    _, errors, _ = loaded(GOOD, GOOD.split("---\n", maxsplit=1)[0].replace("name: oci-cli", "name: other"))
    assert [error.reason for error in errors] == [DUPLICATE]
    assert 'belongs to identity "oci-cli" already (a.yaml:3:18)' in errors[0].message


@pytest.mark.parametrize(
    ("old", "new", "ties"),
    [
        ("paths", "paths", True),
        ('paths: ["/20160918/users*"]', "methods: [GET]", False),  # any path is less specific
        ('["/20160918/users*"]', '["/20160918/groups*"]', False),
        ('["/20160918/users*"]', '["/20160918/users*", "/x"]', True),
        ('["/20160918/users*"]', '["/20160918/user%73*"]', True),
        ('["/20160918/users*"]', '["/20160918/*"]', False),
        ('paths: ["/20160918/users*"]', 'paths: ["/20160918/users*"], methods: [POST]', False),
        ('paths: ["/20160918/users*"]', 'paths: ["/20160918/users*"], ports: [8443]', False),
        ('paths: ["/20160918/users*"]', 'paths: ["/20160918/users*"], ports: [8443, 443]', True),
        ("*.us-ashburn-1", "*.US-ASHBURN-1", True),
        ("*.us-ashburn-1", "identity.us-ashburn-1", False),
        ("  source: oci-upst", "  mode: observe\n  source: oci-upst", True),  # else the observing one might take its traffic
    ],
)
def test_bindings_that_tie_are_refused(old: str, new: str, ties: bool) -> None:
    """Same identity, host, port, a common method, equally specific globs over a common path, whatever the modes; less is decided."""
    assert old in SECOND
    _, errors, _ = loaded(GOOD + SECOND.replace(old, new))
    assert [error.reason for error in errors] == ([DUPLICATE] if ties else []), [str(e) for e in errors]
    if ties:
        assert "tie at" in errors[0].message
        assert "a.yaml:47:7" in errors[0].message


@pytest.mark.parametrize(
    ("field", "name"), [("networks: [10.0.0.0/8]", "networks"), ("upstreamRoots: /etc/credwire/ca.pem", "upstreamRoots")]
)
def test_bindings_that_disagree_before_the_path_is_known_are_refused(field: str, name: str) -> None:
    """Roots and networks are needed at the handshake."""
    second = SECOND.replace('["/20160918/users*"]', '["/other"]').replace(", paths", f", {field}, paths")
    _, errors, _ = loaded(GOOD + second)
    assert [error.reason for error in errors] == [DUPLICATE]
    assert f"disagree about {name}" in errors[0].message


def test_identities_that_can_meet_are_warned_of() -> None:
    """One by uid, one by uid and executable; exclusive ones are not."""
    other = """\
---
apiVersion: credwire/v1alpha1
kind: WorkloadIdentity
metadata: {name: other}
spec: {owner: a@b, workloadID: other, environment: prod, selectors: [{unix:uid: 1001}]}
"""
    _, errors, warnings = loaded(GOOD + other)
    assert errors == []
    assert [w.reason for w in warnings] == [Reason.IDENTITY_AMBIGUOUS, DANGLING]  # the second: nothing uses it
    assert '"oci-cli" and "other"' in warnings[0].message
    _, _, exclusive = loaded(GOOD + other.replace("1001", "1002"))
    assert [w.reason for w in exclusive] == [DANGLING]


def test_an_overdue_review_is_warned_of() -> None:
    """reviewedAt plus reviewEvery has passed; before that, silence; a review in the future is an error."""
    assert loaded(GOOD, today=date(2026, 1, 20)).warnings == []
    (warning,) = loaded(GOOD, today=date(2026, 3, 1)).warnings
    assert "due on 2026-01-31" in warning.message
    assert loaded(GOOD, today=date(2025, 1, 1)).found is None


def test_root_may_be_allowed_by_name() -> None:
    """allowRoot is the explicit word."""
    text = changed("unix:uid: 1001", "unix:uid: 0").replace("  egress: open", "  allowRoot: true")
    found = loaded(text).found
    assert found is not None
    assert found.identities[0].allow_root


@pytest.mark.parametrize(
    "path",
    [
        "/usr/bin/python3",
        "/usr/bin/python3.11",
        "/usr/bin/node",
        "/usr/bin/java",
        "/bin/sh",
        "/bin/bash",
        "/usr/bin/dash",
        "/usr/bin/perl5.36.0",
        "/usr/bin/ruby3.1",
        "/usr/bin/php8.2",
        "/usr/bin/php-fpm8.2",
        "/usr/bin/env",
        "/usr/bin/busybox",
        "/usr/bin/perl5.36-x86_64-linux-gnu",
        "/usr/bin/luajit-2.1.0-beta3",
        "/usr/bin/bash-static",
        "/usr/bin/vim.basic",
        "/lib64/ld-linux-x86-64.so.2",
        "/usr/bin/lua5.4",
    ],
)
def test_a_bare_interpreter_is_refused_even_with_a_uid(path: str) -> None:
    """It runs whatever it is told to; with a script it is that script."""
    bare = changed("/usr/bin/python3.11\n      script:path: /opt/oci/bin/oci", path)
    assert [error.reason for error in loaded(bare).errors] == [OVERBROAD]
    assert loaded(changed("/usr/bin/python3.11", path)).errors == []


@pytest.mark.parametrize(
    "path", ["/usr/bin/curl", "/usr/bin/git", "/usr/lib/git-core/git-remote-http", "/opt/app/server", "/usr/bin/javac-like-tool"]
)
def test_a_program_of_its_own_needs_no_script(path: str) -> None:
    """The success beside the refusal."""
    assert loaded(changed("/usr/bin/python3.11\n      script:path: /opt/oci/bin/oci", path)).errors == []


def test_a_file_without_documents_is_an_empty_set() -> None:
    """A new install does nothing until told."""
    found, errors, warnings = loaded("# nothing yet\n---\n---\n")
    assert (errors, warnings) == ([], [])
    assert found is not None
    assert found.identities == ()


def test_a_document_that_is_no_mapping_is_named() -> None:
    """A list or a word at the top."""
    assert "the document is a list" in loaded("- a\n").errors[0].message
    assert 'the document is "hello"' in loaded("hello\n").errors[0].message


@pytest.mark.parametrize("text", ["[" * 500, "{" * 500, "- " * 500 + "x", "a: " + "x" * 100_000, "? " * 200 + "x", "a:\n" + " b:\n" * 3])
def test_hostile_nesting_ends_with_an_error(text: str) -> None:
    """No recursion without end, no traceback."""
    found, errors, _ = loaded(text)
    assert found is None
    assert errors
