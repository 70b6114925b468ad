"""What both ends of TLS need: a certificate that is its own authority, and who takes it."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


def trusting(*protocols: str) -> ssl.SSLContext:
    """Return a client's context that takes any certificate, and names *protocols* by ALPN."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def certify(place: Path) -> tuple[Path, Path]:
    """Make a certificate and its key; return their files."""
    files = place / "cert.pem", place / "key.pem"
    kind = (
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=localhost",
    )
    out = ("-out", files[0], "-keyout", files[1])
    subprocess.run(["openssl", "req", *kind, *out], check=True, capture_output=True)
    return files
