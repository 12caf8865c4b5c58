"""Bytes of the kernel become values, and back."""

from hypothesis import given
from hypothesis import strategies as st

from bpf import abi
from bpf.abi import Answer, Event, EventKind, KernelReason, Process, ProcessFlag, ProcessState, Record

U64, U32, U16 = st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 65535)
RECORDS = st.builds(
    Record, U64, U64, U32, U64, U64, U32, U32, U32, U32, U32, U32, U32, U32, U16,
    st.sampled_from([2, 10]), st.integers(0, 31).map(ProcessFlag), st.integers(0, 1), st.binary(min_size=16, max_size=16),
)  # fmt: skip
PROCESSES = st.builds(
    Process, U64, U64, U32, U64, U64, U32, U32, U32, U32, U32, U32, st.integers(0, 31).map(ProcessFlag), st.sampled_from(ProcessState)
)


@given(RECORDS)
def test_record_survives_the_trip(record: Record) -> None:
    """pack, then unpack, gives the same record."""
    assert Record.unpack(record.pack()) == record


@given(PROCESSES)
def test_process_survives_the_trip(process: Process) -> None:
    """pack, then unpack, gives the same entry, whose first bytes are its key."""
    assert Process.unpack(process.pack()) == process
    assert process.pack()[: abi.size_of("process_key")] == process.key


@given(RECORDS)
def test_answer_is_a_record_with_a_verdict(record: Record) -> None:
    """The verdict is read at once, the record when it is asked for."""
    raw = record.pack() + (9).to_bytes(4, "little") + (4).to_bytes(4, "little") + bytes([0, 3, 1, 8, 0, 0, 0, 0])
    assert len(raw) == abi.ANSWER_BYTES
    answer = Answer.unpack(raw)
    assert (answer.identity, answer.revision, answer.state, answer.current) == (9, 4, ProcessState.BOUND, True)
    assert answer.observed == bool(record.flags & ProcessFlag.OBSERVED)
    assert answer.bound is not answer.observed
    assert answer.record == record
    changed = Answer.unpack(raw[:-8] + bytes([KernelReason.PROCESS_CHANGED, 3, 1, 8, 0, 0, 0, 0]))
    assert not changed.bound


def test_addresses_read_as_people_write_them() -> None:
    """A mapped address is shown as the IPv4 address it is."""
    assert abi.address_text(bytes(10) + b"\xff\xff\xc0\x00\x02\x01") == "192.0.2.1"
    assert abi.address_text(bytes.fromhex("20010db8") + bytes(11) + b"\x07") == "2001:db8::7"


def test_event_is_read() -> None:
    """Fields come from where the layout says; a process event has no address."""
    raw = bytearray(abi.size_of("event"))
    raw[abi.offset_of("event", "kind")] = EventKind.REFUSED
    raw[abi.offset_of("event", "reason")] = KernelReason.DAEMON_DOWN
    raw[abi.offset_of("event", "subject.tgid")] = 77
    event = Event.unpack(bytes(raw))
    assert (event.kind, event.reason.slug, event.tgid, event.address) == (EventKind.REFUSED, "daemon-down", 77, "")


def test_structs_end_on_eight_bytes() -> None:
    """Widest first and padded by hand: what holds a __u64 is a multiple of it, and each field lies on its own size."""
    for name in abi.LAYOUTS:
        for field in abi.fields(name):
            if field.size in (2, 4, 8) and not field.name.endswith("pad"):
                assert field.offset % field.size == 0, (name, field.name)
        if any(field.size == 8 for field in abi.fields(name)):
            assert abi.size_of(name) % 8 == 0, name
