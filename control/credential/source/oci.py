"""
Exchange a workload's JWT for an OCI session token: a user principal's (UPST) or a resource principal's (RPST).

In: the source, its client secret, the assertion and the session's public key; then the identity domain's answer.
Out: the POST to send; then the token with its end and principal, or why there is none.
Rules: Oracle's "JWT-to-UPST token exchange": RFC 8693 with ``requested_token_type`` oci-upst, ``subject_token_type`` the word ``jwt``,
Basic client authentication or a request signature of the instance (oci_instance.py puts it on), the answer in ``token`` (not
``access_token``), our public key inside the token as ``jwk``.  An RPST is asked for with ``oci-rpst`` and ``res_type``.
The answer comes from a far side that may be hostile or not the one meant: typed, bounded, and none of its words reach a log unread.  Pure.
"""

import base64
import binascii
import json
import re
from typing import Annotated, Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from control.binding.model import OciSource, Source
from control.credential.source.model import Answered, Ask, Failed, Yielded
from control.reason import Reason
from control.secret import Secret

LIFE_MOST_S = 24 * 3600
"""Oracle gives 60 minutes; an end further away than this is not believed."""
LIFE_LEAST_S = 10
TOKEN_MOST = 16 * 1024
"""Characters; the token travels in a request header."""

_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
_TYPES = {"upst": "urn:oci:token-type:oci-upst", "rpst": "urn:oci:token-type:oci-rpst"}
_ADVICE = {
    "invalid_client": "check clientAuth: the application's id and secret and whether it is active, or the instance's certificate and clock",
    "unauthorized_client": "check the trust's oauthClients and allowImpersonation, and that the user it maps to is a service user",
    "invalid_grant": "check the trust against credwire federation plan: active, issuer to the letter, key endpoint, claims, rule, clock",
    "invalid_request": "check that the domain does token exchange, and token and resourceType of the source",
    "unsupported_grant_type": "allow the application the token exchange grant",
}
"""What to look at for each error code that Oracle documents for the exchange."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DESCRIPTION_MOST = 200


class _Body(msgspec.Struct):
    """``{"token": "<UPST>"}``"""

    token: Annotated[str, msgspec.Meta(min_length=1, max_length=TOKEN_MOST)]


class _Error(msgspec.Struct):
    """RFC 6749 5.2"""

    error: str
    error_description: str = ""


class _Claims(msgspec.Struct):
    sub: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    exp: float
    jwk: str | dict[str, Any]
    """Oracle writes the key as a string that holds JSON; an object is understood too."""


def build(source: Source, client_secret: Secret, assertion: Secret, public_key_der: bytes) -> Ask:
    """Give the POST that asks the source's identity domain; for instancePrincipal without an authorization."""
    of = source.of
    assert isinstance(of, OciSource)  # noqa: S101  # the registry chose us by its tag
    url = urlsplit(of.domain)
    form = urlencode(
        {
            "grant_type": _GRANT,
            "requested_token_type": _TYPES[of.asks_for],
            "subject_token": assertion.reveal().decode("ascii"),
            "subject_token_type": "jwt",
            "public_key": base64.b64encode(public_key_der).decode(),
            **({"res_type": of.resource_type} if of.asks_for == "rpst" else {}),
        }
    )
    # RFC 6749 2.3.1: both halves are form-encoded before they are joined; for the letters Oracle hands out this changes nothing
    basic = base64.b64encode(f"{quote(of.client_id, safe='')}:{quote(client_secret.reveal(), safe='')}".encode())
    host = url.hostname or ""
    port = url.port or 443
    name = f"[{host}]" if ":" in host else host
    return Ask(
        host=host,
        port=port,
        target="/oauth2/v1/token",
        headers=(
            ("host", name if port == 443 else f"{name}:{port}"),
            ("content-type", "application/x-www-form-urlencoded;charset=UTF-8"),
            ("accept", "application/json"),
            ("accept-encoding", "identity"),
        ),
        authorization=Secret(b"" if of.client_auth == "instancePrincipal" else b"Basic " + basic),
        body=Secret(form),
        roots_pem=of.upstream_roots,
    )


def parse(source: Source, answered: Answered, public_key_der: bytes, now: float, told: tuple[Secret, ...]) -> Yielded | Failed:
    """Read the answer at ``now`` (Unix seconds)."""

    def malformed(what: str) -> Failed:
        return Failed(Reason.EXCHANGE_MALFORMED, f'source "{source.name}": {what}', _retry_after(answered))

    if 300 <= answered.status < 400:
        return malformed(f"answered {answered.status}, a redirect; redirects are never followed")
    if answered.status != 200:
        try:
            error = msgspec.json.decode(answered.body, type=_Error)
        except (msgspec.DecodeError, RecursionError):
            return malformed(f"answered {answered.status} and {_kind_of(answered)} without a field error")
        says = f'source "{source.name}": answered {answered.status}, error {quoted(error.error, error.error_description, told)}'
        if error.error in _ADVICE:
            says += f"; {_ADVICE[error.error]}"
        return Failed(Reason.EXCHANGE_REFUSED, says, _retry_after(answered))
    try:
        body = msgspec.json.decode(answered.body, type=_Body)
    except (msgspec.DecodeError, RecursionError) as wrong:
        return malformed(f"answered 200 and {_kind_of(answered)} in which field token cannot be read ({_where(wrong)})")
    read = read_token(body.token, public_key_der, now)
    return malformed(read) if isinstance(read, str) else read


def read_token(token: str, public_key_der: bytes, now: float) -> Yielded | str:
    """Read a session token of Oracle's that must be bound to our key; gives what is wrong with it in one clause otherwise."""
    if not _TOKEN.fullmatch(token):
        return "field token is not a JWT"
    try:
        claims = msgspec.json.decode(_unpadded(token.split(".")[1]), type=_Claims)
    except (msgspec.DecodeError, RecursionError, binascii.Error, ValueError) as wrong:
        return f"the token's payload cannot be read ({_where(wrong)})"
    if not LIFE_LEAST_S <= claims.exp - now <= LIFE_MOST_S:
        return "the token's field exp is past, about to be, or more than a day away"
    if not _same_key(claims.jwk, public_key_der):
        return "the token's field jwk is not the key that was sent"
    return Yielded(token=Secret(token), expires_at=claims.exp, principal=claims.sub)


def _same_key(jwk: str | dict[str, Any], public_key_der: bytes) -> bool:
    """Whether the token is bound to our session key: modulus and exponent, compared as numbers (RFC 7518 6.3.1)."""
    try:
        fields = json.loads(jwk) if isinstance(jwk, str) else jwk
        numbers = {name: int.from_bytes(_unpadded(fields[name]), "big") for name in ("n", "e")}
        kind = fields["kty"]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return False
    ours = load_der_public_key(public_key_der)
    if not isinstance(ours, RSAPublicKey) or kind != "RSA":
        return False
    expected = ours.public_numbers()
    return numbers["n"] == expected.n and numbers["e"] == expected.e


def _unpadded(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


def quoted(said: str, described: str, told: tuple[Secret, ...]) -> str:
    """Give a far side's error code and description, unless it echoes what it was told or writes what a log would obey."""
    code = said if _CODE.fullmatch(said) else "(unreadable)"
    words = "".join(c if c.isascii() and c.isprintable() else "?" for c in described)[:_DESCRIPTION_MOST]
    raw = (said + "\n" + described).encode("utf-8", "replace")
    for secret in told:
        value = secret.reveal()
        for form in (value, base64.b64encode(value), quote(value, safe="").encode(), *value.split(b".")):
            if len(form) >= 8 and form.rstrip(b"=") in raw:
                return "(it repeats what it was told, and is not shown)"
    return f"{code}: {words}" if words else code


def _kind_of(answered: Answered) -> str:
    kind = answered.content_type.split(";")[0].strip().lower()
    return kind if re.fullmatch(r"[a-z]{1,32}/[a-z0-9.+-]{1,64}", kind) else "something"


def _where(error: Exception) -> str:
    """Give msgspec's sentence, which names place and type and never a value; of other errors the class only."""
    return str(error)[:120] if isinstance(error, msgspec.ValidationError) else "not JSON"


def _retry_after(answered: Answered) -> float:
    text = answered.retry_after.strip()
    return float(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0.0
