"""Every reason is produced by a test: here is which."""

import ast
import re

from control.reason import Reason
from tests.repo.house import REPO, report

_WIRE, _BAD = "tests/unit/wire/test_wire_conversation.py", "tests/e2e/test_bad_input.py"
_REFUSALS, _TEXT = "tests/e2e/test_refusals.py", "tests/e2e/test_refusal_text.py"

SHOWN: dict[Reason, str] = {
    Reason.GRANTED: "tests/unit/binding/test_decide.py::test_each_request_gets_its_reason",
    Reason.DAEMON_DOWN: "tests/e2e/test_life.py::test_without_the_agent_nothing_is_signed",
    Reason.NETNS_UNSERVED: "tests/kernel/test_redirect.py::test_other_network_namespace_is_refused",
    Reason.PROTOCOL_UNSUPPORTED: "tests/kernel/test_redirect.py::test_udp_of_a_listed_process_is_refused",
    Reason.TABLE_FULL: "tests/kernel/test_identity.py::test_full_table_refuses_and_says_so",
    Reason.SENDER_NOT_BOUND: "tests/kernel/test_sender.py::test_pending_fork_may_not_send",
    Reason.PORT_GUARDED: "tests/kernel/test_redirect.py::test_listeners_port_is_kept_for_the_daemon",
    Reason.NO_RECORD: f"{_BAD}::test_a_connection_without_a_record_is_closed",
    Reason.PROCESS_CHANGED: "tests/kernel/test_identity.py::test_exec_of_another_program_ends_the_verdict",
    Reason.OFF_MEANWHILE: "tests/kernel/test_switch.py::test_connection_from_before_gets_nothing_any_more",
    Reason.PROCESS_GONE: "tests/unit/facts/test_facts_gather.py::test_a_reused_pid_is_another_process",
    Reason.PROCESS_TRACED: "tests/attack/test_i8_tracer.py::test_a_traced_process_is_refused",
    Reason.NAMESPACE_FOREIGN: "tests/attack/test_i7_mounts.py::test_a_bind_mount_over_the_trusted_path_is_seen",
    Reason.IDENTITY_NONE: f"{_REFUSALS}::test_another_user_gets_nothing",
    Reason.IDENTITY_AMBIGUOUS: f"{_REFUSALS}::test_two_identities_that_claim_one_process_are_refused",
    Reason.EXE_PATH_UNTRUSTED: "tests/e2e/test_selectors.py::test_an_executable_that_others_may_replace_is_refused",
    Reason.EXE_MODIFIED: "tests/attack/test_selectors.py::test_a_modified_program_of_a_package_is_refused",
    Reason.SCRIPT_PATH_UNTRUSTED: "tests/unit/identity/test_match.py::test_a_path_that_others_may_change_is_refused_with_the_component",
    Reason.ATTESTATION_TIMEOUT: f"{_WIRE}::test_an_agent_that_does_not_answer_in_time_lets_nobody_in",
    Reason.QUOTA_EXCEEDED: f"{_WIRE}::test_one_connection_too_many_is_reset_and_noted",
    Reason.DESTINATION_UNKNOWN: f"{_REFUSALS}::test_an_unbound_name_is_spliced_through",
    Reason.METHOD_NOT_ALLOWED: f"{_REFUSALS}::test_another_path_or_method_is_refused_and_the_connection_goes_on",
    Reason.PATH_NOT_ALLOWED: f"{_REFUSALS}::test_another_path_or_method_is_refused_and_the_connection_goes_on",
    Reason.PATH_AMBIGUOUS: "tests/attack/test_h3_requests.py::test_a_path_with_two_readings_is_refused",
    Reason.HOST_MISMATCH: f"{_REFUSALS}::test_host_of_another_name_is_misdirected",
    Reason.NETWORK_NOT_ALLOWED: f"{_REFUSALS}::test_a_private_network_answers_only_where_the_binding_names_it",
    Reason.GRANT_UNKNOWN: "tests/attack/test_lying_proxy.py::test_an_invented_grant_opens_nothing",
    Reason.REVISION_OLD: "tests/e2e/test_life.py::test_a_binding_that_goes_cuts_what_runs",
    Reason.REVOKED: "tests/e2e/test_switch.py::test_a_revoked_process_gets_nothing_more_until_it_runs_another_program",
    Reason.REQUEST_MALFORMED: f"{_BAD}::test_a_wrong_head_is_answered_and_the_connection_ends",
    Reason.REQUEST_HEAD_TOO_LARGE: f"{_BAD}::test_a_wrong_head_is_answered_and_the_connection_ends",
    Reason.REQUEST_BODY_INCOMPLETE: f"{_BAD}::test_a_short_body_is_no_request",
    Reason.REQUEST_BODY_TOO_LARGE: f"{_BAD}::test_a_body_too_large_to_be_buffered_is_refused_at_once",
    Reason.REQUEST_TIMEOUT: f"{_WIRE}::test_a_body_that_stops_is_answered_and_cut_upstream",
    Reason.METHOD_FORBIDDEN: f"{_BAD}::test_a_wrong_head_is_answered_and_the_connection_ends",
    Reason.UPGRADE_FORBIDDEN: f"{_BAD}::test_a_wrong_head_is_answered_and_the_connection_ends",
    Reason.HELLO_MALFORMED: f"{_BAD}::test_a_malformed_hello_is_refused",
    Reason.NOT_TLS: f"{_BAD}::test_what_is_no_tls_is_passed_or_refused_as_egress_says",
    Reason.CLIENT_DOES_NOT_TRUST_CA: f"{_TEXT}::test_a_client_that_does_not_trust_us_is_mended_by_the_printed_command",
    Reason.CLIENT_TLS_FAILED: f"{_BAD}::test_half_a_handshake_is_refused",
    Reason.SIGNATURE_UNREADABLE: "tests/unit/signer/test_oci.py::test_an_unreadable_placeholder_is_refused",
    Reason.BODY_HASH_MISMATCH: f"{_BAD}::test_a_body_that_differs_from_its_announced_hash_never_completes",
    Reason.UPSTREAM_UNREACHABLE: f"{_BAD}::test_a_name_with_no_living_address_is_refused",
    Reason.UPSTREAM_UNVERIFIED: "tests/attack/test_h2_upstream.py::test_an_impostor_gets_nothing",
    Reason.UPSTREAM_RESET: f"{_BAD}::test_a_destination_that_breaks_before_its_answer_is_reported",
    Reason.UPSTREAM_TIMEOUT: f"{_BAD}::test_a_dead_recorded_address_is_tried_at_the_names_others",
    Reason.UPSTREAM_MALFORMED: f"{_BAD}::test_a_destination_that_breaks_before_its_answer_is_reported",
    Reason.IDENTITY_OLDER_THAN_DAEMON: "tests/e2e/test_refusals.py::test_a_program_from_before_its_selector_is_told_to_start_again",
    Reason.LEASE_UNAVAILABLE: "tests/e2e/test_static.py::test_on_lease_failure",
    Reason.EXCHANGE_REFUSED: "tests/e2e/test_cloud_trusts.py::test_each_fault_of_a_trust_has_its_error_reason_detail_and_advice",
    Reason.EXCHANGE_TIMEOUT: f"{_BAD}::test_an_issuer_that_fails_gives_a_typed_refusal",
    Reason.EXCHANGE_MALFORMED: f"{_BAD}::test_an_issuer_that_fails_gives_a_typed_refusal",
    Reason.EXCHANGE_UNREACHABLE: f"{_BAD}::test_an_issuer_that_fails_gives_a_typed_refusal",
    Reason.EXCHANGE_UNVERIFIED: "tests/unit/exchange/test_process.py::test_an_unverified_domain_gets_no_byte",
    Reason.PRINCIPAL_MISMATCH: f"{_BAD}::test_an_issuer_that_fails_gives_a_typed_refusal",
    Reason.KEYS_UNAVAILABLE: f"{_WIRE}::test_keys_gone_means_503_and_its_return_mends_it",
    Reason.AUDIT_UNAVAILABLE: "tests/unit/audit/test_journal.py::test_full_disk_is_told_and_survived",
    Reason.CONFINEMENT_FAILED: "tests/attack/test_confine.py::test_a_process_that_may_not_change_its_uid_does_not_go_on",
    Reason.RESOURCE_MALFORMED: "tests/e2e/test_life.py::test_a_broken_file_changes_nothing_but_the_status",
    Reason.RESOURCE_DANGLING: "tests/unit/binding/test_compile.py::test_names_are_looked_up_for_the_plan_and_missing_ones_are_warned_of",
    Reason.RESOURCE_DUPLICATE: "tests/unit/binding/test_workload_identity.py::test_what_is_wrong_is_told_where_it_stands",
    Reason.RESOURCE_OVERBROAD: "tests/unit/binding/test_workload_identity.py::test_what_is_wrong_is_told_where_it_stands",
    Reason.RESOURCE_UNCOMPILABLE: "tests/unit/binding/test_compile.py::test_what_the_kernel_cannot_tell_apart_is_refused",
}  # fmt: skip
"""Reason to the test that meets it; where several do, the one that stands closest to a user."""

NEVER_REACHED = frozenset({Reason.SOCKET_BUSY})
"""Second locks: Linux itself answers EISCONN or EALREADY before the connect hook of a socket that is not free (__inet_stream_connect())."""


def test_every_reason_has_a_test_that_meets_it() -> None:
    """The test exists and names the reason; a reason without one has no business in the enum."""
    found = []
    for reason in Reason:
        place = SHOWN.get(reason)
        if reason in NEVER_REACHED:
            if place is not None:
                found.append(f"{reason} has a test now: take it out of the set that excuses it")
            continue
        if place is None:
            found.append(f"{reason} has no test: name one in tests/repo/test_reason_tests.py")
            continue
        path, _, name = place.partition("::")
        source = _source(path, name)
        if source is None:
            found.append(f"{reason}: {place} is not there")
        elif re.search(rf"""Reason\.{reason.name}\b|["'(]{re.escape(reason.value)}["')]""", source) is None:
            found.append(f"{reason}: {place} does not name it")
    report(found)


def test_every_reason_is_given_by_code() -> None:
    """A reason that lost its last use is to go."""
    sources = [path.read_text() for path in (REPO / "control").rglob("*.py") if path.name != "reason.py"]
    kernel = "".join(path.read_text() for path in (REPO / "bpf" / "prog").iterdir())
    given = {r for r in Reason if any(f"Reason.{r.name}" in text for text in sources) or f"REASON_{r.name}" in kernel}
    assert set(Reason) == given


def _source(path: str, name: str) -> str | None:
    """Give the text of one test with its decorators."""
    file = REPO / path
    if not file.exists():
        return None
    text = file.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            return "\n".join(text.splitlines()[start - 1 : node.end_lineno])
    return None
