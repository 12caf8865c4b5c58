"""Bad documents: each is the good one with one thing changed, and what must be said about it."""

from typing import NamedTuple

from control.reason import Reason

MALFORMED, DUPLICATE, OVERBROAD, UNCOMPILABLE, DANGLING = (
    Reason.RESOURCE_MALFORMED,
    Reason.RESOURCE_DUPLICATE,
    Reason.RESOURCE_OVERBROAD,
    Reason.RESOURCE_UNCOMPILABLE,
    Reason.RESOURCE_DANGLING,
)
GROUP = """\
    - unix:uid: 1001
      unix:exe:path: /usr/bin/python3.11
      script:path: /opt/oci/bin/oci
"""
CLIENT = "{basic: {clientId: app, clientSecretFile: /etc/credwire/secrets/oci}}"
OCI = f"""\
  oci:
    domain: https://idcs-1.identity.oraclecloud.com
    clientAuth: {CLIENT}
"""


class Bad(NamedTuple):
    """One change and its error."""

    old: str
    new: str
    reason: Reason
    at: tuple[int, int] | None
    """Line and column; None where the parser's own place does not matter."""
    says: str
    hint: str


BAD = [
    # what a document is
    Bad(
        "apiVersion: credwire/v1alpha1\nkind: WorkloadI",
        "apiVersion: credwire/v1\nkind: WorkloadI",
        MALFORMED,
        (1, 13),
        '"credwire/v1" is not known',
        "write credwire/v1alpha1",
    ),
    Bad("kind: Federation", "kind: Federatoin", MALFORMED, (15, 7), '"Federatoin" is not known', 'did you mean "Federation"'),
    Bad("kind: Federation", "kind: CredentialBinding", MALFORMED, (15, 7), "not known", "at import only"),
    Bad("kind: Federation\n", "", MALFORMED, (14, 1), "kind is missing", "add kind"),
    Bad("metadata: {name: oci-cli}\n", "", MALFORMED, (1, 1), "metadata is missing", "add metadata"),
    Bad("metadata: {name: oci-cli}", "metadata: {name: oci-cli, labels: {}}", MALFORMED, (3, 27), 'no field "labels"', "known: name"),
    Bad("metadata: {name: oci-cli}", "metadata: {name: OCI}", MALFORMED, (3, 18), '"OCI"', "oci-cli-prod"),
    Bad(
        "metadata: {name: oci-cli}",
        "metadata: {name: оci-cli}",
        MALFORMED,
        (3, 18),
        'CYRILLIC SMALL LETTER O, which looks like "o"',
        "use a-z",
    ),
    Bad("metadata: {name: oci-cli}", "metadata: {name: -x}", MALFORMED, (3, 18), '"-x"', "write it like"),
    Bad("metadata: {name: oci-cli}", "metadata: {name: 7}", MALFORMED, (3, 18), "the number 7 instead of text", "one line"),
    Bad("  egress: open", "  egres: open", MALFORMED, (12, 3), 'no field "egres"', 'did you mean "egress"'),
    Bad("  egress: open", "  Egress: open", MALFORMED, (12, 3), 'no field "Egress"', 'did you mean "egress"'),
    Bad("  egress: open", "  egress: closed", MALFORMED, (12, 11), '"closed"', "open"),
    Bad("  egress: open", "  egress: open\n  egress: open", DUPLICATE, (13, 3), "a second time; the first is at line 12", "keep one"),
    Bad("  egress: open", "  egress:\topen", MALFORMED, (12, 10), "tab", "blanks"),
    Bad("  egress: open", "  egress: &e open", MALFORMED, (12, 11), "anchor", "remove"),
    Bad("  egress: open", "  egress: *e", MALFORMED, (12, 11), "alias", "quote"),
    Bad("  egress: open", "  egress: !!str open", MALFORMED, (12, 11), "tag", "remove"),
    Bad("  egress: open", "  <<: {egress: open}", MALFORMED, (12, 3), "merge key", "write the fields out"),
    Bad("  egress: open", "  egress: open\u200b", MALFORMED, (12, 15), "ZERO WIDTH SPACE", "cannot be seen"),
    Bad("  egress: open", '  egress: "open\\u202e"', MALFORMED, (12, 11), "RIGHT-TO-LEFT OVERRIDE", "cannot be seen"),
    Bad("  egress: open", "  egress: [open", MALFORMED, None, "expected", "quotes"),
    # identities
    Bad(
        "  owner: team@example.org\n  workloadID",
        "  workloadID",
        MALFORMED,
        (5, 3),
        'spec.owner is missing (rule "owner-named")',
        "add owner",
    ),
    Bad("  owner: team@example.org\n  workloadID", "  owner: ''\n  workloadID", MALFORMED, (5, 10), "empty", "one line"),
    Bad("workloadID: ops/oci-cli", "workloadID: /ops", MALFORMED, (6, 15), '"/ops"', "segments"),
    Bad("workloadID: ops/oci-cli", "workloadID: ops/../root", MALFORMED, (6, 15), '".."', "segments"),
    Bad("workloadID: ops/oci-cli", "workloadID: ops/oci%20cli", MALFORMED, (6, 15), "oci%20cli", "segments"),
    Bad("workloadID: ops/oci-cli", "workloadID: spiffe://corp.example/x", MALFORMED, (6, 15), "whole SPIFFE ID", "path only"),
    Bad("workloadID: ops/oci-cli", "workloadID: ops/" + "x" * 2048, MALFORMED, None, "longer than 2048", "shorten"),
    Bad("  environment: prod\n  selectors", "  selectors", MALFORMED, (5, 3), "spec.environment is missing", "add environment"),
    Bad("unix:uid: 1001", "unix:uid: oci", MALFORMED, (9, 17), '"oci" is no number', "id -u oci"),
    Bad("unix:uid: 1001", "unix:uid: [1001, 1001]", DUPLICATE, (9, 17), "twice", "keep one"),
    Bad("unix:uid: 1001", "unix:uid: []", MALFORMED, (9, 17), "0 values", "name 1 to"),
    Bad("unix:uid: 1001", "unix:uid: 1.5", MALFORMED, (9, 17), '"1.5" is no number', "id -u"),
    Bad("unix:uid: 1001", "unix:uid: 0", OVERBROAD, (9, 17), "is root", "allowRoot"),
    Bad("unix:uid: 1001", "unix:uuid: 1001", MALFORMED, (9, 7), 'no selector "unix:uuid"', 'did you mean "unix:uid"'),
    Bad("unix:exe:path: /usr/bin/python3.11", "unix:exe:path: python3", MALFORMED, (10, 22), "not absolute", "from / on"),
    Bad("unix:exe:path: /usr/bin/python3.11", "unix:exe:sha256: abc", MALFORMED, (10, 24), "64 hex digits", "sha256sum"),
    Bad("      script:path: /opt/oci/bin/oci\n", "", OVERBROAD, (10, 22), "runs whatever it is told to", "add script:path"),
    Bad(
        "/usr/bin/python3.11\n      script:path: /opt/oci/bin/oci\n",
        "/usr/bin/ssh\n",
        OVERBROAD,
        (10, 22),
        "relays for others",
        "bind the program",
    ),
    Bad(
        "    - unix:uid: 1001\n      unix:exe:path: /usr/bin/python3.11\n",
        "    -\n",
        UNCOMPILABLE,
        None,
        "script:path alone",
        "add unix:exe:path or unix:uid",
    ),
    Bad(GROUP, "    - {}\n", OVERBROAD, (9, 7), "matches every process", "name unix:uid"),
    Bad(GROUP, "    []\n", MALFORMED, (9, 5), "empty list", "name something"),
    Bad(GROUP, "    unix:uid: 1001\n", MALFORMED, (9, 5), "instead of a list", "begin with -"),
    Bad(GROUP, "    - unix:exe:sha256: " + "a" * 64 + "\n", UNCOMPILABLE, (9, 7), "unix:exe:sha256 alone", "add unix:exe:path or unix:uid"),
    # federations
    Bad("issuer: self", "issuer: https://other.example", MALFORMED, (19, 11), "https://other.example", "self"),
    Bad("audience: oci-prod", "audience: [oci-prod, oci-test]", OVERBROAD, (20, 13), "several audiences", "one audience"),
    Bad("audience: oci-prod", 'audience: "*"', OVERBROAD, (20, 13), "holds a *", "name the one"),
    Bad('"sub eq spiffe://corp.example/ops/oci-cli"', '"sub eq *"', OVERBROAD, (21, 16), "more than one workload", "whole SPIFFE ID"),
    Bad(
        '"sub eq spiffe://corp.example/ops/oci-cli"',
        '"sub eq spiffe://corp.example/ops/*"',
        OVERBROAD,
        (21, 16),
        "more than one",
        "whole SPIFFE ID",
    ),
    Bad('"sub eq spiffe://corp.example/ops/oci-cli"', '"sub co oci"', OVERBROAD, (21, 16), "more than one", "whole SPIFFE ID"),
    Bad(
        '"sub eq spiffe://corp.example/ops/oci-cli"',
        '"sub eq spiffe://corp.example/other"',
        DANGLING,
        (21, 16),
        "is spiffe://corp.example/ops/oci-cli",
        "write sub eq",
    ),
    Bad('"sub eq spiffe://corp.example/ops/oci-cli"', '"groups eq x"', MALFORMED, (21, 16), '"groups"', "sub eq"),
    Bad("principal: svc-oci-cli", 'principal: "*"', OVERBROAD, (22, 14), "holds a *", "service user"),
    Bad("  principal: svc-oci-cli\n", "", MALFORMED, (18, 3), "principal is missing", "add principal"),
    Bad("reviewedAt: 2026-01-01", "reviewedAt: yesterday", MALFORMED, (23, 15), "no date", "2026-01-31"),
    Bad("reviewedAt: 2026-01-01", "reviewedAt: 20260101", MALFORMED, (23, 15), "no date", "2026-01-31"),
    Bad("reviewedAt: 2026-01-01", "reviewedAt: 2026-02-30", MALFORMED, (23, 15), "no date", "2026-01-31"),
    Bad("reviewedAt: 2026-01-01", "reviewedAt: [2026-01-01]", MALFORMED, (23, 15), "no date", "2026-01-31"),
    Bad("reviewEvery: 30d", "reviewEvery: 10y", MALFORMED, (24, 16), "instead of a duration", "30d"),
    Bad("reviewEvery: 30d", "reviewEvery: 900d", OVERBROAD, (24, 16), "900d", "write a duration"),
    Bad("  reviewedAt: 2026-01-01\n", "", MALFORMED, (23, 16), "without reviewedAt", "add reviewedAt"),
    # sources
    Bad(
        "federation: oci-domain", "federation: oci-domian", DANGLING, (31, 15), '"oci-domian", which is not defined', "defined: oci-domain"
    ),
    Bad(
        "  environment: prod\n  ttlCap", "  environment: test\n  ttlCap", OVERBROAD, None, 'of environment "test"', "never given to another"
    ),
    Bad("ttlCap: 30m", "ttlCap: 365d", OVERBROAD, (33, 11), "365d", "from 60s to"),
    Bad("ttlCap: 30m", "ttlCap: 1s", MALFORMED, (33, 11), "1s", "from 60s to"),
    Bad("ttlCap: 30m", "ttlCap: 30", MALFORMED, (33, 11), "the number 30 instead of a duration", "10m"),
    Bad("ttlCap: 30m", "aws: {}", MALFORMED, (33, 3), '"aws" is not available', "available: oci, static"),
    Bad(
        "ttlCap: 30m",
        "static: {file: /etc/credwire/secrets/key}",
        MALFORMED,
        (34, 3),
        '"static" and "oci"',
        "one CredentialSource for each",
    ),
    Bad("  federation: oci-domain\n", "", MALFORMED, (30, 3), "spec.federation is missing", "the name of a Federation"),
    Bad(
        "https://idcs-1.identity.oraclecloud.com", "http://idcs-1.identity.oraclecloud.com", MALFORMED, (35, 13), "not https", "without TLS"
    ),
    Bad(
        "https://idcs-1.identity.oraclecloud.com",
        "https://idcs-1.example.com/path",
        MALFORMED,
        (35, 13),
        "more than a host",
        "https://host",
    ),
    Bad("https://idcs-1.identity.oraclecloud.com", "https://10.0.0.1", MALFORMED, (35, 13), "an address, not a name", "names"),
    Bad("https://idcs-1.identity.oraclecloud.com", '"https://[idcs-1"', MALFORMED, (35, 13), "brackets around no address", "https://host"),
    Bad(
        "https://idcs-1.identity.oraclecloud.com", "https://u:p@idcs-1.example.com", MALFORMED, (35, 13), "more than a host", "https://host"
    ),
    Bad(CLIENT, "workloadPrincipal", MALFORMED, (36, 17), "is not known", "instancePrincipal"),
    Bad(CLIENT, "{basic: {clientId: app, clientSecret: x}}", MALFORMED, None, "a client secret stands in the document", "root-only file"),
    Bad(
        "clientSecretFile: /etc/credwire/secrets/oci",
        "clientSecretFile: secrets/oci",
        MALFORMED,
        (36, 59),
        "not an absolute path",
        "realpath",
    ),
    Bad(OCI, "", MALFORMED, (30, 3), "has no kind", "oci"),
    # bindings
    Bad("identity: oci-cli\n", "identity: ocicli\n", DANGLING, (43, 13), '"ocicli", which is not defined', "defined: oci-cli"),
    Bad("source: oci-upst\n", "source: other\n", DANGLING, (44, 11), '"other", which is not defined', "defined: oci-upst"),
    Bad("mode: enforce", "mode: shadow", MALFORMED, (45, 9), "not available in this version", "observe or enforce"),
    Bad("mode: enforce", "mode: off", MALFORMED, (45, 9), '"off"', "known: enforce, observe"),
    Bad('hosts: ["*.us-ashburn-1.oraclecloud.com"]', 'hosts: ["*"]', OVERBROAD, (47, 15), "every host", "domain"),
    Bad('hosts: ["*.us-ashburn-1.oraclecloud.com"]', 'hosts: ["*.com"]', OVERBROAD, (47, 15), "top-level domain", "two labels"),
    Bad('hosts: ["*.us-ashburn-1.oraclecloud.com"]', 'hosts: ["a.*.com"]', MALFORMED, (47, 15), "elsewhere", "*.example.com"),
    Bad('hosts: ["*.us-ashburn-1.oraclecloud.com"]', "hosts: [10.0.0.1]", MALFORMED, (47, 15), "an address", "names"),
    Bad('hosts: ["*.us-ashburn-1.oraclecloud.com"]', "hosts: [a.example.com.]", MALFORMED, (47, 15), "ends in a dot", "without the dot"),
    Bad('hosts: ["*.us-ashburn-1.oraclecloud.com"]', "hosts: [localhost]", MALFORMED, (47, 15), "single label", "full name"),
    Bad('hosts: ["*.us-ashburn-1.oraclecloud.com"]', 'hosts: ["https://a.example"]', MALFORMED, (47, 15), "not a name", "write it like"),
    Bad('hosts: ["*.us-ashburn-1.oraclecloud.com"]', "hosts: [bücher.example]", MALFORMED, (47, 15), "not ASCII", "xn--"),
    Bad('hosts: ["*.us-ashburn-1.oraclecloud.com"]', "hosts: [a.example, A.example]", DUPLICATE, (47, 26), "twice", "keep one"),
    Bad('hosts: ["*.us-ashburn-1.oraclecloud.com"]', "hosts: a.example", MALFORMED, (47, 14), "instead of a list", "[one]"),
    Bad(
        '    - hosts: ["*.us-ashburn-1.oraclecloud.com"]\n      ports',
        "    - ports",
        MALFORMED,
        (47, 7),
        "destination.hosts is missing",
        "add hosts",
    ),
    Bad("ports: [443]", "ports: [0]", MALFORMED, (48, 15), "outside of 1 to 65535", "number"),
    Bad("ports: [443]", 'ports: ["443"]', MALFORMED, (48, 15), "instead of a number", "number"),
    Bad("ports: [443]", "ports: [443, 443]", DUPLICATE, (48, 20), "twice", "keep one"),
    Bad("ports: [443]", "ports: []", MALFORMED, (48, 14), "empty list", "leave it out"),
    Bad("methods: [GET]", "methods: [get]", MALFORMED, (49, 17), '"get"', "write GET"),
    Bad("methods: [GET]", "methods: [TRACE]", MALFORMED, (49, 17), "never carries a credential", "leave it out"),
    Bad("methods: [GET]", "methods: [GTE]", MALFORMED, (49, 17), '"GTE"', "known:"),
    Bad('paths: ["/20160918/users*"]', "paths: [users]", MALFORMED, (50, 15), "does not begin with a slash", "write it like"),
    Bad('paths: ["/20160918/users*"]', 'paths: ["/a/../b"]', MALFORMED, (50, 15), "dot segment", "refused as ambiguous"),
    Bad('paths: ["/20160918/users*"]', 'paths: ["/a%2fb"]', MALFORMED, (50, 15), "encoded slash", "ambiguous"),
    Bad('paths: ["/20160918/users*"]', 'paths: ["/a?b=*"]', MALFORMED, (50, 15), "question mark", "ambiguous"),
    Bad("ports: [443]", "networks: [10.0.0.1/8]", MALFORMED, (48, 18), "behind its prefix", "did you mean 10.0.0.0/8"),
    Bad("ports: [443]", "networks: [0.0.0.0/0]", OVERBROAD, (48, 18), "does not lie within one private", "always allowed"),
    Bad("ports: [443]", "networks: [8.8.8.0/24]", OVERBROAD, (48, 18), "does not lie within", "always allowed"),
    Bad("ports: [443]", "networks: [private]", MALFORMED, (48, 18), "not a CIDR", "10.20.0.0/16"),
    Bad("ports: [443]", "upstreamRoots: /nope.pem", MALFORMED, (48, 22), "is not there", "check the path"),
    Bad("ports: [443]", "upstreamRoots: ca.pem", MALFORMED, (48, 22), "not an absolute path", "realpath"),
    Bad("ports: [443]", "verify: false", MALFORMED, (48, 7), 'no field "verify"', "known:"),
    Bad("{wire: {signer: oci}}", "{file: {}}", MALFORMED, (51, 20), "not available in this version", "wire"),
    Bad("{wire: {signer: oci}}", "{wire: {signer: bearers}}", MALFORMED, (51, 29), '"bearers"', 'did you mean "bearer"'),
    Bad("{wire: {signer: oci}}", "{wire: {signer: sigv4}}", MALFORMED, (51, 29), '"sigv4"', "known: basic, bearer"),
    Bad("{wire: {signer: oci}}", "{wire: {signer: bearer}}", MALFORMED, (51, 29), 'what a source of kind "oci" gives', "signer: oci"),
    Bad("{wire: {signer: oci}}", "{wire: {signer: oci, header: x}}", MALFORMED, (51, 34), 'no field "header"', "known: signer"),
    Bad("{wire: {signer: oci}}", "{wire: {signer: oci}, file: {}}", MALFORMED, (51, 41), "not available in this version", "wire"),
    Bad("  delivery: {wire: {signer: oci}}\n", "", MALFORMED, (42, 3), "delivery is missing", "add delivery"),
    Bad("onLeaseFailure: refuse", "onLeaseFailure: {stale: 25h}", OVERBROAD, (52, 27), '(rule "stale-bounded")', "from 1s to 86400s"),
    Bad("onLeaseFailure: refuse", "onLeaseFailure: {stale: 0}", MALFORMED, (52, 27), "instead of a duration", "10m"),
    Bad("onLeaseFailure: refuse", "onLeaseFailure: {}", MALFORMED, (52, 19), "stale is missing", "add stale: 10m"),
    Bad("onLeaseFailure: refuse", "onLeaseFailure: {stale: 10m, then: refuse}", MALFORMED, (52, 32), 'no field "then"', "stale"),
    Bad("onLeaseFailure: refuse", "onLeaseFailure: stale", MALFORMED, (52, 19), "says not for how long", "{stale: 10m}"),
    Bad("onLeaseFailure: refuse", 'onLeaseFailure: "stale: 10m"', MALFORMED, (52, 19), '"stale: 10m"', "as a mapping"),
    Bad("onLeaseFailure: refuse", "onLeaseFailure: 10m", MALFORMED, (52, 19), '"10m"', "as a mapping"),
    Bad("onLeaseFailure: refuse", "onLeaseFailure: ignore", MALFORMED, (52, 19), '"ignore"', "known: passthrough, refuse, {stale: 10m}"),
    Bad("onLeaseFailure: refuse", "onLeaseFailure: [refuse]", MALFORMED, (52, 19), "is a list", "known: passthrough"),
    Bad("onDaemonDown: refuse", "onDaemonDown: maybe", MALFORMED, (53, 17), '"maybe"', "known: direct, refuse"),
    Bad("onDaemonDown: refuse", 'caDomains: ["*.com"]', OVERBROAD, (53, 15), "top-level domain", "two labels"),
]
