"""
Answer a request for one of the public documents.

In: method and target as parsed, the snapshots.  Out: status, headers and body.  Two documents, two methods, nothing else.  Pure.
"""

from collections.abc import Mapping

DOCUMENTS = {
    "/.well-known/openid-configuration": "openid-configuration",
    "/jwks": "jwks",
}
"""Request target to the snapshot's file name; everything under ``<run>/public`` that is not named here stays unseen."""

CACHE_S = 300
"""Identity domains may keep a document this long; a rotated key is published at least that much earlier than it signs."""

Answer = tuple[int, list[tuple[str, str]], bytes]


def answer(method: str, target: str, snapshots: Mapping[str, bytes], prefix: str = "") -> Answer:
    """Give the answer; a HEAD's body is for its length only.  ``prefix`` is the path of the issuer's URL, without a final slash."""
    if method not in ("GET", "HEAD"):
        return _plain(405, "only GET and HEAD are answered here\n", [("allow", "GET, HEAD")])
    path = target.partition("?")[0]
    name = DOCUMENTS.get(path.removeprefix(prefix)) if path.startswith(prefix) else None
    if name is None:
        return _plain(404, "not found\n")
    body = snapshots.get(name)
    if body is None:
        return _plain(503, "the document is not published yet\n", [("retry-after", "2")])
    return 200, [("content-type", "application/json"), ("content-length", str(len(body))), ("cache-control", f"max-age={CACHE_S}")], body


def _plain(status: int, text: str, more: list[tuple[str, str]] | None = None) -> Answer:
    body = text.encode()
    headers = [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body))), ("cache-control", "no-store")]
    return status, headers + (more or []), body
