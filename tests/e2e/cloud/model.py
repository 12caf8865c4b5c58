"""
What the cloud was told before it started: confidential applications, trusts, service users, API keys.

In: one YAML or JSON document (JSON is YAML).  Out: a Config.  Unknown keys are refused, so that a misspelt ``active`` cannot open a trust.
The field names of a trust are those of Oracle's SCIM schema IdentityPropagationTrust.  Pure.
"""

from typing import Any, Literal

import msgspec
from ruamel.yaml import YAML


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base: no key that we do not know."""


class Client(Strict, frozen=True):
    """A confidential application."""

    id: str
    secret: str
    active: bool = True
    admin: bool = False
    """An application for set-up; the real guidance keeps it apart from the one that exchanges."""


class Rule(Strict, frozen=True):
    """``<claim> eq <value>`` (``*`` stands for any run of characters) or ``<claim> co <value>`` → a service user."""

    rule: str
    value: str
    """Name or OCID of a service user."""


class Trust(Strict, frozen=True, rename="camel"):
    """An identity propagation trust."""

    name: str
    issuer: str
    """Compared with the assertion's ``iss`` byte for byte."""
    type: Literal["JWT"] = "JWT"
    active: bool = False
    """False unless written: as the real one."""
    public_key_endpoint: str = ""
    """JWKS over https; this or ``publicCertificate``."""
    public_key_endpoint_roots: str = ""
    """File with the CA that verifies that endpoint; empty means the system's roots."""
    public_certificate: str = ""
    oauth_clients: tuple[str, ...] = ()
    allow_impersonation: bool = False
    subject_type: Literal["User", "Resource"] = "User"
    """What its tokens are for: a service user's UPST, or a resource's RPST."""
    subject_claim_name: str = "sub"
    client_claim_name: str = ""
    client_claim_values: tuple[str, ...] = ()
    audience: str = ""
    """When set, must be one of the assertion's ``aud``."""
    clock_skew_seconds: int = 0
    impersonation_service_users: tuple[Rule, ...] = ()
    algorithms: tuple[str, ...] = ("RS256",)
    jwks_cache_seconds: float = 5.0


class User(Strict, frozen=True, rename="camel"):
    """A user of the identity domain."""

    name: str
    ocid: str = ""
    service_user: bool = True
    active: bool = True

    @property
    def subject(self) -> str:
        """What a UPST carries as ``sub``: the OCID where there is one, the name otherwise."""
        return self.ocid or self.name


class ApiKey(Strict, frozen=True, rename="camel"):
    """The public half of an API signing key."""

    key_id: str
    """``<tenancy>/<user>/<fingerprint>``"""
    public_key: str
    """PEM."""


class Config(Strict, frozen=True, rename="camel"):
    """Everything."""

    clients: tuple[Client, ...] = ()
    trusts: tuple[Trust, ...] = ()
    users: tuple[User, ...] = ()
    api_keys: tuple[ApiKey, ...] = ()
    tenancy: str = "ocid1.tenancy.oc99..credwiretest"
    namespace: str = "credwiretest"
    """Object storage namespace of the tenancy."""
    token_life_seconds: int = 3600
    instance_roots: str = ""
    """PEM of the authority that certifies instances; empty: the auth service knows none."""
    resolve: dict[str, str] = {}
    """Name → address, for the JWKS endpoint; other names go to the system's resolver."""
    extra_api_hosts: tuple[str, ...] = ()
    """Further names that verify like the API."""
    open_hosts: tuple[str, ...] = ()
    """Names that answer anybody: not Oracle, for traffic that no binding names."""


class ConfigError(ValueError):
    """The document is wrong."""


def parse_config(text: str) -> Config:
    """Read the document.  Raises ConfigError with the place."""
    yaml = YAML(typ="safe", pure=True)
    yaml.allow_duplicate_keys = False
    try:
        raw: Any = yaml.load(text)
        config = msgspec.convert(raw if raw is not None else {}, Config)
    except Exception as error:
        raise ConfigError(f"cloud configuration: {error}") from error
    for trust in config.trusts:
        if bool(trust.public_key_endpoint) == bool(trust.public_certificate):
            raise ConfigError(f'trust "{trust.name}" wants exactly one of publicKeyEndpoint and publicCertificate')
        if trust.public_key_endpoint and not trust.public_key_endpoint.startswith("https://"):
            raise ConfigError(f'trust "{trust.name}": publicKeyEndpoint "{trust.public_key_endpoint}" is not https')
    issuers = [(trust.issuer, trust.subject_type) for trust in config.trusts]
    if len(set(issuers)) != len(issuers):
        raise ConfigError("two trusts name the same issuer and subject type")
    return config
