"""Sessions by calls of OpenSSL and GnuTLS that Python does not make itself."""

from __future__ import annotations

import ctypes
import http.client
import io
import os
import socket
from ctypes.util import find_library
from typing import Any

from loopback import LOOPBACK

_CLIENT, _CERTIFICATE = 2, 1  # GNUTLS_CLIENT, GNUTLS_CRD_CERTIFICATE
_RDWR = 0  # GNUTLS_SHUT_RDWR
_WAIT = 1  # GNUTLS_RECORD_WAIT
_AGAIN = (-28, -52)  # GNUTLS_E_AGAIN, GNUTLS_E_INTERRUPTED


def _library(name: str, *functions: str) -> ctypes.CDLL:
    """Load a library whose *functions* return a pointer or a size."""
    library = ctypes.CDLL(find_library(name))
    for function in functions:
        getattr(library, function).restype = ctypes.c_ssize_t
    return library


class GnuTls(io.RawIOBase):
    """A client's session over a connected socket, which it closes; readable as a file is."""

    def __init__(self, plain: socket.socket) -> None:
        sizes = ("gnutls_record_send", "gnutls_record_send2", "gnutls_record_recv", "gnutls_record_send_file")
        self._library, self._plain = _library("gnutls", *sizes), plain
        self._trusted, self._session = ctypes.c_void_p(), ctypes.c_void_p()
        self._do("certificate_allocate_credentials", ctypes.byref(self._trusted))
        self._do("init", ctypes.byref(self._session), _CLIENT)
        self._do("set_default_priority", self._session)
        self._do("credentials_set", self._session, _CERTIFICATE, self._trusted)
        self._library.gnutls_transport_set_int2(self._session, plain.fileno(), plain.fileno())
        self._do("handshake", self._session)

    def _do(self, what: str, *given: Any) -> int:
        done: int
        while (done := getattr(self._library, f"gnutls_{what}")(*given)) in _AGAIN:
            pass
        assert done >= 0, f"{what}: {done}"
        return done

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        return self._do(
            "record_recv", self._session, (ctypes.c_char * len(into)).from_buffer(into), len(into)
        )

    def sendall(self, data: bytes) -> None:
        assert self._do("record_send", self._session, data, len(data)) == len(data)

    def send2(self, data: bytes) -> None:
        assert self._do("record_send2", self._session, data, ctypes.c_size_t(len(data)), 0, 0) == len(data)

    def send_corked(self, *parts: bytes) -> None:
        self._library.gnutls_record_cork(self._session)
        for part in parts:
            self.sendall(part)
        assert self._do("record_uncork", self._session, _WAIT) == len(b"".join(parts))

    def send_file(self, file: int) -> None:
        size = os.fstat(file).st_size
        assert self._do("record_send_file", self._session, file, None, ctypes.c_size_t(size)) == size

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_Borrowed(self))

    def close(self) -> None:
        if not self.closed:
            self._library.gnutls_bye(self._session, _RDWR)
            self._library.gnutls_deinit(self._session)
            self._library.gnutls_certificate_free_credentials(self._trusted)
            self._plain.close()
        super().close()


class _Borrowed(io.RawIOBase):
    """A session that is not closed when its reader is."""

    def __init__(self, session: GnuTls) -> None:
        self._session = session

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        return self._session.readinto(into)


class GnuTlsConnection(http.client.HTTPConnection):
    """Python's client over GnuTLS."""

    def connect(self) -> None:
        self.sock = GnuTls(socket.create_connection((self.host, self.port)))  # type: ignore[assignment]


def over_gnutls(port: int, family: int) -> GnuTlsConnection:
    return GnuTlsConnection(LOOPBACK[family], port, timeout=30)


class OpenSsl:
    """A client's session over a connected socket; it may have more than one holder."""

    def __init__(self, plain: socket.socket) -> None:
        self._library = _library("ssl", "SSL_CTX_new", "SSL_new", "TLS_client_method")
        call = self._library
        self._context = ctypes.c_void_p(call.SSL_CTX_new(ctypes.c_void_p(call.TLS_client_method())))
        self._session = ctypes.c_void_p(call.SSL_new(self._context))
        call.SSL_set_fd(self._session, plain.fileno())
        assert call.SSL_connect(self._session) == 1

    def share(self) -> None:
        assert self._library.SSL_up_ref(self._session) == 1

    def send(self, data: bytes) -> None:
        assert self._library.SSL_write(self._session, data, len(data)) == len(data)

    def receive(self) -> bytes:
        data = ctypes.create_string_buffer(16384)
        size: int = self._library.SSL_read(self._session, data, len(data))
        assert size > 0
        return data.raw[:size]

    def free(self) -> None:
        self._library.SSL_free(self._session)

    def close(self) -> None:
        self.free()
        self._library.SSL_CTX_free(self._context)
