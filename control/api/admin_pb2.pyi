from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ProcessView(_message.Message):
    __slots__ = ("role", "pid", "state", "since", "rss_kb", "restarts", "worker")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    RSS_KB_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    role: str
    pid: int
    state: str
    since: float
    rss_kb: int
    restarts: int
    worker: int
    def __init__(self, role: _Optional[str] = ..., pid: _Optional[int] = ..., state: _Optional[str] = ..., since: _Optional[float] = ..., rss_kb: _Optional[int] = ..., restarts: _Optional[int] = ..., worker: _Optional[int] = ...) -> None: ...

class HealthLine(_message.Message):
    __slots__ = ("level", "says", "hint")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    SAYS_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    level: str
    says: str
    hint: str
    def __init__(self, level: _Optional[str] = ..., says: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class OffView(_message.Message):
    __slots__ = ("everything", "until", "bindings", "by")
    class BindingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    EVERYTHING_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    BINDINGS_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    everything: bool
    until: float
    bindings: _containers.ScalarMap[str, float]
    by: str
    def __init__(self, everything: _Optional[bool] = ..., until: _Optional[float] = ..., bindings: _Optional[_Mapping[str, float]] = ..., by: _Optional[str] = ...) -> None: ...

class StatusView(_message.Message):
    __slots__ = ("enforcing", "revision", "digest_running", "digest_disk", "processes", "counters", "health", "version", "off")
    class CountersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ENFORCING_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_RUNNING_FIELD_NUMBER: _ClassVar[int]
    DIGEST_DISK_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OFF_FIELD_NUMBER: _ClassVar[int]
    enforcing: bool
    revision: int
    digest_running: str
    digest_disk: str
    processes: _containers.RepeatedCompositeFieldContainer[ProcessView]
    counters: _containers.ScalarMap[str, int]
    health: _containers.RepeatedCompositeFieldContainer[HealthLine]
    version: str
    off: OffView
    def __init__(self, enforcing: _Optional[bool] = ..., revision: _Optional[int] = ..., digest_running: _Optional[str] = ..., digest_disk: _Optional[str] = ..., processes: _Optional[_Iterable[_Union[ProcessView, _Mapping]]] = ..., counters: _Optional[_Mapping[str, int]] = ..., health: _Optional[_Iterable[_Union[HealthLine, _Mapping]]] = ..., version: _Optional[str] = ..., off: _Optional[_Union[OffView, _Mapping]] = ...) -> None: ...

class ListBindingsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetBindingRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DestinationView(_message.Message):
    __slots__ = ("hosts", "ports", "methods", "paths", "networks")
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    PATHS_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    hosts: _containers.RepeatedScalarFieldContainer[str]
    ports: _containers.RepeatedScalarFieldContainer[int]
    methods: _containers.RepeatedScalarFieldContainer[str]
    paths: _containers.RepeatedScalarFieldContainer[str]
    networks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, hosts: _Optional[_Iterable[str]] = ..., ports: _Optional[_Iterable[int]] = ..., methods: _Optional[_Iterable[str]] = ..., paths: _Optional[_Iterable[str]] = ..., networks: _Optional[_Iterable[str]] = ...) -> None: ...

class LeaseView(_message.Message):
    __slots__ = ("state", "issue", "expires_at", "principal", "reason", "detail")
    STATE_FIELD_NUMBER: _ClassVar[int]
    ISSUE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    state: str
    issue: int
    expires_at: float
    principal: str
    reason: str
    detail: str
    def __init__(self, state: _Optional[str] = ..., issue: _Optional[int] = ..., expires_at: _Optional[float] = ..., principal: _Optional[str] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class BindingView(_message.Message):
    __slots__ = ("name", "identity", "spiffe_id", "source", "destinations", "delivery", "mode", "owner", "lease", "processes", "signed", "refused", "on_lease_failure", "on_daemon_down", "place", "observed", "reviewed_at")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DESTINATIONS_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    ON_LEASE_FAILURE_FIELD_NUMBER: _ClassVar[int]
    ON_DAEMON_DOWN_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_FIELD_NUMBER: _ClassVar[int]
    REVIEWED_AT_FIELD_NUMBER: _ClassVar[int]
    name: str
    identity: str
    spiffe_id: str
    source: str
    destinations: _containers.RepeatedCompositeFieldContainer[DestinationView]
    delivery: _containers.RepeatedScalarFieldContainer[str]
    mode: str
    owner: str
    lease: LeaseView
    processes: _containers.RepeatedScalarFieldContainer[int]
    signed: int
    refused: int
    on_lease_failure: str
    on_daemon_down: str
    place: str
    observed: int
    reviewed_at: str
    def __init__(self, name: _Optional[str] = ..., identity: _Optional[str] = ..., spiffe_id: _Optional[str] = ..., source: _Optional[str] = ..., destinations: _Optional[_Iterable[_Union[DestinationView, _Mapping]]] = ..., delivery: _Optional[_Iterable[str]] = ..., mode: _Optional[str] = ..., owner: _Optional[str] = ..., lease: _Optional[_Union[LeaseView, _Mapping]] = ..., processes: _Optional[_Iterable[int]] = ..., signed: _Optional[int] = ..., refused: _Optional[int] = ..., on_lease_failure: _Optional[str] = ..., on_daemon_down: _Optional[str] = ..., place: _Optional[str] = ..., observed: _Optional[int] = ..., reviewed_at: _Optional[str] = ...) -> None: ...

class BindingsView(_message.Message):
    __slots__ = ("bindings", "revision")
    BINDINGS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    bindings: _containers.RepeatedCompositeFieldContainer[BindingView]
    revision: int
    def __init__(self, bindings: _Optional[_Iterable[_Union[BindingView, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class ProcessAsks(_message.Message):
    __slots__ = ("pid", "url", "method")
    PID_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    pid: int
    url: str
    method: str
    def __init__(self, pid: _Optional[int] = ..., url: _Optional[str] = ..., method: _Optional[str] = ...) -> None: ...

class Program(_message.Message):
    __slots__ = ("exe", "script", "uid", "gid")
    EXE_FIELD_NUMBER: _ClassVar[int]
    SCRIPT_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    exe: str
    script: str
    uid: int
    gid: int
    def __init__(self, exe: _Optional[str] = ..., script: _Optional[str] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ...) -> None: ...

class ProgramAsks(_message.Message):
    __slots__ = ("program", "url", "method")
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    program: Program
    url: str
    method: str
    def __init__(self, program: _Optional[_Union[Program, _Mapping]] = ..., url: _Optional[str] = ..., method: _Optional[str] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("process", "id", "program")
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    process: ProcessAsks
    id: str
    program: ProgramAsks
    def __init__(self, process: _Optional[_Union[ProcessAsks, _Mapping]] = ..., id: _Optional[str] = ..., program: _Optional[_Union[ProgramAsks, _Mapping]] = ...) -> None: ...

class StepView(_message.Message):
    __slots__ = ("stage", "ok", "said", "source")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    SAID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    stage: str
    ok: bool
    said: str
    source: str
    def __init__(self, stage: _Optional[str] = ..., ok: _Optional[bool] = ..., said: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class ExplainView(_message.Message):
    __slots__ = ("reason", "said", "hint", "identity", "binding", "steps", "facts", "events")
    class FactsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REASON_FIELD_NUMBER: _ClassVar[int]
    SAID_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    BINDING_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    said: str
    hint: str
    identity: str
    binding: str
    steps: _containers.RepeatedCompositeFieldContainer[StepView]
    facts: _containers.ScalarMap[str, str]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, reason: _Optional[str] = ..., said: _Optional[str] = ..., hint: _Optional[str] = ..., identity: _Optional[str] = ..., binding: _Optional[str] = ..., steps: _Optional[_Iterable[_Union[StepView, _Mapping]]] = ..., facts: _Optional[_Mapping[str, str]] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class TailAuditRequest(_message.Message):
    __slots__ = ("last", "follow")
    LAST_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    last: int
    follow: bool
    def __init__(self, last: _Optional[int] = ..., follow: _Optional[bool] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("at", "id", "event", "reason", "identity", "binding", "source", "issue", "pid", "uid", "exe", "script", "method", "host", "port", "path", "status", "revision", "detail", "grant", "speaker", "hint")
    AT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    BINDING_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ISSUE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    EXE_FIELD_NUMBER: _ClassVar[int]
    SCRIPT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    SPEAKER_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    at: float
    id: str
    event: str
    reason: str
    identity: str
    binding: str
    source: str
    issue: int
    pid: int
    uid: int
    exe: str
    script: str
    method: str
    host: str
    port: int
    path: str
    status: int
    revision: int
    detail: str
    grant: str
    speaker: str
    hint: str
    def __init__(self, at: _Optional[float] = ..., id: _Optional[str] = ..., event: _Optional[str] = ..., reason: _Optional[str] = ..., identity: _Optional[str] = ..., binding: _Optional[str] = ..., source: _Optional[str] = ..., issue: _Optional[int] = ..., pid: _Optional[int] = ..., uid: _Optional[int] = ..., exe: _Optional[str] = ..., script: _Optional[str] = ..., method: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., path: _Optional[str] = ..., status: _Optional[int] = ..., revision: _Optional[int] = ..., detail: _Optional[str] = ..., grant: _Optional[str] = ..., speaker: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class BundleRequest(_message.Message):
    __slots__ = ("identity",)
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    identity: str
    def __init__(self, identity: _Optional[str] = ...) -> None: ...

class BundleView(_message.Message):
    __slots__ = ("identity", "pem", "path")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PEM_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    identity: str
    pem: str
    path: str
    def __init__(self, identity: _Optional[str] = ..., pem: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class ReloadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReloadView(_message.Message):
    __slots__ = ("swapped", "revision", "digest", "errors", "warnings", "faults", "changes")
    SWAPPED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    swapped: bool
    revision: int
    digest: str
    errors: _containers.RepeatedScalarFieldContainer[str]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    faults: _containers.RepeatedCompositeFieldContainer[FaultView]
    changes: _containers.RepeatedCompositeFieldContainer[ChangeView]
    def __init__(self, swapped: _Optional[bool] = ..., revision: _Optional[int] = ..., digest: _Optional[str] = ..., errors: _Optional[_Iterable[str]] = ..., warnings: _Optional[_Iterable[str]] = ..., faults: _Optional[_Iterable[_Union[FaultView, _Mapping]]] = ..., changes: _Optional[_Iterable[_Union[ChangeView, _Mapping]]] = ...) -> None: ...

class ListIdentitiesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IdentityView(_message.Message):
    __slots__ = ("name", "spiffe_id", "environment", "owner", "egress", "selectors", "bindings", "processes", "drift", "place")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    EGRESS_FIELD_NUMBER: _ClassVar[int]
    SELECTORS_FIELD_NUMBER: _ClassVar[int]
    BINDINGS_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    name: str
    spiffe_id: str
    environment: str
    owner: str
    egress: str
    selectors: _containers.RepeatedScalarFieldContainer[str]
    bindings: _containers.RepeatedScalarFieldContainer[str]
    processes: _containers.RepeatedScalarFieldContainer[int]
    drift: _containers.RepeatedScalarFieldContainer[str]
    place: str
    def __init__(self, name: _Optional[str] = ..., spiffe_id: _Optional[str] = ..., environment: _Optional[str] = ..., owner: _Optional[str] = ..., egress: _Optional[str] = ..., selectors: _Optional[_Iterable[str]] = ..., bindings: _Optional[_Iterable[str]] = ..., processes: _Optional[_Iterable[int]] = ..., drift: _Optional[_Iterable[str]] = ..., place: _Optional[str] = ...) -> None: ...

class IdentitiesView(_message.Message):
    __slots__ = ("identities", "revision")
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    identities: _containers.RepeatedCompositeFieldContainer[IdentityView]
    revision: int
    def __init__(self, identities: _Optional[_Iterable[_Union[IdentityView, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class DiffRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FieldView(_message.Message):
    __slots__ = ("field", "before", "after")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    field: str
    before: str
    after: str
    def __init__(self, field: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class ChangeView(_message.Message):
    __slots__ = ("kind", "name", "what", "fields", "effect")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    what: str
    fields: _containers.RepeatedCompositeFieldContainer[FieldView]
    effect: str
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., what: _Optional[str] = ..., fields: _Optional[_Iterable[_Union[FieldView, _Mapping]]] = ..., effect: _Optional[str] = ...) -> None: ...

class FaultView(_message.Message):
    __slots__ = ("place", "reason", "message", "hint")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    place: str
    reason: str
    message: str
    hint: str
    def __init__(self, place: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class DiffView(_message.Message):
    __slots__ = ("revision", "changes", "errors", "warnings")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    revision: int
    changes: _containers.RepeatedCompositeFieldContainer[ChangeView]
    errors: _containers.RepeatedCompositeFieldContainer[FaultView]
    warnings: _containers.RepeatedCompositeFieldContainer[FaultView]
    def __init__(self, revision: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[ChangeView, _Mapping]]] = ..., errors: _Optional[_Iterable[_Union[FaultView, _Mapping]]] = ..., warnings: _Optional[_Iterable[_Union[FaultView, _Mapping]]] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("binding", "identity", "pid")
    BINDING_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    binding: str
    identity: str
    pid: int
    def __init__(self, binding: _Optional[str] = ..., identity: _Optional[str] = ..., pid: _Optional[int] = ...) -> None: ...

class RevokeView(_message.Message):
    __slots__ = ("grants", "leases", "processes")
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    grants: int
    leases: int
    processes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, grants: _Optional[int] = ..., leases: _Optional[int] = ..., processes: _Optional[_Iterable[int]] = ...) -> None: ...

class SwitchRequest(_message.Message):
    __slots__ = ("binding", "off", "for_s")
    BINDING_FIELD_NUMBER: _ClassVar[int]
    OFF_FIELD_NUMBER: _ClassVar[int]
    FOR_S_FIELD_NUMBER: _ClassVar[int]
    binding: str
    off: bool
    for_s: float
    def __init__(self, binding: _Optional[str] = ..., off: _Optional[bool] = ..., for_s: _Optional[float] = ...) -> None: ...

class SwitchView(_message.Message):
    __slots__ = ("off", "grants")
    OFF_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    off: OffView
    grants: int
    def __init__(self, off: _Optional[_Union[OffView, _Mapping]] = ..., grants: _Optional[int] = ...) -> None: ...
