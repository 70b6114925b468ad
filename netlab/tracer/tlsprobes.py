"""The uprobes of bpf/tls.c on every TLS library of this host, placed as libraries are found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from netlab.errors import KernelError, ProgramError
from netlab.kernel import clock, descriptors, elf
from netlab.kernel.bpf import Program
from netlab.kernel.uprobes import Place
from netlab.tracer.tlslibraries import Libraries, Library

_LOOK_EVERY_S = 15.0
_ASK_EVERY_S = 1.0  # whether there are connections that speak TLS by a library that is not known
_RETURNED = "netlab_tls_returned"

# What runs at which function's entry, and at its return. What makes a session one that was seen whole is the
# last one, and is placed last.
_Places: TypeAlias = tuple[tuple[str, str | None, str | None], ...]
_OPENSSL: _Places = (
    ("SSL_do_handshake", "netlab_tls_shakes", _RETURNED),
    ("SSL_read", "netlab_tls_opens", _RETURNED),
    ("SSL_read_ex", "netlab_tls_opens_ex", _RETURNED),
    ("SSL_write", "netlab_tls_seals", _RETURNED),
    ("SSL_write_ex", "netlab_tls_seals_ex", _RETURNED),
    ("SSL_sendfile", "netlab_tls_sends_file", _RETURNED),
    ("SSL_up_ref", "netlab_tls_shared", None),
    ("SSL_free", "netlab_tls_freed", None),
    ("SSL_clear", "netlab_tls_cleared", None),
    ("SSL_new", None, "netlab_tls_made"),
)
_GNUTLS: _Places = (
    ("gnutls_handshake", "netlab_tls_shakes", _RETURNED),
    ("gnutls_record_recv", "netlab_tls_opens", _RETURNED),
    ("gnutls_record_send", "netlab_tls_seals", _RETURNED),
    ("gnutls_record_send2", "netlab_tls_seals", _RETURNED),
    ("gnutls_record_send_file", "netlab_tls_sends_file", _RETURNED),
    ("gnutls_record_uncork", "netlab_tls_flushes", _RETURNED),
    ("gnutls_deinit", "netlab_tls_freed", None),
    ("gnutls_init", "netlab_tls_makes", _RETURNED),
)
_CRYPTO: _Places = (("BIO_write", "netlab_tls_sealed", None),)
_PLACES = {
    Library.SSL: _OPENSSL,
    Library.GNUTLS: _GNUTLS,
    Library.CRYPTO: _CRYPTO,
    Library.PROGRAM: _CRYPTO + _OPENSSL,
}
_FUNCTIONS = sorted({name for places in _PLACES.values() for _, *both in places for name in both if name})
_NEEDED = {  # of a library that is one of these, and not another by a name like it
    Library.SSL: {"SSL_read", "SSL_write", "SSL_free", "SSL_new"},
    Library.GNUTLS: {"gnutls_record_recv", "gnutls_record_send", "gnutls_deinit", "gnutls_init"},
    Library.CRYPTO: {"BIO_write"},
    Library.PROGRAM: {"SSL_read", "SSL_write", "SSL_free", "SSL_new", "BIO_write"},
}


class TlsProbes:
    """Places the probes of *program*, and tells what was said while a library had only some of its own."""

    def __init__(self, program: Program) -> None:
        self.refused = 0  # libraries
        self.crowded_out = 0  # libraries for which too few descriptors were left
        self._program = program
        self._libraries = Libraries()
        self._windows: list[tuple[int, int]] = []
        self._looked_s = self._asked_s = 0.0
        self._strange: set[int] = set()
        self._looked_for: set[int] = set()
        for function in _FUNCTIONS:
            program.load_uprobe(function)
        self.look()

    @property
    def unreadable(self) -> int:
        """How many processes could not be looked into."""
        return self._libraries.unreadable

    def look_if_due(self, uncovered: Callable[[], set[int]]) -> None:
        """Look for libraries again, sooner if connections stay *uncovered* that nobody looked for."""
        now_s = time.monotonic()
        if now_s - self._asked_s < _ASK_EVERY_S:
            return
        self._asked_s, everybody = now_s, uncovered()
        strange = everybody - self._looked_for
        if strange & self._strange or now_s - self._looked_s > _LOOK_EVERY_S:
            self.look()
            self._looked_for = everybody
        self._strange = strange

    def look(self) -> None:
        """Place probes in the libraries that are new."""
        self._libraries.find(self._place)
        self._looked_s = time.monotonic()

    def was_partial(
        self, begun_ns: npt.NDArray[np.uint64], at_ns: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.bool_]:
        """Tell of what was said *at_ns* in sessions *begun_ns* whether more may have been missed."""
        partial = np.zeros(len(at_ns), bool)
        for start, end in self._windows:
            partial |= (begun_ns >= start) & (begun_ns < end) & (at_ns < end)
        return partial

    def _place(self, file: int, library: Library) -> None:
        places = _PLACES[library]
        offsets = elf.functions(file, [name for name, *_ in places])
        if not offsets.keys() >= _NEEDED[library]:
            return
        if "gnutls_record_send2" in offsets:
            del offsets["gnutls_record_send"]  # which calls that, since GnuTLS 3.6.3
        began_ns = clock.now_ns()
        try:  # a container has its own libraries, and one of them takes a dozen descriptors
            descriptors.leave_some(file, doing="probe more TLS libraries")
        except KernelError:
            self.crowded_out += 1
            return
        try:
            self._program.attach_uprobes(file, _in_order(places, offsets))
        except ProgramError:
            self.refused += 1
        self._windows.append((began_ns, clock.now_ns()))


def _in_order(places: _Places, offsets: dict[str, int]) -> Iterator[Place]:
    """Return where functions run: first the returns, which do nothing without an entry; last the last."""
    for some in (places[:-1], places[-1:]):
        for at_return in (True, False):
            at: dict[str, list[int]] = {}
            for name, entry, returned in some:
                function = returned if at_return else entry
                if function and name in offsets:
                    at.setdefault(function, []).append(offsets[name])
            yield from (Place(function, there, at_return) for function, there in at.items())
