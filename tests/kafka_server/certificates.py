"""Certificates of an authority that exists for one cluster: for its brokers, and for its clients."""

from __future__ import annotations

from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


class Authority:
    """Issues certificates into one folder; `ca_file` is what a client has to trust."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca_file)

    def broker_keystore(self) -> Path:
        """Key and certificate of a broker on the loopback interface, in one PEM file as Kafka reads it."""
        path = self._folder / "broker.pem"
        path.write_bytes(_key_and_chain(self._ca.issue_cert("127.0.0.1", "localhost")))
        return path

    def client_certificate(self, name: str) -> Path:
        """Key and certificate of a client; its common name is what the broker knows it by."""
        path = self._folder / f"client-{name}.pem"
        path.write_bytes(_key_and_chain(self._ca.issue_cert(f"{name}@localhost", common_name=name)))
        return path


def _key_and_chain(leaf: trustme.LeafCert) -> bytes:
    """Kafka takes no other private keys than PKCS #8 ones."""
    key = load_pem_private_key(leaf.private_key_pem.bytes(), password=None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return b"".join([pem, *(certificate.bytes() for certificate in leaf.cert_chain_pems)])
