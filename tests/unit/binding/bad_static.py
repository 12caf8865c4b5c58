"""Bad static sources and signers: each is ORDERS with one thing changed, and what must be said about it."""

from tests.unit.binding.bad import CLIENT, MALFORMED, OVERBROAD, Bad

ORDERS = """\
apiVersion: credwire/v1alpha1
kind: CredentialSource
metadata: {name: orders-key}
spec:
  owner: team@example.org
  environment: prod
  static: {file: /etc/credwire/secrets/orders-key}
  reviewedAt: 2026-01-01
  reviewEvery: 90d
---
apiVersion: credwire/v1alpha1
kind: WorkloadCredential
metadata: {name: orders}
spec:
  owner: team@example.org
  identity: oci-cli
  source: orders-key
  destinations: [{hosts: [api.example.com]}]
  delivery: {wire: {signer: header, header: X-Api-Key}}
"""
"""A static source and its binding; the identity is that of GOOD."""

SECRET = "sk-live-51Hc9"
"""Written where only its file's name belongs."""
_STATIC = "static: {file: /etc/credwire/secrets/orders-key}"
_WIRE = "{wire: {signer: header, header: X-Api-Key}}"
_TRAVELS = "how the message travels"

BAD_STATIC = [
    Bad("  reviewedAt: 2026-01-01\n", "", OVERBROAD, None, 'static source needs it (rule "static-reviewed")', "add reviewedAt"),
    Bad("  reviewEvery: 90d\n", "", OVERBROAD, (5, 3), 'reviewEvery is missing, and a static source needs it (rule "static-rev', "90d"),
    Bad("reviewEvery: 90d", "reviewEvery: 10000d", OVERBROAD, (9, 16), '(rule "review-yearly")', "write a duration"),
    Bad("  environment: prod\n", "", MALFORMED, (5, 3), 'environment is missing (rule "one-environment")', "add environment"),
    Bad("environment: prod", "environment: test", OVERBROAD, (17, 11), '(rule "one-environment")', "one of the same"),
    Bad("  environment: prod", "  environment: prod\n  federation: x", MALFORMED, (7, 3), "this one exchanges nothing", "remove it"),
    Bad("  environment: prod", "  environment: prod\n  ttlCap: 2d", OVERBROAD, (7, 11), '(rule "short-lived")', "from 60s"),
    Bad(_STATIC, "static: {}", MALFORMED, (7, 11), "does not say where the secret lies", "add file"),
    Bad(_STATIC, "static:", MALFORMED, (7, 3), "spec.static is empty", "add static"),
    Bad(_STATIC, f"static: {SECRET}", MALFORMED, (7, 11), "spec.static is text instead of a mapping", "below it"),
    Bad(_STATIC, f"static: {{secret: {SECRET}}}", MALFORMED, (7, 20), "a secret stands in the document", "then change the secret"),
    Bad(_STATIC, f"static: {{value: {SECRET}}}", MALFORMED, (7, 19), "a secret stands in the document", "then change the secret"),
    Bad(_STATIC, f"static: {{apiKey: {SECRET}}}", MALFORMED, (7, 20), "a secret stands in the document", "then change the secret"),
    Bad(_STATIC, f"static: {{file: {SECRET}}}", MALFORMED, (7, 18), "file is not an absolute path", "then change the secret"),
    Bad(_STATIC, f"static: {{file: [{SECRET}]}}", MALFORMED, (7, 18), "a list instead of text", "one line"),
    Bad(_STATIC, "static: {file: 12345678}", MALFORMED, (7, 18), "file is a number instead of text (quote it if it is)", "one line"),
    Bad(_STATIC, f"static: {{{SECRET}}}", MALFORMED, (7, 12), "an unknown field", "known: file, systemdCredential"),
    Bad(_STATIC, f"static: {{systemdCredential: {SECRET}/x}}", MALFORMED, (7, 31), "not the name of a credential", "before the colon"),
    Bad(_STATIC, "static: {systemdCredential: ../x}", MALFORMED, (7, 31), "not the name of a credential", "before the colon"),
    Bad(_STATIC, "static: {file: /a, systemdCredential: a}", MALFORMED, (7, 41), "both file and systemdCredential", "keep one"),
    Bad(_STATIC, f"{_STATIC}\n  oci: {CLIENT}", MALFORMED, (8, 3), '"static" and "oci"', "one CredentialSource for each"),
    Bad(_WIRE, "{wire: {signer: oci}}", MALFORMED, (19, 29), 'of kind "static" gives', "header or bearer or basic or query or cookie"),
    Bad(_WIRE, "{wire: {signer: header}}", MALFORMED, (19, 20), "wire.header is missing", "x-api-key"),
    *(
        Bad("X-Api-Key", name, MALFORMED, (19, 45), _TRAVELS, "documents")
        for name in ("Transfer-Encoding", "Content-Length", "Content-Type", "Host", "Date", "Connection", "TE", "Upgrade", "Expect")
    ),
    Bad("X-Api-Key", "X-Forwarded-For", MALFORMED, (19, 45), _TRAVELS, "documents"),
    Bad("X-Api-Key", "Cookie", MALFORMED, (19, 45), "more than one value", "signer: cookie"),
    Bad("X-Api-Key", '"X Api"', MALFORMED, (19, 45), "no header name", "x-api-key"),
    Bad("X-Api-Key", '":path"', MALFORMED, (19, 45), "no header name", "x-api-key"),
    Bad("X-Api-Key", '"x-key: 1"', MALFORMED, (19, 45), "no header name", "x-api-key"),
    Bad("X-Api-Key", f'x-key, template: "Token {SECRET}"', MALFORMED, (19, 62), "template has no {secret}", "change it"),
    Bad("X-Api-Key", 'x-key, template: "{secret}{secret}"', MALFORMED, (19, 62), "template has 2 {secret}", "once"),
    Bad("X-Api-Key", 'x-key, template: "{user}:{secret}"', MALFORMED, (19, 62), "braces beside", "nothing else"),
    Bad("X-Api-Key", 'x-key, template: "a\\r\\nb: {secret}"', MALFORMED, (19, 62), "several lines", "one line"),
    Bad("X-Api-Key", 'x-key, template: "a\\x1b{secret}"', MALFORMED, (19, 62), "U+001B", "cannot be seen"),
    Bad("X-Api-Key", 'x-key, template: "é{secret}"', MALFORMED, (19, 62), "non-ASCII", "printable ASCII"),
    Bad(_WIRE, f"{{wire: {{signer: bearer, token: {SECRET}}}}}", MALFORMED, (19, 44), "a secret stands in the document", "then change"),
    Bad(_WIRE, "{wire: {signer: bearer, header: x}}", MALFORMED, (19, 37), 'no field "header"', "known"),
    Bad(_WIRE, "{wire: {signer: basic}}", MALFORMED, (19, 20), "username is missing", "svc-reports"),
    Bad(_WIRE, f'{{wire: {{signer: basic, username: "u:{SECRET}"}}}}', MALFORMED, (19, 46), "holds a colon", "change that"),
    Bad(_WIRE, f"{{wire: {{signer: basic, username: u, password: {SECRET}}}}}", MALFORMED, (19, 59), "a secret stands", "then change"),
    Bad(_WIRE, "{wire: {signer: query}}", MALFORMED, (19, 20), "parameter is missing", "api_key"),
    Bad(_WIRE, '{wire: {signer: query, parameter: "a&b"}}', MALFORMED, (19, 47), '"a&b" is not', "api_key"),
    Bad(_WIRE, "{wire: {signer: cookie}}", MALFORMED, (19, 20), "cookie is missing", "session_id"),
    Bad(_WIRE, '{wire: {signer: cookie, cookie: "a=b"}}', MALFORMED, (19, 45), "no cookie name", "session_id"),
]
"""The same for ORDERS, loaded beside GOOD."""
