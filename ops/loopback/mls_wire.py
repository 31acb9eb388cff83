"""MLS messages as the voice server must read them: just enough structure to find the borders.

The server of a DAVE call is no group member. It reads who a key package belongs to, which proposals a commit refers to,
where a commit ends and its welcome begins, and which part of a welcome is for whom. Everything else passes through.

    commit   u16 1 | u16 1 | group_id<V> | u64 epoch | u8 1, u32 leaf | aad<V> | u8 3 | proposals<V>
             | optional path | signature<V> | confirmation_tag<V> | membership_tag<V>
    welcome  u16 suite | secrets<V> | encrypted_group_info<V>

`<V>` is a vector behind a variable-size length (RFC 9420 §2.1.2).
"""

import hashlib
from typing import NamedTuple

from ops.loopback.errors import MalformedMessageError

PROTOCOL_MLS10 = 1  # RFC 9420 §6
CIPHERSUITE = 2  # MLS_128_DHKEMP256_AES128GCM_SHA256_P256, the only one of DAVE version 1
WIRE_PUBLIC_MESSAGE = 1  # RFC 9420 §6
WIRE_KEY_PACKAGE = 5
CREDENTIAL_BASIC = 1
SENDER_MEMBER = 1
CONTENT_COMMIT = 3
BY_REFERENCE = 2  # RFC 9420 §12.4
SOURCE_KEY_PACKAGE = 1
SOURCE_COMMIT = 3
CAPABILITY_LISTS = 5  # versions, suites, extensions, proposals, credentials
ONE_BYTE, TWO_BYTES, FOUR_BYTES = 1 << 6, 1 << 14, 1 << 30  # exclusive upper bounds of the three forms


def vector(content: bytes) -> bytes:
    """`content` behind its variable-size length (RFC 9420 §2.1.2)."""
    size = len(content)
    if size < ONE_BYTE:
        return bytes([size]) + content
    if size < TWO_BYTES:
        return (size | 0x4000).to_bytes(2, "big") + content
    if size < FOUR_BYTES:
        return (size | 0x8000_0000).to_bytes(4, "big") + content
    raise MalformedMessageError(f"a vector of {size} bytes has no length form")


class Reader:
    """A cursor over a serialised message; every read past the end raises MalformedMessageError."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self.position + size
        if end > len(self.data):
            raise MalformedMessageError(f"{size} bytes wanted at {self.position}, message has {len(self.data)}")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def uint(self, size: int) -> int:
        """An unsigned big-endian integer of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def vector(self) -> bytes:
        """The content of a variable-size vector; a length in a longer form than needed is malformed."""
        first = self.uint(1)
        form, size = first >> 6, first & 0x3F
        if form == 3:  # noqa: PLR2004 - the two prefix bits 11 are reserved
            raise MalformedMessageError("reserved vector length prefix")
        size = (size << 8 * ((1 << form) - 1)) | self.uint((1 << form) - 1)
        if form and size < (ONE_BYTE, ONE_BYTE, TWO_BYTES)[form]:
            raise MalformedMessageError("vector length not in its shortest form")
        return self.take(size)

    def expect(self, size: int, value: int, *, what: str) -> None:
        """Read an integer that can only be `value`."""
        found = self.uint(size)
        if found != value:
            raise MalformedMessageError(f"{what} is {found}, expected {value}")

    @property
    def rest(self) -> bytes:
        """What was not read yet."""
        return self.data[self.position :]


class Commit(NamedTuple):
    """What the server reads from a commit; `message` is the whole serialised MLSMessage."""

    group_id: bytes
    epoch: int
    leaf: int
    references: tuple[bytes, ...]
    message: bytes


def labelled_hash(label: str, content: bytes) -> bytes:
    """The reference of a proposal or key package (RefHash, RFC 9420 §5.2)."""
    return hashlib.sha256(vector(label.encode()) + vector(content)).digest()


def key_package_ref(package: bytes) -> bytes:
    """The name by which a welcome addresses the owner of `package` (RFC 9420 §5.2)."""
    return labelled_hash("MLS 1.0 KeyPackage Reference", package)


def read_key_package(payload: bytes, *, user_id: int) -> bytes:
    """
    The bare KeyPackage in op 26's `payload`, which may also come inside an MLSMessage.

    Raises
    ------
    MalformedMessageError
        If it is no key package of the one ciphersuite, or its credential names somebody else.
    """
    wrapped = payload[2:4] == WIRE_KEY_PACKAGE.to_bytes(2, "big")
    package = payload[4:] if wrapped else payload
    reader = Reader(package)
    reader.expect(2, PROTOCOL_MLS10, what="protocol version")
    reader.expect(2, CIPHERSUITE, what="ciphersuite")
    reader.vector()  # init key
    identity = _leaf_node(reader)
    reader.vector()  # extensions
    reader.vector()  # signature
    if reader.rest:
        raise MalformedMessageError("bytes after the key package")
    if identity != user_id.to_bytes(8, "big"):
        raise MalformedMessageError("the key package names another user")
    return package


def split_commit_welcome(payload: bytes) -> tuple[Commit, bytes | None]:
    """The commit and the bare welcome, if any, which op 28 carries without a border between them."""
    reader = Reader(payload)
    reader.expect(2, PROTOCOL_MLS10, what="protocol version")
    reader.expect(2, WIRE_PUBLIC_MESSAGE, what="wire format")
    group_id, epoch = reader.vector(), reader.uint(8)
    reader.expect(1, SENDER_MEMBER, what="sender type")
    leaf = reader.uint(4)
    reader.vector()  # authenticated data
    reader.expect(1, CONTENT_COMMIT, what="content type")
    references = _references(reader.vector())
    if reader.uint(1):
        _leaf_node(reader)
        reader.vector()  # path nodes
    for _ in ("signature", "confirmation tag", "membership tag"):
        reader.vector()
    message = payload[: reader.position]
    return Commit(group_id, epoch, leaf, references, message), reader.rest or None


def welcome_for(welcome: bytes, package: bytes) -> bytes:
    """`welcome` with only those secrets that the owner of `package` can open."""
    reader = Reader(welcome)
    suite, secrets = reader.take(2), Reader(reader.vector())
    wanted, mine = key_package_ref(package), b""
    while secrets.rest:
        start = secrets.position
        owner = secrets.vector()
        secrets.vector()  # kem output
        secrets.vector()  # ciphertext
        if owner == wanted:
            mine += secrets.data[start : secrets.position]
    if not mine:
        raise MalformedMessageError("the welcome holds nothing for this key package")
    return suite + vector(mine) + reader.rest


def _references(proposals: bytes) -> tuple[bytes, ...]:
    reader, found = Reader(proposals), []
    while reader.rest:
        reader.expect(1, BY_REFERENCE, what="proposal form")
        found.append(reader.vector())
    return tuple(found)


def _leaf_node(reader: Reader) -> bytes:
    """Skip a LeafNode (RFC 9420 §7.2); returns the identity of its basic credential."""
    reader.vector()  # encryption key
    reader.vector()  # signature key
    reader.expect(2, CREDENTIAL_BASIC, what="credential type")
    identity = reader.vector()
    for _ in range(CAPABILITY_LISTS):
        reader.vector()
    source = reader.uint(1)
    if source == SOURCE_KEY_PACKAGE:
        reader.take(16)  # lifetime: not before, not after
    elif source == SOURCE_COMMIT:
        reader.vector()  # parent hash
    reader.vector()  # extensions
    reader.vector()  # signature
    return identity
