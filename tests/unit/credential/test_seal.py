"""A sealed file opens with its key, under its name, as it was written, and in no other case."""

import base64
from collections.abc import Callable

import pytest
from Crypto.Cipher import AES
from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF
from hypothesis import given
from hypothesis import strategies as st

from control.credential import seal
from control.credential.seal import SealError
from control.secret import Secret

KEY, OTHER = Secret(bytes(range(32))), Secret(bytes(range(1, 33)))
NONCE = bytes(12)
PLAIN = Secret("api-key-of-the-test-4711")
SEALED = seal.seal(KEY, "billing", PLAIN, NONCE)


@given(st.binary(max_size=4096), st.binary(min_size=32, max_size=32), st.binary(min_size=12, max_size=12))
def test_what_was_sealed_opens_and_is_not_there_to_read(plain: bytes, key: bytes, nonce: bytes) -> None:
    """Any bytes come back; none of them stand in the file, neither plain nor in base64."""
    sealed = seal.seal(Secret(key), "a-name", Secret(plain), nonce)
    assert seal.is_sealed(sealed)
    assert seal.unseal(Secret(key), "a-name", sealed).reveal() == plain
    if len(plain) > 8:
        assert plain not in sealed
        assert plain not in base64.b64decode(sealed.partition(b"\n\n")[2])[seal.NONCE_BYTES :]


def test_another_library_opens_it_with_the_header_as_associated_data() -> None:
    """AES-256-GCM as PyCryptodome has it: nonce, ciphertext, tag, and every byte of the header counts."""
    header, _, body = SEALED.partition(b"\n\n")
    raw = base64.b64decode(body)
    cipher = AES.new(KEY.reveal(), AES.MODE_GCM, nonce=raw[:12])
    cipher.update(header + b"\n\n")
    assert cipher.decrypt_and_verify(raw[12:-16], raw[-16:]) == PLAIN.reveal()


def test_the_two_purposes_have_keys_of_their_own() -> None:
    """HKDF-SHA256 (RFC 5869), as PyCryptodome computes it; neither key is the master or the other."""
    master = Secret(b"m" * 32)
    keys, secrets = seal.derive(master, "keys"), seal.derive(master, "secrets")
    assert keys.reveal() == HKDF(master.reveal(), 32, b"", SHA256, context=b"credwire seal 1 keys")
    assert len({keys.reveal(), secrets.reveal(), master.reveal()}) == 3


def renamed(sealed: bytes) -> bytes:
    return sealed.replace(b"name billing", b"name payroll")


@pytest.mark.parametrize(
    ("change", "name", "key", "says"),
    [
        (lambda s: s, "billing", OTHER, "was sealed with key"),
        (lambda s: s, "payroll", KEY, 'was sealed for the name "billing"'),
        (renamed, "payroll", KEY, "is not what was sealed"),
        (lambda s: s[:-6] + b"AAAA=\n", "billing", KEY, "is not what was sealed"),
        (lambda s: s[:-12], "billing", KEY, "is not what was sealed"),
        (lambda s: s[:30], "billing", KEY, "header cannot be read"),
        (lambda s: s[: s.index(b"\n\n") + 2], "billing", KEY, "is not what was sealed"),
        (lambda s: s + b"\xff", "billing", KEY, "is not what was sealed"),
        (lambda s: s.replace(b"credwire-sealed 1", b"credwire-sealed 2"), "billing", KEY, "another version"),
        (lambda s: s[:0], "billing", KEY, "header cannot be read"),
    ],
)  # fmt: skip
def test_what_does_not_open_says_why(change: Callable[[bytes], bytes], name: str, key: Secret, says: str) -> None:
    """Another key, another name and damage are told apart; the control opens; no error holds the secret."""
    assert seal.unseal(KEY, "billing", SEALED) == PLAIN
    with pytest.raises(SealError, match=says) as caught:
        seal.unseal(key, name, change(SEALED))
    assert caught.value.hint
    assert PLAIN.reveal().decode() not in str(caught.value)


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(at: int, by: int) -> None:
    """Whatever single byte is another one, it does not open; but for line breaks of the body, which carry nothing."""
    changed = bytearray(SEALED)
    changed[at] ^= by
    if at > SEALED.index(b"\n\n") and b"\n" in (SEALED[at : at + 1], bytes(changed[at : at + 1])):
        return
    with pytest.raises(SealError):
        seal.unseal(KEY, "billing", bytes(changed))


@pytest.mark.parametrize("name", ["", "a/b", "a\nkey 0", "\x00", "x" * 256])
def test_a_name_that_could_not_be_a_file_of_ours_is_refused(name: str) -> None:
    """A line break in a name would write a header of its own."""
    with pytest.raises(SealError):
        seal.seal(KEY, name, PLAIN, NONCE)


@pytest.mark.parametrize(
    ("raw", "holds"),
    [
        (b"abc", b"abc"), (b"abc\n", b"abc"), (b"abc\r\n", b"abc"), (b"abc\n\n", b"abc\n"), (b" abc ", b" abc "), (b"", b""),
        (SEALED, PLAIN.reveal()),
    ],
)  # fmt: skip
def test_a_plain_file_loses_one_line_break_and_nothing_else(raw: bytes, holds: bytes) -> None:
    """Editors add one; whatever else is odd about a secret is the signer's to refuse."""
    assert seal.content(raw, "billing", lambda: KEY).reveal() == holds


def test_the_id_of_a_key_does_not_tell_it() -> None:
    """Eight bytes that differ for keys that differ."""
    assert seal.sealed_by(SEALED) == seal.key_id(KEY) != seal.key_id(OTHER)
    assert seal.sealed_by(b"-----BEGIN") == ""
