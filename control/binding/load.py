"""
Make a ResourceSet of documents, or say everything that is wrong with them.

In: (file name, text) pairs, a look-up of CA files by path, the trust domain, today's date.  Out: Loaded.
Every document is read even when an earlier one is wrong; names are looked up once all are known; a set with one error is no set.
The four kinds have a file each under control/binding/kind/.  Pure.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from itertools import combinations
from typing import NamedTuple

from control.binding.compile import filters_of
from control.binding.document import Mapping, Node, parse
from control.binding.kind import credential_source, federation, workload_credential, workload_identity
from control.binding.kind.credential_source import SourceDraft
from control.binding.kind.federation import FederationDraft
from control.binding.kind.header import Header, read_header
from control.binding.kind.workload_credential import CredentialDraft
from control.binding.kind.workload_identity import IdentityDraft
from control.binding.model import Binding, OciSigner, ResourceSet, Source
from control.binding.name import check_file, spiffe_id
from control.binding.sheet import Faults, Sheet, nearest
from control.binding.source.registry import SOURCES
from control.binding.tie import ties
from control.errors import Place, ResourceError
from control.identity.model import Identity
from control.reason import Reason
from control.units import Revision

KINDS = (workload_identity.KIND, federation.KIND, credential_source.KIND, workload_credential.KIND)
_ELSEWHERE = {"CredentialBinding": "it is understood at import only; write a WorkloadCredential"}

_Draft = IdentityDraft | FederationDraft | SourceDraft | CredentialDraft

Roots = Callable[[str], str]
"""Give the PEM text of a CA file; raises ResourceError without a place."""


class Loaded(NamedTuple):
    """What came out: a set, or errors; warnings either way."""

    found: ResourceSet | None
    errors: list[ResourceError]
    warnings: list[ResourceError]


def load(
    files: Sequence[tuple[str, str]],
    lookup: Roots,
    trust_domain: str,
    *,
    revision: Revision = Revision(0),  # noqa: B008  # a number
    today: date | None = None,
) -> Loaded:
    """Read all documents.  ``today`` is for overdue reviews; None leaves them out."""
    reader = _Reader(lookup, today)
    for file, text in files:
        reader.file(file, text)
    linked = _Linker(reader, trust_domain, revision).link()
    errors = sorted(reader.faults, key=_by_place)
    warnings = sorted(reader.warnings, key=_by_place)
    if errors:
        return Loaded(None, errors, warnings)
    identities, sources, bindings = linked
    owners = {str(header): header.owner for header in reader.headers}
    made = ResourceSet(revision, digest(files, reader.roots), identities, sources, bindings, owners)
    return Loaded(made, [], warnings)


def digest(files: Iterable[tuple[str, str]], roots: dict[str, str]) -> str:
    """Give the SHA-256 over names and texts, each preceded by its length, of documents and of the CA files they name."""
    hasher = hashlib.sha256()
    for part in [*files, *sorted(roots.items())]:
        for text in part:
            raw = text.encode()
            hasher.update(len(raw).to_bytes(8, "big") + raw)
    return hasher.hexdigest()


def _by_place(error: ResourceError) -> tuple[str, int, int]:
    return (error.place.file, error.place.line, error.place.column) if error.place else ("", 0, 0)


class _Reader:
    """Reads documents into drafts."""

    def __init__(self, lookup: Roots, today: date | None) -> None:
        self.lookup, self.today = lookup, today
        self.faults: Faults = []
        self.warnings: Faults = []
        self.headers: list[Header] = []
        self.roots: dict[str, str] = {}
        """Path to PEM text of every CA file named."""
        self.identities: list[IdentityDraft] = []
        self.federations: list[FederationDraft] = []
        self.sources: list[SourceDraft] = []
        self.credentials: list[CredentialDraft] = []

    def file(self, file: str, text: str) -> None:
        try:
            documents = parse(file, text)
        except ResourceError as error:
            self.faults.append(error)
            return
        for document in documents:
            self.document(document)

    def document(self, node: Node) -> None:
        read = read_header(node, self.faults, self.warnings, self.today)
        if read is None:
            return
        header, spec = read
        if header.kind == workload_identity.KIND:
            self.identities.append(workload_identity.read(header, spec))
        elif header.kind == federation.KIND:
            self.federations.append(federation.read(header, spec))
        elif header.kind == credential_source.KIND:
            self.sources.append(credential_source.read(header, spec, self.upstream_roots))
        elif header.kind == workload_credential.KIND:
            self.credentials.append(workload_credential.read(header, spec, self.upstream_roots))
        else:
            hint = _ELSEWHERE.get(header.kind) or nearest(header.kind, KINDS)
            place = node.entries["kind"].value.place if isinstance(node, Mapping) else node.place
            spec.fault(f'kind "{header.kind}" is not known', place, hint=hint)
            return
        if header.name:
            self.headers.append(header)

    def upstream_roots(self, sheet: Sheet) -> str:
        """Read ``upstreamRoots`` of a sheet: the name of a CA file, and so its content."""
        path = sheet.text("upstreamRoots", check=check_file)
        if path and path not in self.roots:
            try:
                self.roots[path] = self.lookup(path)
            except ResourceError as error:
                sheet.fault(error.message, sheet.where("upstreamRoots"), hint=error.hint, reason=error.reason)
        return self.roots.get(path, "")


class _Linker:
    """Looks names up and makes the final objects."""

    def __init__(self, reader: _Reader, trust_domain: str, revision: Revision) -> None:
        self.reader, self.trust_domain, self.revision = reader, trust_domain, revision
        self.faults, self.warnings = reader.faults, reader.warnings

    def fault(self, reason: Reason, message: str, place: Place | None, hint: str = "") -> None:
        self.faults.append(ResourceError(reason, message, place=place, hint=hint))

    def warn(self, reason: Reason, message: str, place: Place | None, hint: str = "") -> None:
        self.warnings.append(ResourceError(reason, message, place=place, hint=hint))

    def link(self) -> tuple[tuple[Identity, ...], tuple[Source, ...], tuple[Binding, ...]]:
        reader = self.reader
        self.duplicates()
        identities = [self.identity(draft) for draft in reader.identities]
        sources = [self.source(draft) for draft in reader.sources]
        placed = [(self.binding(draft), draft.places) for draft in reader.credentials]
        self.faults.extend(ties(placed))
        self.overlaps()
        self.unused()
        return tuple(identities), tuple(s for s in sources if s is not None), tuple(binding for binding, _ in placed)

    def duplicates(self) -> None:
        seen: dict[str, Header] = {}
        for header in self.reader.headers:
            first = seen.setdefault(str(header), header)
            if first is not header:
                self.fault(
                    Reason.RESOURCE_DUPLICATE,
                    f'{header.kind} "{header.name}" is defined twice; the other: {first.place}',
                    header.place,
                    "rename one or merge them",
                )
        workloads: dict[str, IdentityDraft] = {}
        for draft in self.reader.identities:
            if not draft.workload_id:
                continue
            first_draft = workloads.setdefault(draft.workload_id, draft)
            if first_draft is not draft:
                name, place = first_draft.header.name, first_draft.header.place
                message = f'workload ID "{draft.workload_id}" belongs to identity "{name}" already ({place})'
                self.fault(Reason.RESOURCE_DUPLICATE, message, draft.header.place, "give each identity its own workloadID")

    def dangling(self, what: str, user: Header, name: str, place: Place | None, drafts: Sequence[_Draft]) -> None:
        names = sorted(draft.header.name for draft in drafts)
        if "" in names:
            return  # one of them has a bad name, which is an error already: it may be the one that is meant
        hint = f"defined: {', '.join(names[:12])}" if names else f"no {what} is defined"
        if len(names) > 12:
            hint = nearest(name, names) if len(nearest(name, names)) < 80 else hint + ", …"
        self.fault(Reason.RESOURCE_DANGLING, f'{user.kind} "{user.name}" names {what} "{name}", which is not defined', place, hint)

    def identity(self, draft: IdentityDraft) -> Identity:
        name = ""
        try:
            name = spiffe_id(self.trust_domain, draft.workload_id)
        except ResourceError as error:
            self.fault(error.reason, error.message, draft.header.place, error.hint)
        made = Identity(draft.header.name, name, draft.environment, draft.groups, draft.egress or "open", draft.allow_root)
        if not any(error.place in draft.places for error in self.faults):
            try:
                filters_of(made, direct_when_down=False)
            except ResourceError as error:
                self.fault(error.reason, error.message, draft.header.place, error.hint)
        return made

    def source(self, draft: SourceDraft) -> Source | None:
        trust = next((f for f in self.reader.federations if f.header.name == draft.federation), None)
        if trust is None and draft.federation:
            self.dangling("federation", draft.header, draft.federation, draft.federation_place, self.reader.federations)
        if trust is None or draft.oci is None:
            return None
        return Source(
            name=draft.header.name,
            of=draft.oci,
            audience=trust.audience,
            principal=trust.principal,
            environment=draft.environment,
            ttl_cap_s=draft.ttl_cap_s,
            revision=self.revision,
        )

    def binding(self, draft: CredentialDraft) -> Binding:
        reader, header = self.reader, draft.header
        identity = next((i for i in reader.identities if i.header.name == draft.identity), None)
        source = next((s for s in reader.sources if s.header.name == draft.source), None)
        if identity is None and draft.identity:
            self.dangling("identity", header, draft.identity, draft.identity_place, reader.identities)
        if source is None and draft.source:
            self.dangling("source", header, draft.source, draft.source_place, reader.sources)
        if identity is not None and source is not None:
            self.fits(draft, identity, source)
        return Binding(
            name=header.name,
            identity=draft.identity,
            source=draft.source,
            destinations=draft.destinations,
            signer=OciSigner(),
            mode=draft.mode or "enforce",
            on_lease_failure="refuse",
            on_daemon_down=draft.on_daemon_down or "refuse",
            ca_domains=draft.ca_domains,
        )

    def fits(self, draft: CredentialDraft, identity: IdentityDraft, source: SourceDraft) -> None:
        """Check what only holds between the three: environment, subject, signer."""
        if identity.environment and source.environment and identity.environment != source.environment:
            self.fault(
                Reason.RESOURCE_OVERBROAD,
                f'source "{source.header.name}" is of environment "{source.environment}", identity "{identity.header.name}" of '
                f'"{identity.environment}"',
                draft.source_place,
                "a source is never given to another environment: name one of the same",
            )
        trust = next((f for f in self.reader.federations if f.header.name == source.federation), None)
        expected = f"spiffe://{self.trust_domain}/{identity.workload_id}"
        if trust is not None and trust.subject and identity.workload_id and trust.subject != expected:
            self.fault(
                Reason.RESOURCE_DANGLING,
                f'federation "{trust.header.name}" trusts {trust.subject}, but identity "{identity.header.name}" is {expected}',
                trust.subject_place,
                f"write sub eq {expected}, or name another source at {draft.source_place}",
            )
        if draft.signer and source.kind and SOURCES[source.kind].signer != draft.signer:
            message = f'signer "{draft.signer}" cannot use what a source of kind "{source.kind}" gives'
            self.fault(Reason.RESOURCE_MALFORMED, message, draft.signer_place, f"write signer: {SOURCES[source.kind].signer}")

    def overlaps(self) -> None:
        """Warn of identities that one process could match both: such a process is refused as identity-ambiguous."""
        sets = [
            (draft, [{s.kind: frozenset(s.values) for s in group} for group in draft.groups])
            for draft in self.reader.identities
            if draft.groups
        ]
        for (one, left), (other, right) in combinations(sets, 2):
            if any(_may_meet(a, b) for a in left for b in right):
                message = f'identities "{one.header.name}" and "{other.header.name}" can match the same process, which is then refused'
                hint = f"make their selectors exclusive; the other: {one.header.place}"
                self.warn(Reason.IDENTITY_AMBIGUOUS, message, other.header.place, hint)

    def unused(self) -> None:
        reader = self.reader
        groups: tuple[tuple[set[str], Sequence[_Draft]], ...] = (
            ({credential.identity for credential in reader.credentials}, reader.identities),
            ({credential.source for credential in reader.credentials}, reader.sources),
            ({source.federation for source in reader.sources}, reader.federations),
        )
        for names, drafts in groups:
            for draft in drafts:
                if draft.header.name and draft.header.name not in names:
                    message = f'nothing uses {draft.header.kind} "{draft.header.name}"'
                    self.warn(Reason.RESOURCE_DANGLING, message, draft.header.place, "remove it or name it")


def _may_meet(a: dict[str, frozenset[str]], b: dict[str, frozenset[str]]) -> bool:
    """Say whether no common kind of selector keeps the two apart."""
    return all(not values.isdisjoint(b[kind]) for kind, values in a.items() if kind in b)
