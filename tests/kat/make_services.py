"""Makes services.json: one keyset, wrapped as each key service wraps it, by keys that are known.

python -m tests.kat.make_services     only where the file is missing: what is stored may never change
"""

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from encvec_store.keys import Keyset
from encvec_store.keys.wrappers import azure, gcp, pkcs11, vault
from encvec_store.keys.wrappers.service import encoded

FILE = Path(__file__).with_name("services.json")
OAEP = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
GCP_KEY = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
SPECS = {
    "gcpkms": f"gcpkms:{GCP_KEY}&context=production",
    "azurekv": "azurekv:v.vault.azure.net/keys/k&context=production",
    "vault": "vault:k&context=production",
    "pkcs11": "pkcs11:t/k&context=production",
}


@contextmanager
def played(aes: bytes, pem: str):
    """Play the services by known keys, at the seam between a wrapper and its client."""
    cipher, private = AESGCM(aes), load_pem_private_key(pem.encode(), None)

    def sealed(content, context):
        nonce = os.urandom(12)
        return nonce + cipher.encrypt(nonce, content, encoded(context))

    def opened(content, context):
        return cipher.decrypt(content[:12], content[12:], encoded(context))

    class Token:
        def encrypt(self, key, *, nonce, context):
            return cipher.encrypt(nonce, key, encoded(context))

        def decrypt(self, wrapped, *, nonce, context):
            return cipher.decrypt(nonce, wrapped, encoded(context))

    @contextmanager
    def token(_):
        yield Token(), None

    def posted(_, action, **fields):
        bound = json.loads(vault.base64.b64decode(fields["associated_data"]))
        if action == "encrypt":
            content = sealed(vault.base64.b64decode(fields["plaintext"]), bound)
            return {"ciphertext": "vault:v1:" + vault.base64.b64encode(content).decode()}
        content = vault.base64.b64decode(fields["ciphertext"].removeprefix("vault:v1:"))
        return {"plaintext": vault.base64.b64encode(opened(content, bound)).decode()}

    class Azure:
        key_id = f"https://v.vault.azure.net/keys/k/{'0123456789abcdef' * 2}"

        def __init__(self, value=b""):
            self.encrypted_key = self.key = value

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def wrap_key(self, _, content):
            return Azure(private.public_key().encrypt(content, OAEP))

        def unwrap_key(self, _, wrapped):
            return Azure(private.decrypt(wrapped, OAEP))

    with (
        mock.patch.object(gcp.GcpKmsWrapper, "wrap", lambda _, key, context: (sealed(key, context), {})),
        mock.patch.object(gcp.GcpKmsWrapper, "unwrap", lambda _, wrapped, context, more: opened(wrapped, context)),
        mock.patch.object(azure.AzureWrapper, "_client", return_value=Azure()),
        mock.patch.object(azure, "_algorithm", return_value=None),
        mock.patch.object(vault.VaultWrapper, "_post", posted),
        mock.patch.object(pkcs11.Pkcs11Wrapper, "_key", token),
        mock.patch.object(pkcs11, "_how", lambda _, nonce, context: {"nonce": nonce, "context": context}),
    ):
        yield


def main():
    if FILE.exists():
        sys.exit(f"{FILE.name} is there already")
    import pyrage

    aes, identity = os.urandom(32), pyrage.x25519.Identity.generate()
    private = rsa.generate_private_key(65537, 2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    source = Keyset.create("memory:")
    exported = source.export(unsafe_cleartext=True)
    specs = {**SPECS, "age": f"age:{identity.to_public()}&context=production"}
    files = {}
    with played(aes, pem):
        for name, spec in specs.items():
            place = FILE.with_name(f".{name}.tmp")
            Keyset.restore(f"file:{place}", exported, wrap=spec)
            files[name] = {"wrap": spec, "content": place.read_text(encoding="utf-8")}
            place.unlink()
    told = {"root": source.root(1).hex(), "aes": aes.hex(), "rsa": pem, "age": str(identity), "files": files}
    FILE.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
