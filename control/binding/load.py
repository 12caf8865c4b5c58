"""
Make a ResourceSet of documents, or say everything that is wrong with them.

In: (file name, text) pairs, a look-up of CA files by path, the trust domain, today's date.  Out: Loaded.
Every document is read even when an earlier one is wrong; names are looked up once all are known; a set with one error is no set.
The four kinds have a file each under control/binding/kind/.  Pure.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Mapping as Named
from datetime import date
from typing import NamedTuple, TypeVar

from control.binding.compile import filters_of
from control.binding.document import Mapping, Node, parse
from control.binding.kind import credential_source, federation, workload_credential, workload_identity
from control.binding.kind.credential_source import SourceDraft
from control.binding.kind.federation import FederationDraft
from control.binding.kind.header import Header, read_header
from control.binding.kind.workload_credential import CredentialDraft
from control.binding.kind.workload_identity import IdentityDraft
from control.binding.model import Binding, OciSigner, ResourceSet, Source, kind_of_signer
from control.binding.name import check_file, spiffe_id
from control.binding.rule import by
from control.binding.sheet import Faults, Sheet, nearest
from control.binding.source.registry import SOURCES
from control.binding.tie import ties
from control.errors import Place, ResourceError
from control.identity.model import Identity
from control.identity.overlap import exclusive
from control.reason import Reason
from control.units import Revision

KINDS = (workload_identity.KIND, federation.KIND, credential_source.KIND, workload_credential.KIND)
_ELSEWHERE = {"CredentialBinding": "it is understood at import only; write a WorkloadCredential"}

_Draft = IdentityDraft | FederationDraft | SourceDraft | CredentialDraft
D = TypeVar("D", IdentityDraft, FederationDraft, SourceDraft, CredentialDraft)

MAX_OVERLAPS = 256
"""Pairs of identities that are warned of."""
MAX_COMPARED = 64
"""Dangling names for which one that is alike is looked for."""

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
    made = ResourceSet(
        revision,
        digest(files, reader.roots),
        identities,
        sources,
        bindings,
        owners={str(header): header.owner for header in reader.headers},
        places={str(header): str(header.place) for header in reader.headers},
        reviews={str(header): header.reviewed for header in reader.headers if header.reviewed},
    )
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
        if text and not text.endswith("\n"):
            lines = text.split("\n")
            self.faults.append(
                ResourceError(
                    Reason.RESOURCE_MALFORMED,
                    "the last line has no end: the file may be half-written",
                    place=Place(file, len(lines), len(lines[-1]) + 1),
                    hint="write it again as a whole, with a newline at its end",
                )
            )
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
        self.identities = _by_name(reader.identities)
        self.federations = _by_name(reader.federations)
        self.sources = _by_name(reader.sources)
        self.faulty = {error.place for error in reader.faults}
        self.dangles = 0

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

    def dangling(self, what: str, user: Header, name: str, place: Place | None, drafts: Named[str, _Draft]) -> None:
        if "" in drafts:
            return  # one of them has a bad name, which is an error already: it may be the one that is meant
        self.dangles += 1
        names = sorted(drafts) if self.dangles <= MAX_COMPARED else []
        hint = f"defined: {', '.join(names[:12])}" if names else f"no {what} is defined"
        if not names and drafts:
            hint = f"{len(drafts)} are defined"  # looking for what is alike takes longest where most is wrong
        elif len(names) > 12:
            hint = close if len(close := nearest(name, names)) < 80 else hint + ", …"
        self.fault(Reason.RESOURCE_DANGLING, f'{user.kind} "{user.name}" names {what} "{name}", which is not defined', place, hint)

    def identity(self, draft: IdentityDraft) -> Identity:
        name = ""
        try:
            name = spiffe_id(self.trust_domain, draft.workload_id)
        except ResourceError as error:
            self.fault(error.reason, error.message, draft.header.place, error.hint)
        made = Identity(draft.header.name, name, draft.environment, draft.groups, draft.egress or "open", draft.allow_root)
        if self.faulty.isdisjoint(draft.places):
            try:
                filters_of(made, direct_when_down=False)
            except ResourceError as error:
                self.fault(error.reason, error.message, draft.header.place, error.hint)
        return made

    def source(self, draft: SourceDraft) -> Source | None:
        trust = self.federations.get(draft.federation)
        if trust is None and draft.federation:
            self.dangling("federation", draft.header, draft.federation, draft.federation_place, self.federations)
        if draft.of is None or (trust is None and SOURCES[draft.kind].federated):
            return None
        return Source(
            name=draft.header.name,
            of=draft.of,
            environment=draft.environment,
            ttl_cap_s=draft.ttl_cap_s,
            audience=trust.audience if trust else "",
            principal=trust.principal if trust else "",
            revision=self.revision,
        )

    def binding(self, draft: CredentialDraft) -> Binding:
        header = draft.header
        identity, source = self.identities.get(draft.identity), self.sources.get(draft.source)
        if identity is None and draft.identity:
            self.dangling("identity", header, draft.identity, draft.identity_place, self.identities)
        if source is None and draft.source:
            self.dangling("source", header, draft.source, draft.source_place, self.sources)
        if identity is not None and source is not None:
            self.fits(draft, identity, source)
        return Binding(
            name=header.name,
            identity=draft.identity,
            source=draft.source,
            destinations=draft.destinations,
            signer=draft.signer or OciSigner(),  # none was read: an error is noted and nobody gets this set
            mode=draft.mode or "enforce",
            on_lease_failure=draft.on_lease_failure,
            stale_s=draft.stale_s,
            on_daemon_down=draft.on_daemon_down or "refuse",
            ca_domains=draft.ca_domains,
        )

    def fits(self, draft: CredentialDraft, identity: IdentityDraft, source: SourceDraft) -> None:
        """Check what only holds between the three: environment, subject, signer."""
        if identity.environment and source.environment and identity.environment != source.environment:
            self.fault(
                Reason.RESOURCE_OVERBROAD,
                f'source "{source.header.name}" is of environment "{source.environment}", identity "{identity.header.name}" of '
                f'"{identity.environment}"' + by("one-environment"),
                draft.source_place,
                "a source is never given to another environment: name one of the same",
            )
        trust = self.federations.get(source.federation)
        expected = f"spiffe://{self.trust_domain}/{identity.workload_id}"
        if trust is not None and trust.subject and identity.workload_id and trust.subject != expected:
            self.fault(
                Reason.RESOURCE_DANGLING,
                f'federation "{trust.header.name}" trusts {trust.subject}, but identity "{identity.header.name}" is {expected}',
                trust.subject_place,
                f"write sub eq {expected}, or name another source at {draft.source_place}",
            )
        if draft.signer is None or not source.kind:
            return
        signer, usable = kind_of_signer(draft.signer), SOURCES[source.kind].signers
        if signer not in usable:
            message = f'signer "{signer}" cannot use what a source of kind "{source.kind}" gives'
            self.fault(Reason.RESOURCE_MALFORMED, message, draft.signer_place, f"write signer: {' or '.join(usable)}")

    def overlaps(self) -> None:
        """Warn of identities that one process could match both: such a process is refused as identity-ambiguous."""
        drafts = self.reader.identities
        for told, (first, second) in enumerate(_meeting(drafts)):
            one, other = drafts[first], drafts[second]
            if told == MAX_OVERLAPS:
                message = f"more than {MAX_OVERLAPS} pairs of identities can match the same process; the rest is not listed"
                self.warn(Reason.IDENTITY_AMBIGUOUS, message, other.header.place, "make selectors exclusive, then validate again")
                return
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


def _by_name(drafts: Iterable[D]) -> dict[str, D]:
    """Of two with one name the first: the second is an error of its own."""
    found: dict[str, D] = {}
    for draft in drafts:
        found.setdefault(draft.header.name, draft)
    return found


_Clauses = dict[str, frozenset[str]]


def _meeting(drafts: Sequence[IdentityDraft]) -> Iterator[tuple[int, int]]:
    """
    Give the pairs of drafts, as places in the sequence, that some process could match both; each once.

    Groups with the same kinds of selectors are indexed by value, so that a group is compared with those only that share a value of the
    kind in which it has the fewest companions: of a thousand identities that differ in uid none is compared with another.
    """
    shelves: dict[frozenset[str], list[tuple[int, _Clauses]]] = {}
    index: dict[tuple[frozenset[str], str, str], list[tuple[int, _Clauses]]] = {}
    for number, draft in enumerate(drafts):
        mine = [exclusive(group) for group in draft.groups]
        met: set[int] = set()
        for clauses in mine:
            for kinds, whole in shelves.items():
                common = kinds & clauses.keys()
                met.update(other for other, theirs in _companions(clauses, kinds, common, whole, index) if _may_meet(clauses, theirs))
        yield from ((other, number) for other in sorted(met))
        for clauses in mine:
            row = (number, clauses)
            shelves.setdefault(kinds := frozenset(clauses), []).append(row)
            for kind, values in clauses.items():
                for value in values:
                    index.setdefault((kinds, kind, value), []).append(row)


def _companions(
    clauses: _Clauses,
    kinds: frozenset[str],
    common: frozenset[str],
    whole: list[tuple[int, _Clauses]],
    index: dict[tuple[frozenset[str], str, str], list[tuple[int, _Clauses]]],
) -> Iterator[tuple[int, _Clauses]]:
    """Give the groups of these kinds that could meet ``clauses``, by the common kind that leaves the fewest; all where there is none."""
    if not common:
        return iter(whole)
    fewest = min(sorted(common), key=lambda kind: sum(len(index.get((kinds, kind, value), ())) for value in clauses[kind]))
    return (row for value in clauses[fewest] for row in index.get((kinds, fewest, value), ()))


def _may_meet(a: dict[str, frozenset[str]], b: dict[str, frozenset[str]]) -> bool:
    """Say whether no common kind of selector keeps the two apart."""
    return all(not values.isdisjoint(b[kind]) for kind, values in a.items() if kind in b)
