"""Which protocol a conversation is in, told from the first bytes of both sides."""

from __future__ import annotations

from dataclasses import dataclass

from netlab.protocols.firstbytes import MIDDLE, OPENING
from netlab.protocols.firstweb import speaks_grpc
from netlab.protocols.opinions import ENOUGH, Opinion

_PORTS = {
    "tls": {443, 853, 6443, 8443},
    "http": {80, 3000, 5000, 8000, 8080},
    "http2": {50051},
    "kafka": {9092},
    "amqp": {5672},
    "redis": {6379},
    "mongodb": {27017},
    "postgres": {5432, 6432},
    "mysql": {3306},
    "dns": {53},
}
_BY_ALPN = {"h2": "http2", "http/1.1": "http", "http/1.0": "http", "dot": "dns", "postgresql": "postgres"}
_POSTGRES_TLS = b"\0\0\0\x08\x04\xd2\x16\x2f"  # SSLRequest: the server grants it with S, refuses it with N
_POSTGRES_GSS = b"\0\0\0\x08\x04\xd2\x16\x30"  # GSSENCRequest, which libpq asks first: granted with G
_MYSQL_TLS = 0x800  # of the client's capabilities, in the packet before its ClientHello


@dataclass(frozen=True, slots=True)
class Verdict:
    """What some bytes tell of their protocol."""

    protocol: str | None  # of the outermost layer that is not TLS, or tls; None: unknown
    is_final: bool  # no further byte changes it
    clear: tuple[int, int] = (0, 0)  # bytes of client and server in clear, behind which TLS begins

    @property
    def over_tls(self) -> bool:
        """Whether it began in clear, and goes on in TLS."""
        return any(self.clear)

    @property
    def stack(self) -> str | None:
        """The layers, the outermost first, joined by +: http2+grpc, tls+postgres."""
        if self.protocol is None:
            return None
        name = "http2+grpc" if self.protocol == "grpc" else self.protocol
        return f"tls+{name}" if self.over_tls else name


NEED_MORE = Verdict(None, is_final=False)
NOBODYS = Verdict(None, is_final=True)


def classify(client: bytes, server: bytes, *, whole: bool = True, server_port: int | None = None) -> Verdict:
    """Return the protocol of a conversation from the first bytes of both sides, of which 256 each count.

    Bytes that two protocols could have said are nobody's, unless *server_port* is the usual one of just one
    of them. A port alone proves nothing.

    Parameters
    ----------
    client, server
        What either side said first; of a connection that was open before (not *whole*), what it said
        from some segment on. There the answer may be final and unknown, and better from a later segment.

    """
    client, server = client[:ENOUGH], server[:ENOUGH]
    if not client and not server:
        return NEED_MORE
    judges = OPENING if whole else MIDDLE
    opinions = {name: judge(client, server) for name, judge in judges.items()}
    sure = [name for name, opinion in opinions.items() if opinion is Opinion.SURE]
    if sure:
        name = sure[0] if len(sure) == 1 else _usual_on(server_port, sure)
        return _named(name, client, server) if name else NOBODYS
    is_full = len(client) >= ENOUGH or len(server) >= ENOUGH
    if not is_full and (max(opinions.values()) > Opinion.NO or not client or not server):
        return NEED_MORE
    name = _usual_on(server_port, [name for name, opinion in opinions.items() if opinion is Opinion.LIKELY])
    return _named(name, client, server) if name else NOBODYS


def inside_tls(alpn: str | None) -> str:
    """Return the stack of a TLS conversation whose sides agreed on *alpn* (IANA's ALPN protocol ids)."""
    inner = _BY_ALPN.get(alpn or "")
    return f"tls+{inner}" if inner else "tls"


def _usual_on(port: int | None, names: list[str]) -> str | None:
    usual = [name for name in names if port in _PORTS[name]]
    return usual[0] if len(usual) == 1 else None


def _named(name: str, client: bytes, server: bytes) -> Verdict:
    if name == "http2":
        if speaks_grpc(client):
            return Verdict("grpc", is_final=True)
        return Verdict("http2", is_final=len(client) >= ENOUGH)
    if name == "postgres":
        return _postgres(client, server)
    if name == "mysql":
        asks = len(client) >= 8 and bool(int.from_bytes(client[4:8], "little") & _MYSQL_TLS)
        greeting = 4 + int.from_bytes(server[:3], "little")
        clear = (36, greeting) if asks and client[:4] == b"\x20\0\0\1" else (0, 0)
        return Verdict("mysql", is_final=len(client) >= 8, clear=clear)
    return Verdict(name, is_final=True)


def _postgres(client: bytes, server: bytes) -> Verdict:
    """Follow what the client asks before its startup message; the server answers each with one byte."""
    place = 0
    while (question := client[8 * place : 8 * place + 8]) in {_POSTGRES_TLS, _POSTGRES_GSS}:
        answer = server[place : place + 1]
        place += 1
        if not answer:
            return NEED_MORE
        if answer != b"N":
            granted = question == _POSTGRES_TLS and answer == b"S"
            return Verdict("postgres", is_final=True, clear=(8 * place, place) if granted else (0, 0))
    return Verdict("postgres", is_final=not place or len(question) == 8)  # refused: it may ask for the other
