"""
The token endpoint's decisions.

In: the request's headers and form, the Config, the verified claims.  Out: what to put into the UPST, or ExchangeRefused.
The caller fetches the JWKS between ``read_request`` and ``principal``.
Source: Oracle's token exchange (RFC 8693 with Oracle's types).  Pure.
"""

import base64
import binascii
import hmac
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tests.e2e.cloud.assertion import ExchangeRefused, unverified_issuer
from tests.e2e.cloud.model import Client, Config, Trust, User
from tests.e2e.cloud.rules import RuleError, first_match

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
UPST = "urn:oci:token-type:oci-upst"
RPST = "urn:oci:token-type:oci-rpst"
FORM_TYPE = "application/x-www-form-urlencoded"
_FIELDS = frozenset({"grant_type", "requested_token_type", "subject_token", "subject_token_type", "public_key"})
_MIN_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class ExchangeRequest:
    """A well-formed request of a known client, aimed at an active trust; the assertion is not verified yet."""

    client: str
    """Id of the confidential application, or OCID of the instance that signed the request."""
    trust: Trust
    assertion: str
    public_key: RSAPublicKey
    resource_type: str = ""
    """Set when an RPST is wanted."""


def read_request(  # noqa: PLR0917  # a request in the order in which it stands on the wire
    method: str, authorization: str, content_type: str, body: bytes, config: Config, signed_by: str = ""
) -> ExchangeRequest:
    """
    Check everything that needs no look at the issuer.  Raises ExchangeRefused.

    ``signed_by``: the instance whose request signature was found to be good; then there is no other client authentication.
    """
    if method != "POST":
        raise ExchangeRefused("invalid_request", f"{method} is not served", status=405)
    client = signed_by or _client(authorization, config).id
    form = _form(content_type, body)
    if form["grant_type"] != GRANT:
        raise ExchangeRefused("unsupported_grant_type", f'grant_type "{form["grant_type"]}" is not served')
    wanted = {UPST: "User", RPST: "Resource"}.get(form["requested_token_type"])
    if wanted is None:
        raise ExchangeRefused("invalid_request", f'requested_token_type "{form["requested_token_type"]}" is not served')
    if form["subject_token_type"] != "jwt":
        raise ExchangeRefused("invalid_request", f'subject_token_type "{form["subject_token_type"]}" is not "jwt"')
    resource_type = form.get("res_type", "") if wanted == "Resource" else ""
    if wanted == "Resource" and not resource_type:
        raise ExchangeRefused("invalid_request", "missing: res_type")
    public_key = _public_key(form["public_key"])
    issuer = unverified_issuer(form["subject_token"])
    trusts = sorted((trust for trust in config.trusts if trust.issuer == issuer), key=lambda trust: trust.subject_type != wanted)
    trust = trusts[0] if trusts else None
    if trust is None:
        raise ExchangeRefused("invalid_grant", "no identity propagation trust has this issuer")
    if not trust.active:
        raise ExchangeRefused("invalid_grant", f'identity propagation trust "{trust.name}" is not active')
    if client not in trust.oauth_clients:
        raise ExchangeRefused("unauthorized_client", f'client "{client}" is not listed in the trust', status=401)
    if trust.subject_type != wanted:
        raise ExchangeRefused("invalid_grant", f"the trust's subjectType is {trust.subject_type}, the token wanted is a {wanted}'s")
    if wanted == "User" and not trust.allow_impersonation:
        raise ExchangeRefused("unauthorized_client", "the trust does not allow impersonation", status=401)
    return ExchangeRequest(client, trust, form["subject_token"], public_key, resource_type)


def _client(authorization: str, config: Config) -> Client:
    refused = ExchangeRefused("invalid_client", "client authentication failed", status=401)
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise refused
    try:
        name, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise refused from error
    client = next((client for client in config.clients if client.id == name), None)
    known = client is not None and client.active and bool(colon)
    same = hmac.compare_digest(secret.encode(), client.secret.encode() if client else b"")
    if client is None or not known or not same:
        raise refused
    return client


def _form(content_type: str, body: bytes) -> dict[str, str]:
    if content_type.partition(";")[0].strip().lower() != FORM_TYPE:
        raise ExchangeRefused("invalid_request", f"content-type is not {FORM_TYPE}")
    try:
        pairs = urllib.parse.parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=20
        )
    except ValueError as error:
        raise ExchangeRefused("invalid_request", f"the form cannot be read: {error}") from error
    form = dict(pairs)
    if len(form) != len(pairs):
        raise ExchangeRefused("invalid_request", "a form field is repeated")
    if missing := sorted(name for name in _FIELDS if not form.get(name)):
        raise ExchangeRefused("invalid_request", f"missing: {', '.join(missing)}")
    return form


def _public_key(encoded: str) -> RSAPublicKey:
    try:
        key = load_der_public_key(base64.b64decode(encoded, validate=True))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ExchangeRefused("invalid_request", f"public_key is not base64 of a DER SubjectPublicKeyInfo: {error}") from error
    if not isinstance(key, RSAPublicKey) or key.key_size < _MIN_RSA_BITS:
        raise ExchangeRefused("invalid_request", f"public_key is not RSA of {_MIN_RSA_BITS} bits or more")
    return key


def principal(request: ExchangeRequest, claims: Mapping[str, Any], config: Config) -> str:
    """Give the ``sub`` of the token: the service user that the verified claims map to, or the resource itself.  Raises ExchangeRefused."""
    if request.resource_type:
        return str(claims[request.trust.subject_claim_name])
    return _service_user(request, claims, config).subject


def _service_user(request: ExchangeRequest, claims: Mapping[str, Any], config: Config) -> User:
    try:
        value = first_match(request.trust.impersonation_service_users, claims)
    except RuleError as error:
        raise ExchangeRefused("invalid_grant", str(error)) from error
    if value is None:
        raise ExchangeRefused("invalid_grant", "no impersonation rule of the trust matches the subject token")
    user = next((user for user in config.users if value in (user.name, user.ocid)), None)
    if user is None or not user.active:
        raise ExchangeRefused("invalid_grant", f'no active user "{value}"')
    if not user.service_user:
        raise ExchangeRefused("unauthorized_client", f'"{value}" is not a service user', status=401)
    return user
