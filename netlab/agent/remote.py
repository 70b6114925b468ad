"""The agent over TCP, on request only: with a token or client certificates, encrypted unless on loopback."""

from __future__ import annotations

import hmac
import ipaddress
import socket
import ssl
import stat
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from starlette.types import Scope

from netlab.agent.problems import RefusedError
from netlab.errors import BadInput

_LEAST_TOKEN = 24  # characters: what `openssl rand -base64 18` prints
_MAKE_ONE = "Make one: (umask 077; openssl rand -base64 32 > FILE)"


@dataclass(frozen=True, slots=True)
class Remote:
    """Where to listen besides the unix socket, and who is served there."""

    address: str
    port: int
    token: bytes | None = field(repr=False)  # tracebacks may show it
    certificate: Path | None
    key: Path | None
    client_ca: Path | None

    @classmethod
    def of(
        cls,
        listen: str,
        *,
        token_file: Path | None = None,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        client_ca: Path | None = None,
    ) -> Remote:
        """Check what was asked for.

        Raises
        ------
        BadInput
            If everybody would be served, a token would travel in the clear, or a file cannot be used.
        """
        address, port = _endpoint(listen)
        if token_file is None and client_ca is None:
            raise BadInput(
                f"--listen {listen} without a token or client certificates would serve everybody",
                fix=f"Give --token-file, or --client-ca with --tls-cert and --tls-key. {_MAKE_ONE}",
            )
        if (tls_cert is None) != (tls_key is None) or (client_ca and tls_cert is None):
            raise BadInput(
                "TLS takes a certificate and its key", fix="Give --tls-cert and --tls-key together"
            )
        if tls_cert is None and not ipaddress.ip_address(address).is_loopback:
            raise BadInput(
                f"--listen {listen} without TLS would send the token in the clear",
                fix="Give --tls-cert and --tls-key, or listen on 127.0.0.1 and forward it through ssh",
            )
        for file in (tls_cert, tls_key, client_ca):
            if file is not None and not file.is_file():
                raise BadInput(f"there is no file {file}", fix="Check its path")
        if tls_cert is not None and tls_key is not None:
            _check_certificates(tls_cert, tls_key, client_ca)
        token = None if token_file is None else _token(token_file)
        return cls(address, port, token, tls_cert, tls_key, client_ca)

    def listening(self) -> socket.socket:
        """Listen.

        Raises
        ------
        BadInput
            If the address is not this host's, or the port is taken.
        """
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        try:
            return socket.create_server((self.address, self.port), family=family, backlog=256)
        except OSError as error:
            where = f"--listen {self.address} port {self.port}"
            raise BadInput(f"{where}: {error.strerror}", fix="Give another --listen") from error

    def admit(self, scope: Scope) -> RefusedError | None:
        """Return why a request is refused, None if it has the token; certificates TLS has seen to."""
        if self.token is None:
            return None
        given = dict(scope["headers"]).get(b"authorization", b"")
        if hmac.compare_digest(given, b"Bearer " + self.token):  # in the same time, however much is right
            return None
        return RefusedError(
            HTTPStatus.UNAUTHORIZED,
            "this agent takes a token over TCP, and the request has not the right one",
            fix="netlab.connect(url, token=…), or the header Authorization: Bearer TOKEN",
        )


def _endpoint(listen: str) -> tuple[str, int]:
    address, colon, port = listen.rpartition(":")
    address = address.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(address)
        number = int(port)
    except ValueError:
        number = 0
    if not colon or not 1 <= number <= 65535:
        raise BadInput(
            f"--listen {listen!r} is no address and port", fix="Such as 127.0.0.1:9400, or [::1]:9400"
        )
    return address, number


def _check_certificates(certificate: Path, key: Path, client_ca: Path | None) -> None:
    """Refuse files that TLS will not take, while somebody is there to be told."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # nobody is there to type one
        if client_ca is not None:
            context.load_verify_locations(client_ca)
    except OSError as error:
        raise BadInput(
            f"these certificates cannot be used: {error}",
            fix="Give --tls-cert and its --tls-key, and --client-ca, as PEM files without a password",
        ) from error


def _token(file: Path) -> bytes:
    try:
        mode, text = file.stat().st_mode, file.read_bytes().strip()
    except OSError as error:
        raise BadInput(f"--token-file {file}: {error.strerror}", fix=_MAKE_ONE) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadInput(f"others may read the token in {file}", fix=f"chmod 600 {file}")
    if len(text) < _LEAST_TOKEN or not text.isascii() or len(text.split()) != 1:
        raise BadInput(f"{file} has no token of at least {_LEAST_TOKEN} characters", fix=_MAKE_ONE)
    return text
