"""
What the API answers once a request was found to be signed.

In: method, decoded path, query, JSON body.  Out: a JSON answer with its status, or ServiceRefused in Oracle's error shape.
Only what the tests call is here; object bodies stream through server_io.
Paths: Oracle's Identity, Compute and Object Storage API, 20160918.  Pure.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.cloud.model import Config

DOMAIN = "idcs-demo.identity.test-1.cloud.test"
AUTH = "auth.test-1.cloud.test"
"""Where instances turn their certificate into a token; also what the SDK makes of service ``auth`` and the region."""
API_HOSTS = (
    "identity.test-1.oci.cloud.test",  # what oci-cli 3.95.1 makes of the region for the Identity API
    "identity.test-1.cloud.test",
    "objectstorage.test-1.cloud.test",
    "iaas.test-1.cloud.test",  # the CLI also asks this one, unsigned, for the time of day after a 401
)
_CREATED = "2026-01-01T00:00:00.000Z"


class ServiceRefused(Exception):
    """Status, Oracle's error code and its message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


NOT_AUTHENTICATED = ServiceRefused(
    401, "NotAuthenticated", "The required information to complete authentication was not provided or was incorrect."
)


def not_found(what: str) -> ServiceRefused:
    """The answer for whatever is not there or not allowed."""
    return ServiceRefused(404, "NotAuthorizedOrNotFound", f"Authorization failed or requested resource not found: {what}")


@dataclass(slots=True)
class Answer:
    """A JSON answer."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


def iso(at: float) -> str:
    """RFC 3339 as Oracle's services write it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(at))


def _ocid(kind: str, seed: str) -> str:
    return f"ocid1.{kind}.oc99..{hashlib.sha256(seed.encode()).hexdigest()[:40]}"


class Service:
    """Users, regions, compartments and instances of one tenancy."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._compartments: dict[str, dict[str, Any]] = {}

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Any, now: float) -> Answer:
        """Serve one request of the Identity or Compute API.  Raises ServiceRefused."""
        match method, path.strip("/").split("/"):
            case "GET", ["20160918", "users"]:
                return Answer(200, [self._user(user.name, user.subject) for user in self._config.users])
            case "GET", ["20160918", "regions"]:
                return Answer(200, [{"key": "TST", "name": "test-1"}])
            case "GET", ["20160918", "tenancies", tenancy] if tenancy == self._config.tenancy:
                return Answer(200, {"id": tenancy, "name": "credwire-test", "homeRegionKey": "TST"})
            case "GET", ["20160918", "compartments"]:
                return Answer(200, list(self._compartments.values()))
            case "GET", ["20160918", "compartments", ocid] if ocid in self._compartments:
                return Answer(200, self._compartments[ocid])
            case "POST", ["20160918", "compartments"]:
                return self._create_compartment(body, now)
            case "DELETE", ["20160918", "compartments", ocid] if ocid in self._compartments:
                del self._compartments[ocid]
                return Answer(204, None)
            case "GET", ["20160918", "instances"]:
                return Answer(200, [])
        raise not_found(f"{method} {path}")

    def _user(self, name: str, ocid: str) -> dict[str, Any]:
        return {
            "id": ocid,
            "compartmentId": self._config.tenancy,
            "name": name,
            "description": "a user of the test cloud",
            "timeCreated": _CREATED,
            "lifecycleState": "ACTIVE",
            "isMfaActivated": False,
        }

    def _create_compartment(self, body: Any, now: float) -> Answer:
        wanted = ("compartmentId", "name", "description")
        if not isinstance(body, dict) or not all(isinstance(body.get(name), str) and body[name] for name in wanted):
            raise ServiceRefused(400, "InvalidParameter", f"the body wants {', '.join(wanted)}")
        ocid = _ocid("compartment", f"{body['compartmentId']}/{body['name']}")
        if ocid in self._compartments:
            raise ServiceRefused(409, "CompartmentAlreadyExists", f"Compartment '{body['name']}' already exists")
        made = {
            "id": ocid,
            **{name: body[name] for name in wanted},
            "timeCreated": iso(now),
            "lifecycleState": "ACTIVE",
            "isAccessible": True,
            "freeformTags": body.get("freeformTags") or {},
            "definedTags": {},
        }
        self._compartments[ocid] = made
        return Answer(200, made)
