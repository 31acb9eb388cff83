"""The voice server as MLS external sender: it proposes who joins and leaves the group, and signs each proposal.

    op 25     signature_key<V> (65 bytes, uncompressed P-256 point) | u16 1 (basic) | identity<V>
    proposal  u16 1 | u16 1 | content | signature<V>
    content   group_id<V> | u64 epoch | u8 2 (external), u32 0 | aad<V> (empty) | u8 2 (proposal)
              | u16 1 (add), KeyPackage  or  u16 3 (remove), u32 leaf
    op 27     u8 0 (append) | MLSMessage[]<V>   or   u8 1 (revoke) | ProposalRef<V>[]<V>

Signed: ECDSA P-256 with SHA-256, DER, over `label<V> | tbs<V>` where tbs = `u16 1 | u16 1 | content`; an external
sender signs no group context (RFC 9420 §6.1, §5.1.2). It knows no group secret and needs none.
"""

from collections.abc import Iterable

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ops.loopback.mls_wire import CREDENTIAL_BASIC, PROTOCOL_MLS10, WIRE_PUBLIC_MESSAGE, labelled_hash, vector

APPEND, REVOKE = b"\0", b"\1"  # op 27's first byte
SENDER_EXTERNAL = b"\2" + bytes(4)  # RFC 9420 §6: external, index 0 in the external_senders extension
CONTENT_PROPOSAL = b"\2"
PROPOSAL_ADD, PROPOSAL_REMOVE = 1, 3  # RFC 9420 §12.1
SIGN_LABEL = b"MLS 1.0 FramedContentTBS"


class Proposal(msgspec.Struct, frozen=True):
    """
    A signed change of the group.

    Attributes
    ----------
    user_id
        Whom it adds or removes.
    package
        The KeyPackage of an Add; None for a Remove.
    message
        The serialised MLSMessage.
    reference
        The name by which commits and revocations refer to it (ProposalRef, RFC 9420 §5.2).
    """

    user_id: int
    package: bytes | None
    message: bytes
    reference: bytes


class ExternalSender:
    """The signing identity of a voice server."""

    def __init__(self, *, identity: bytes = b"loopback voice server") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._identity = identity

    def package(self) -> bytes:
        """The payload of op 25, by which clients come to trust this sender."""
        point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return vector(point) + _u16(CREDENTIAL_BASIC) + vector(self._identity)

    def add(self, *, group_id: bytes, epoch: int, user_id: int, package: bytes) -> Proposal:
        """A proposal to add the owner of the bare KeyPackage `package`."""
        return self._propose(group_id, epoch, _u16(PROPOSAL_ADD) + package, user_id, package)

    def remove(self, *, group_id: bytes, epoch: int, user_id: int, leaf: int) -> Proposal:
        """A proposal to remove the member at `leaf`."""
        return self._propose(group_id, epoch, _u16(PROPOSAL_REMOVE) + leaf.to_bytes(4, "big"), user_id, None)

    def _propose(self, group_id: bytes, epoch: int, proposal: bytes, user_id: int, package: bytes | None) -> Proposal:
        content = vector(group_id) + epoch.to_bytes(8, "big") + SENDER_EXTERNAL + vector(b"")
        content += CONTENT_PROPOSAL + proposal
        to_be_signed = _u16(PROTOCOL_MLS10) + _u16(WIRE_PUBLIC_MESSAGE) + content
        signature = self._key.sign(vector(SIGN_LABEL) + vector(to_be_signed), ec.ECDSA(hashes.SHA256()))
        authenticated = _u16(WIRE_PUBLIC_MESSAGE) + content + vector(signature)
        reference = labelled_hash("MLS 1.0 Proposal Reference", authenticated)
        return Proposal(user_id, package, _u16(PROTOCOL_MLS10) + authenticated, reference)


def append_payload(proposals: Iterable[Proposal]) -> bytes:
    """The payload of op 27 that brings `proposals`."""
    return APPEND + vector(b"".join(proposal.message for proposal in proposals))


def revoke_payload(references: Iterable[bytes]) -> bytes:
    """The payload of op 27 that takes proposals back by their `references`."""
    return REVOKE + vector(b"".join(vector(reference) for reference in references))


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")
