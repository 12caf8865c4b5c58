"""
Judge the signature of one API request.

In: the head of a request exactly as it came, the keys the cloud knows, the time.  Out: a Judgement; it says too which body hash to expect.
The signature itself is verified by httpsig, which nobody of this project wrote.  httpsig does not look at freshness, coverage, repeated
headers or the body: that is done here.  Source: Oracle, "Request Signatures" (draft-cavage-http-signatures-08, rsa-sha256).  Pure.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from urllib.request import parse_http_list

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from httpsig.verify import HeaderVerifier  # type: ignore[import-untyped]

from tests.e2e.cloud.exempt import is_exempt
from tests.e2e.cloud.upst import TokenRefused, read_upst

TOLERANCE_S = 300
"""Five minutes either way."""

_SHA256_BYTES = 32
_ALWAYS = frozenset({"(request-target)", "host"})
_WITH_BODY = frozenset({"content-length", "content-type", "x-content-sha256"})
_BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})


class Verdict(StrEnum):
    """What the cloud thinks of a request."""

    VALID = "valid"
    INVALID = "invalid"
    UNSIGNED = "unsigned"
    OPEN = "open"
    """A host that checks nothing."""


class KeyKind(StrEnum):
    """How the request names its key."""

    UPST = "upst"
    API_KEY = "api-key"
    NONE = "none"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request; ``target`` and header values are the bytes on the wire, as text."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    def values(self, name: str) -> list[str]:
        """All values of ``name``, in order."""
        return [value for key, value in self.headers if key.lower() == name]


@dataclass(frozen=True, slots=True)
class Keyring:
    """The public keys that the cloud knows."""

    domain: RSAPublicKey
    api_keys: Mapping[str, RSAPublicKey]


@dataclass(frozen=True, slots=True)
class Judgement:
    """``body_sha256`` is set where the request names a hash: the caller compares it while the body streams in."""

    verdict: Verdict
    why: str
    kind: KeyKind = KeyKind.NONE
    principal: str = ""
    body_sha256: bytes | None = None
    pem: str = ""
    """The key that verified it, for another verifier."""


class SignatureRefused(Exception):
    """A request signature that is not good, whoever's it is."""


class _Invalid(Exception):
    def __init__(self, why: str, kind: KeyKind, principal: str = "") -> None:
        super().__init__(why)
        self.why, self.kind, self.principal = why, kind, principal


def judge(head: Head, keys: Keyring, now: float) -> Judgement:
    """Say whether ``head`` carries a signature that the real service would take, were the body as announced."""
    given = head.values("authorization")
    if not given:
        return Judgement(Verdict.UNSIGNED, "no authorization")
    try:
        return _judge_signed(head, given, keys, now)
    except _Invalid as invalid:
        return Judgement(Verdict.INVALID, invalid.why, invalid.kind, invalid.principal)


def _judge_signed(head: Head, given: list[str], keys: Keyring, now: float) -> Judgement:
    if len(given) > 1:
        raise _Invalid("several authorization headers", KeyKind.OTHER)
    scheme, _, rest = given[0].partition(" ")
    if scheme != "Signature":
        raise _Invalid(f'scheme "{scheme[:20]}"', KeyKind.OTHER)
    params = _params(rest)
    key_id = params["keyid"]
    kind = KeyKind.UPST if key_id.startswith("ST$") else KeyKind.API_KEY if key_id.count("/") == 2 else KeyKind.OTHER
    principal, key = _key(key_id, kind, keys, now)

    try:
        _verify(head, params, key, _required(head), now)
        return Judgement(Verdict.VALID, "", kind, principal, _announced_hash(head), _pem(key))
    except SignatureRefused as refused:
        raise _Invalid(str(refused), kind, principal) from refused


def verify_signature(head: Head, key: RSAPublicKey, required: frozenset[str], now: float) -> tuple[str, bytes | None]:
    """Verify a request signed with ``key`` over ``required`` at least; give key id and announced hash.  Raises SignatureRefused."""
    given = head.values("authorization")
    if len(given) != 1 or not given[0].startswith("Signature "):
        raise SignatureRefused("the request is not signed")
    try:
        params = _params(given[0].partition(" ")[2])
    except _Invalid as error:
        raise SignatureRefused(error.why) from error
    _verify(head, params, key, required, now)
    return params["keyid"], _announced_hash(head)


def _verify(head: Head, params: Mapping[str, str], key: RSAPublicKey, required: frozenset[str], now: float) -> None:
    if params["algorithm"] != "rsa-sha256":
        raise SignatureRefused(f'algorithm "{params["algorithm"]}"')
    if params.get("version", "1") != "1":
        raise SignatureRefused(f'version "{params["version"]}"')
    signed = params["headers"].split(" ")
    if len(set(signed)) != len(signed) or any(name != name.lower() for name in signed):
        raise SignatureRefused("the list of signed headers repeats a name or is not in lower case")
    for name in (*signed, "x-content-sha256", "content-length"):
        if len(head.values(name)) > 1:
            raise SignatureRefused(f"header {name} is repeated")
    if missing := sorted(required - set(signed)):
        raise SignatureRefused(f"not covered by the signature: {', '.join(missing)}")
    dated = "x-date" if "x-date" in signed else "date"
    if dated not in signed:
        raise SignatureRefused("not covered by the signature: date or x-date")
    try:
        verifier = HeaderVerifier(dict(head.headers), _pem(key), signed, method=head.method, path=head.target)
        good = verifier.verify()
    except Exception as error:  # httpsig raises bare Exception for a missing header
        raise SignatureRefused(f"httpsig: {error}") from error
    if not good:
        raise SignatureRefused("the signature does not verify")
    _check_fresh(head.values(dated)[0], now)


def _params(text: str) -> dict[str, str]:
    params: dict[str, str] = {}
    for item in parse_http_list(text):
        name, _, value = item.partition("=")
        if name.lower() in params:
            raise _Invalid(f"parameter {name} is repeated", KeyKind.OTHER)
        params[name.lower()] = value[1:-1] if value[:1] == '"' else value
    for name in ("keyid", "algorithm", "headers", "signature"):
        if not params.get(name):
            raise _Invalid(f"parameter {name} is missing", KeyKind.OTHER)
    return params


def _key(key_id: str, kind: KeyKind, keys: Keyring, now: float) -> tuple[str, RSAPublicKey]:
    if kind is KeyKind.UPST:
        try:
            return read_upst(key_id.removeprefix("ST$"), keys.domain, now)
        except TokenRefused as refused:
            raise _Invalid(str(refused), kind) from refused
    if key_id not in keys.api_keys:
        raise _Invalid("unknown key id", kind)
    return key_id.split("/")[1], keys.api_keys[key_id]


def _required(head: Head) -> frozenset[str]:
    if head.method not in _BODY_METHODS:
        return _ALWAYS
    if is_exempt(head.method, "".join(head.values("host")[:1]), head.target.partition("?")[0]):
        return _ALWAYS
    return _ALWAYS | _WITH_BODY


def _pem(key: RSAPublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _check_fresh(value: str, now: float) -> None:
    try:
        at = parsedate_to_datetime(value).timestamp()
    except ValueError as error:
        raise SignatureRefused(f'date "{value[:40]}" cannot be read') from error
    if abs(now - at) > TOLERANCE_S:
        raise SignatureRefused(f"date is {abs(now - at):.0f} s off")


def _announced_hash(head: Head) -> bytes | None:
    values = head.values("x-content-sha256")
    if not values:
        return None
    try:
        digest = base64.b64decode(values[0], validate=True)
    except binascii.Error as error:
        raise SignatureRefused("x-content-sha256 is not base64") from error
    if len(digest) != _SHA256_BYTES:
        raise SignatureRefused("x-content-sha256 is not a SHA-256")
    return digest
