"""
Serve the identity domain and the API over TLS, with aiohttp.

In: a Config, names, addresses, where to record.  Out: ``serve`` runs until cancelled; the first line on stdout says what listens where.
A request is judged by its head before a byte of its body is asked for (``Expect: 100-continue``), and again when the body is whole.
"""

import asyncio
import json
import re
import secrets
import socket
import ssl
import struct
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path
from typing import Any

from aiohttp import ClientConnectionError, web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import RSAAlgorithm

from tests.e2e.cloud.assertion import ExchangeRefused, UnknownKid, verify_assertion
from tests.e2e.cloud.exchange import ExchangeRequest, principal, read_request
from tests.e2e.cloud.exempt import HOSTS
from tests.e2e.cloud.faults_io import Faults, read_faults
from tests.e2e.cloud.instance import FederationRefused, read_federation
from tests.e2e.cloud.jwks_io import KeySets
from tests.e2e.cloud.model import Config
from tests.e2e.cloud.record_io import Record, Recorder
from tests.e2e.cloud.request_signature import Head, Judgement, KeyKind, Keyring, Verdict, judge
from tests.e2e.cloud.service import API_HOSTS, AUTH, DOMAIN, NOT_AUTHENTICATED, Answer, Service, ServiceRefused, iso, not_found
from tests.e2e.cloud.store_io import Blob, Store, Stored, StoreFull, Upload
from tests.e2e.cloud.tls_io import Authority, NamedContexts, write_ca
from tests.e2e.cloud.upst import mint_upst

_MAX_JSON = 1 << 20
_MAX_FORM = 64 << 10
_CHUNK = 256 << 10
_MAX_HEADER = 32 << 10
_LINGER_S = 2.0
_OBJECT = re.compile(r"/n/(?P<namespace>[^/]+)/b/(?P<bucket>[^/]+)/(?P<kind>[ou])(?:/(?P<name>.+))?")
_JWKS = "/admin/v1/SigningCert/jwk"
_PUBLIC = frozenset({"/.well-known/openid-configuration", _JWKS})
"""What a domain answers to anybody; the key set of a real one is public only when its settings say so."""
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to listen; port 0 lets the kernel choose."""

    host: str
    port: int


@dataclass(slots=True)
class Seen:
    """One request on its way; becomes one Record."""

    kind: str
    host: str
    verdict: str
    why: str
    key_kind: KeyKind = KeyKind.NONE
    principal: str = ""
    body_bytes: int = 0
    status: int = 0


class BodyTooLarge(Exception):
    """More than the endpoint reads."""


class Misbehaved(Exception):
    """A fault switch wants these bytes instead of an answer; none: a reset."""

    def __init__(self, raw: bytes) -> None:
        super().__init__("fault")
        self.raw = raw


class BodyMismatch(Exception):
    """The body is not the one that was announced."""


class Cloud:
    """The whole cloud: one handler for every name."""

    def __init__(self, config: Config, contexts: NamedContexts, recorder: Recorder, faults: Path | None) -> None:
        self._config, self._contexts, self._recorder, self._faults = config, contexts, recorder, faults
        self._domain_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._domain_kid = secrets.token_hex(8)
        self._keyring = Keyring(self._domain_key.public_key(), {entry.key_id: _rsa_public(entry.public_key) for entry in config.api_keys})
        self._key_sets = KeySets(dict(config.resolve))
        self._service, self._store = Service(config), Store()
        self._api_hosts = frozenset({*API_HOSTS, *config.extra_api_hosts})
        self._open_hosts = frozenset(config.open_hosts)

    # -- one request

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request and record it, whatever happens."""
        seen, raw = Seen("api", _host(request), Verdict.INVALID, ""), None
        try:
            response = await self._dispatch(request, seen)
            seen.status = response.status
        except ServiceRefused as refused:
            response = _refusal(request, refused)
            seen.status = response.status
        except Misbehaved as fault:
            response, raw = web.Response(), fault.raw
        except (ClientConnectionError, ConnectionError, asyncio.IncompleteReadError) as error:
            seen.why = seen.why or f"the client went away: {type(error).__name__}"
            raise
        except web.RequestPayloadError as error:
            seen.why = seen.why or f"the body ended early: {error}"
            response = _refusal(request, ServiceRefused(400, "InvalidParameter", "the body ended early"))
            seen.status = response.status
        finally:
            self._record(request, seen)  # before anything of the answer leaves, except where an object streams
        if raw is not None:
            _misbehave(request, raw)
        if not request.content.is_eof():
            response.force_close()  # what is left of the body must not be read as the next request
        return response

    async def _dispatch(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        faults = read_faults(self._faults)
        host = seen.host
        if host != self._sni(request):
            seen.why = "host is not the name of the TLS session"
            raise ServiceRefused(421, "MisdirectedRequest", seen.why)
        if host in self._open_hosts:
            seen.kind, seen.verdict = "open", Verdict.OPEN
            seen.why = "authorization presented" if "authorization" in request.headers else ""
            return await self._open(request, seen)
        if host == DOMAIN and request.raw_path.partition("?")[0] == "/oauth2/v1/token":
            seen.kind, seen.verdict = "exchange", "refused"
            return await self._exchange(request, seen, faults)
        if host == DOMAIN and request.method == "GET" and request.raw_path in _PUBLIC:
            seen.kind, seen.verdict = "open", Verdict.OPEN
            return web.json_response(self._published(request.raw_path))
        if host == AUTH and request.raw_path == "/v1/x509":
            seen.kind, seen.verdict = "x509", "refused"
            return await self._x509(request, seen)
        return await self._api(request, seen, faults)

    def _sni(self, request: web.BaseRequest) -> str:
        connection: ssl.SSLObject | None = request.transport.get_extra_info("ssl_object") if request.transport else None
        return self._contexts.name_of(connection.context) if connection else ""

    def _record(self, request: web.BaseRequest, seen: Seen) -> None:
        peer = request._transport_peername or ("", 0)  # kept by aiohttp after the connection is gone
        self._recorder.write(
            Record(
                at=time.time(),
                kind=seen.kind,
                host=seen.host,
                method=request.method,
                path=request.raw_path,
                verdict=str(seen.verdict),
                why=seen.why,
                key_id_kind=str(seen.key_kind),
                principal=seen.principal,
                client=str(peer[0]),
                client_port=int(peer[1]),
                status=seen.status,
                body_bytes=seen.body_bytes,
                expect_continue=_expects(request),
            )
        )

    async def _open(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        _continue(request)
        async for chunk in request.content.iter_chunked(_CHUNK):
            seen.body_bytes += len(chunk)
        return web.json_response({"host": seen.host, "method": request.method, "body": seen.body_bytes})

    # -- the identity domain

    async def _exchange(self, request: web.BaseRequest, seen: Seen, faults: Faults) -> web.StreamResponse:
        if (fault := await self._exchange_fault(request, seen, faults)) is not None:
            return fault
        try:
            _continue(request)
            body = await self._body(request, seen, None, _MAX_FORM)
            given, kind = request.headers.get("authorization", ""), request.headers.get("content-type", "")
            wanted = read_request(request.method, given, kind, body, self._config, self._instance(request, given, body, seen))
            subject = principal(wanted, await self._verified(wanted), self._config)
        except BodyTooLarge:
            seen.why = "form too large"
            return web.json_response({"error": "invalid_request", "error_description": seen.why}, status=413)
        except ExchangeRefused as refused:
            seen.why = str(refused)
            answer = {"error": refused.error, "error_description": refused.why, "ecid": secrets.token_hex(8)}
            return web.json_response(answer, status=refused.status, headers={"cache-control": "no-store"})
        seen.verdict, seen.principal = "exchanged", subject
        if faults.exchange == "no-token":
            return web.json_response({"access_token": "not where it belongs"})
        return web.json_response({"token": self._upst(wanted, subject, faults)}, headers={"cache-control": "no-store"})

    def _instance(self, request: web.BaseRequest, given: str, body: bytes, seen: Seen) -> str:
        """Give the OCID of the instance that signed the exchange; empty when it is not signed.  Raises ExchangeRefused."""
        if not given.lower().startswith("signature "):
            return ""
        judgement = judge(_head(request), self._keyring, time.time())
        seen.key_kind = judgement.kind
        if judgement.verdict is not Verdict.VALID:
            raise ExchangeRefused("invalid_client", f"the request signature: {judgement.why}", status=401)
        if judgement.body_sha256 != sha256(body).digest():
            raise ExchangeRefused("invalid_client", "the body's hash is not x-content-sha256", status=401)
        if not judgement.principal.startswith("ocid1.instance."):
            raise ExchangeRefused("invalid_client", "the request is not signed by an instance", status=401)
        return judgement.principal

    # -- the auth service

    async def _x509(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        """Turn an instance's certificate into a token of its own."""
        _continue(request)
        body = await self._body(request, seen, None, _MAX_FORM)
        try:
            found = read_federation(_head(request), body, self._config.instance_roots, time.time())
        except FederationRefused as refused:
            seen.why = str(refused)
            raise ServiceRefused(401, "NotAuthenticated", str(refused)) from refused
        seen.verdict, seen.principal = "exchanged", found.instance
        token = mint_upst(
            self._domain_key,
            kid=self._domain_kid,
            subject=found.instance,
            tenancy=found.tenancy,
            public_key=found.public_key,
            now=time.time(),
            life_s=self._faults_now().instance_life_s,
            token_id=secrets.token_hex(16),
            kind=("instance", "x509"),
        )
        return web.json_response({"token": token})

    def _faults_now(self) -> Faults:
        return read_faults(self._faults)

    def _published(self, path: str) -> dict[str, Any]:
        if path == _JWKS:
            public = json.loads(RSAAlgorithm.to_jwk(self._domain_key.public_key()))
            return {"keys": [{**{name: public[name] for name in ("kty", "n", "e")}, "kid": self._domain_kid, "use": "sig", "alg": "RS256"}]}
        return {"issuer": "https://identity.oraclecloud.com/", "jwks_uri": f"https://{DOMAIN}{_JWKS}",
                "token_endpoint": f"https://{DOMAIN}/oauth2/v1/token"}  # fmt: skip

    async def _verified(self, wanted: ExchangeRequest) -> dict[str, Any]:
        trust = wanted.trust
        if trust.public_certificate:
            return verify_assertion(wanted.assertion, trust, None, time.time())
        try:
            return verify_assertion(wanted.assertion, trust, await self._key_sets.get(trust), time.time())
        except UnknownKid:
            jwks = await self._key_sets.get(trust, afresh=True)
        try:
            return verify_assertion(wanted.assertion, trust, jwks, time.time())
        except UnknownKid as unknown:
            raise ExchangeRefused("invalid_grant", str(unknown)) from unknown

    def _upst(self, wanted: ExchangeRequest, subject: str, faults: Faults) -> str:
        key = wanted.public_key
        if faults.exchange == "foreign-key":
            key = self._domain_key.public_key()
        if faults.exchange == "foreign-principal":
            subject = "somebody-else"
        return mint_upst(
            self._domain_key,
            kid=self._domain_kid,
            subject=subject,
            tenancy=self._config.tenancy,
            public_key=key,
            now=time.time(),
            life_s=faults.token_life_s or self._config.token_life_seconds,
            token_id=secrets.token_hex(16),
            kind=("resource", "rpst") if wanted.resource_type else ("user", "upst"),
            resource_type=wanted.resource_type,
        )

    async def _exchange_fault(self, request: web.BaseRequest, seen: Seen, faults: Faults) -> web.StreamResponse | None:
        if faults.exchange in ("html", "error", "garbage", "huge", "reset"):
            seen.why = f"fault: {faults.exchange}"
        match faults.exchange:
            case "slow":
                await asyncio.sleep(faults.delay_s)
            case "html":
                return web.Response(text="<html><body>Sign in</body></html>", content_type="text/html")
            case "error":
                return web.Response(status=500, text="internal error")
            case "garbage":
                return web.Response(body=b'{"token": \xff\xfe', content_type="application/json")
            case "huge":
                return web.Response(body=b'{"token": "' + b"A" * (16 << 20) + b'"}', content_type="application/json")
            case "reset":
                raise Misbehaved(b"")
        return None

    # -- the API

    async def _api(self, request: web.BaseRequest, seen: Seen, faults: Faults) -> web.StreamResponse:
        judgement = judge(_head(request), self._keyring, time.time())
        seen.verdict, seen.why = judgement.verdict, judgement.why
        seen.key_kind, seen.principal = judgement.kind, judgement.principal
        if judgement.verdict is not Verdict.VALID:
            raise NOT_AUTHENTICATED
        if (fault := await self._api_fault(request, seen, faults)) is not None:
            return fault
        try:
            if request.raw_path.startswith("/echo") or seen.host in HOSTS:
                return await self._echo(request, seen, judgement)
            if seen.host.startswith("objectstorage."):
                return await self._object_storage(request, seen, judgement)
            return await self._plain(request, seen, judgement)
        except BodyMismatch as mismatch:
            seen.verdict, seen.why = Verdict.INVALID, str(mismatch)
            raise NOT_AUTHENTICATED from mismatch
        except BodyTooLarge as large:
            raise ServiceRefused(413, "RequestEntityTooLarge", "the body is too large") from large
        except StoreFull as full:
            raise ServiceRefused(507, "InsufficientStorage", "the test cloud keeps no more") from full

    async def _api_fault(self, request: web.BaseRequest, seen: Seen, faults: Faults) -> web.StreamResponse | None:
        if faults.api:
            seen.why = f"fault: {faults.api}"
        match faults.api:
            case "slow":
                await asyncio.sleep(faults.delay_s)
            case "html":
                return web.Response(text="<html><body>Bad gateway</body></html>", content_type="text/html", status=502)
            case "error":
                raise ServiceRefused(500, "InternalError", "Internal server error")
            case "reset":
                raise Misbehaved(b"")
            case "garbage":
                raise Misbehaved(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
            case "cut":
                raise Misbehaved(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n[{"id": "ocid1')
        return None

    async def _echo(self, request: web.BaseRequest, seen: Seen, judgement: Judgement) -> web.StreamResponse:
        """Say what came, for every verb and body; also what the services of the exempt operations answer."""
        _continue(request)
        digest = sha256()
        async for chunk in request.content.iter_chunked(_CHUNK):
            digest.update(chunk)
            seen.body_bytes += len(chunk)
        if judgement.body_sha256 not in (None, digest.digest()):
            raise BodyMismatch("the body's hash is not x-content-sha256")
        known = _head(request)
        told = {
            "method": request.method, "target": request.raw_path, "bytes": seen.body_bytes, "sha256": digest.hexdigest(),
            "headers": [[name, value] for name, value in known.headers], "pem": judgement.pem,
        }  # fmt: skip
        return web.json_response(told if request.raw_path.startswith("/echo") else {}, headers={"etag": secrets.token_hex(8)})

    async def _plain(self, request: web.BaseRequest, seen: Seen, judgement: Judgement) -> web.StreamResponse:
        body = await self._json(request, seen, judgement)
        path, query = _target(request)
        return _json(request, self._service.answer(request.method, path, query, body, time.time()))

    async def _json(self, request: web.BaseRequest, seen: Seen, judgement: Judgement) -> Any:
        _continue(request)
        raw = await self._body(request, seen, judgement, _MAX_JSON)
        if not raw:
            return None
        try:
            return json.loads(raw)
        except ValueError as error:
            raise ServiceRefused(400, "CannotParseRequest", f"Incorrectly formatted request: {error}") from error

    async def _body(self, request: web.BaseRequest, seen: Seen, judgement: Judgement | None, limit: int) -> bytes:
        body = b""
        async for chunk in request.content.iter_chunked(_CHUNK):
            body += chunk
            seen.body_bytes += len(chunk)
            if len(body) > limit:
                raise BodyTooLarge
        if judgement is not None and judgement.body_sha256 not in (None, sha256(body).digest()):
            raise BodyMismatch("the body's hash is not x-content-sha256")
        return body

    async def _object_storage(self, request: web.BaseRequest, seen: Seen, judgement: Judgement) -> web.StreamResponse:
        path, query = _target(request)
        if request.method == "GET" and path in ("/n", "/n/"):
            return _json(request, Answer(200, self._config.namespace))
        found = _OBJECT.fullmatch(path.rstrip("/") if path.count("/") <= 5 else path)
        if found is None or found["namespace"] != self._config.namespace:
            raise not_found(path)
        bucket, kind, name = found["bucket"], found["kind"], found["name"]
        match request.method, kind, name is not None:
            case "PUT", "o", True:
                return self._kept(request, self._keep(bucket, name, await self._blob(request, seen, judgement), request))
            case (("GET" | "HEAD"), "o", True):
                return await self._give(request, bucket, name)
            case "DELETE", "o", True if (bucket, name) in self._store.objects:
                del self._store.objects[bucket, name]
                return _json(request, Answer(204, None))
            case "GET", "o", False:
                return self._list(request, bucket, query)
            case "POST", "u", False:
                return self._start_upload(request, bucket, await self._json(request, seen, judgement))
            case "PUT", "u", True:
                return await self._part(request, seen, judgement, query)
            case "POST", "u", True:
                return self._commit(request, bucket, name, query, await self._json(request, seen, judgement))
            case "DELETE", "u", True if query.get("uploadId") in self._store.uploads:
                del self._store.uploads[query["uploadId"]]
                return _json(request, Answer(204, None))
        raise not_found(path)

    async def _blob(self, request: web.BaseRequest, seen: Seen, judgement: Judgement) -> Blob:
        if "content-length" not in request.headers:
            raise ServiceRefused(411, "MissingContentLength", "The content-length header is required")
        _continue(request)
        blob = Blob()
        try:
            async for chunk in request.content.iter_chunked(_CHUNK):
                blob.append(chunk)
                seen.body_bytes += len(chunk)
            _compare(blob, judgement, request.headers.get("content-md5"))
        except BaseException:
            blob.close()
            raise
        return blob

    def _keep(self, bucket: str, name: str, blob: Blob, request: web.BaseRequest) -> Stored:
        return self._store.put(bucket, name, (blob,), request.headers.get("content-type", "application/octet-stream"), time.time())

    def _kept(self, request: web.BaseRequest, stored: Stored) -> web.Response:
        response = _json(request, Answer(200, None))
        response.headers["etag"] = stored.etag
        response.headers["last-modified"] = formatdate(stored.modified, usegmt=True)
        if len(stored.blobs) == 1:
            response.headers["opc-content-md5"] = stored.blobs[0].md5_base64
        else:
            response.headers["opc-multipart-md5"] = f"{stored.etag}-{len(stored.blobs)}"
        return response

    async def _give(self, request: web.BaseRequest, bucket: str, name: str) -> web.StreamResponse:
        stored = self._store.objects.get((bucket, name))
        if stored is None:
            raise ServiceRefused(404, "ObjectNotFound", f"The object '{name}' was not found in the bucket '{bucket}'")
        start, stop, status = 0, stored.size, 200
        headers = {**_own_headers(request), "etag": stored.etag, "accept-ranges": "bytes", "content-type": stored.content_type}
        headers["last-modified"] = formatdate(stored.modified, usegmt=True)
        if len(stored.blobs) == 1:
            headers["content-md5"] = stored.blobs[0].md5_base64
        if asked := _RANGE.fullmatch(request.headers.get("range", "")):
            start, status = int(asked[1]), 206
            stop = min(int(asked[2]) + 1 if asked[2] else stored.size, stored.size)
            if start >= stop:
                raise ServiceRefused(416, "InvalidRange", "The range cannot be satisfied")
            headers["content-range"] = f"bytes {start}-{stop - 1}/{stored.size}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = stop - start
        await response.prepare(request)
        if request.method == "GET":
            for chunk in stored.chunks(start, stop):
                await response.write(chunk)
        await response.write_eof()
        return response

    def _list(self, request: web.BaseRequest, bucket: str, query: dict[str, str]) -> web.Response:
        names = self._store.names(bucket, query.get("prefix", ""))
        objects = [{"name": name, "size": stored.size, "etag": stored.etag, "timeCreated": iso(stored.modified)} for name, stored in names]
        return _json(request, Answer(200, {"objects": objects}))

    def _start_upload(self, request: web.BaseRequest, bucket: str, body: Any) -> web.Response:
        if not isinstance(body, dict) or not isinstance(body.get("object"), str):
            raise ServiceRefused(400, "InvalidParameter", "the body wants object")
        upload = secrets.token_hex(12)
        self._store.uploads[upload] = Upload(body["object"], body.get("contentType") or "application/octet-stream")
        made = {"namespace": self._config.namespace, "bucket": bucket, "object": body["object"], "uploadId": upload}
        return _json(request, Answer(200, {**made, "timeCreated": iso(time.time())}))

    async def _part(self, request: web.BaseRequest, seen: Seen, judgement: Judgement, query: dict[str, str]) -> web.Response:
        upload = self._store.uploads.get(query.get("uploadId", ""))
        number = query.get("uploadPartNum", "")
        if upload is None or not number.isdecimal():
            raise ServiceRefused(404, "NoSuchUpload", "no such upload or part number")
        blob, etag = await self._blob(request, seen, judgement), secrets.token_hex(16)
        upload.parts[int(number)] = (etag, blob)
        response = _json(request, Answer(200, None))
        response.headers["etag"], response.headers["opc-content-md5"] = etag, blob.md5_base64
        return response

    def _commit(self, request: web.BaseRequest, bucket: str, name: str, query: dict[str, str], body: Any) -> web.Response:
        upload = self._store.uploads.get(query.get("uploadId", ""))
        parts = body.get("partsToCommit") if isinstance(body, dict) else None
        if upload is None or upload.name != name or not isinstance(parts, list):
            raise ServiceRefused(404, "NoSuchUpload", "no such upload")
        blobs = []
        for part in parts:
            etag, blob = upload.parts.get(part.get("partNum"), ("", None))
            if blob is None or etag != part.get("etag"):
                raise ServiceRefused(400, "InvalidUploadPart", f"part {part.get('partNum')} was not uploaded")
            blobs.append(blob)
        stored = self._store.put(bucket, name, tuple(blobs), upload.content_type, time.time())
        del self._store.uploads[query["uploadId"]]
        return self._kept(request, stored)


# -- small parts


def _rsa_public(pem: str) -> rsa.RSAPublicKey:
    key = load_pem_public_key(pem.encode())
    if not isinstance(key, rsa.RSAPublicKey):
        raise TypeError("an API key is RSA")
    return key


def _host(request: web.BaseRequest) -> str:
    """The name the request is for; the port we listen on may stand behind it."""
    own = request.transport.get_extra_info("sockname")[1] if request.transport else 443
    return request.headers.get("host", "").removesuffix(f":{own}").lower()


def _head(request: web.BaseRequest) -> Head:
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers)
    return Head(request.method, request.raw_path, headers)


def _target(request: web.BaseRequest) -> tuple[str, dict[str, str]]:
    path, _, query = request.raw_path.partition("?")
    return urllib.parse.unquote(path), dict(urllib.parse.parse_qsl(query, keep_blank_values=True))


def _expects(request: web.BaseRequest) -> bool:
    return request.headers.get("expect", "").lower() == "100-continue"


def _continue(request: web.BaseRequest) -> None:
    if _expects(request) and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _compare(blob: Blob, judgement: Judgement, announced_md5: str | None) -> None:
    if judgement.body_sha256 not in (None, blob.sha256):
        raise BodyMismatch("the body's hash is not x-content-sha256")
    if announced_md5 not in (None, blob.md5_base64):
        raise ServiceRefused(400, "UnmatchedContentMD5", "The content-md5 is not that of the body")


def _misbehave(request: web.BaseRequest, raw: bytes) -> None:
    """Send ``raw`` and close; nothing to send: close with an RST (linger on, time 0)."""
    if request.transport is None:
        return
    if raw:
        request.transport.write(raw)
        request.transport.close()
    else:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()


def _own_headers(request: web.BaseRequest) -> dict[str, str]:
    own = {"opc-request-id": f"{request.headers.get('opc-request-id', secrets.token_hex(16))}/{secrets.token_hex(8)}"}
    if "opc-client-request-id" in request.headers:
        own["opc-client-request-id"] = request.headers["opc-client-request-id"]
    return own


def _json(request: web.BaseRequest, answer: Answer) -> web.Response:
    headers = {**_own_headers(request), **answer.headers}
    if answer.body is None:
        return web.Response(status=answer.status, headers=headers)
    return web.json_response(answer.body, status=answer.status, headers=headers)


def _refusal(request: web.BaseRequest, refused: ServiceRefused) -> web.Response:
    return _json(request, Answer(refused.status, {"code": refused.code, "message": refused.message}))


# -- the process


async def serve(config: Config, listening: Sequence[Listening], ca_dir: Path, record: Path, faults: Path | None) -> None:
    """Listen and answer until cancelled; one JSON line on stdout says when and where."""
    authority = Authority()
    contexts = NamedContexts(authority, (DOMAIN, AUTH, *API_HOSTS, *config.extra_api_hosts, *config.open_hosts))
    recorder = Recorder(record)
    cloud = Cloud(config, contexts, recorder, faults)
    server = web.Server(
        cloud.handle,
        access_log=None,
        auto_decompress=False,
        lingering_time=_LINGER_S,
        max_field_size=_MAX_HEADER,
        max_line_size=_MAX_HEADER,
    )
    runner = web.ServerRunner(server, shutdown_timeout=1)
    await runner.setup()
    try:
        for place in listening:
            await web.TCPSite(runner, place.host, place.port, ssl_context=contexts.front).start()
        ca = write_ca(authority, ca_dir)
        print(json.dumps({"listening": [list(address[:2]) for address in runner.addresses], "ca": str(ca)}), flush=True)
        await asyncio.get_running_loop().create_future()
    finally:
        await runner.cleanup()
        recorder.close()
