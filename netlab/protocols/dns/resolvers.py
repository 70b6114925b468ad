"""Public resolvers that are asked over HTTPS (RFC 8484), by the host names that their operators publish."""

from __future__ import annotations

# AdGuard, Alibaba, CleanBrowsing, Cloudflare, Control D, DNS.SB, DNSPod, Google, Hurricane Electric, Mullvad,
# NextDNS, OpenDNS, Quad9, Switch, Digitale Gesellschaft; those of Firefox and Chrome are below these.
_NAMES = """
adguard-dns.com dns.adguard.com dns.alidns.com doh.cleanbrowsing.org cloudflare-dns.com one.one.one.one
dns.controld.com freedns.controld.com doh.dns.sb doh.sb doh.pub dns.google dns64.dns.google ordns.he.net
dns.mullvad.net dns.nextdns.io doh.opendns.com doh.familyshield.opendns.com doh.umbrella.com
dns.quad9.net dns9.quad9.net dns10.quad9.net dns11.quad9.net dns.switch.ch dns.digitale-gesellschaft.ch
"""
_KNOWN = frozenset(_NAMES.split())
_MOST_LABELS = max(name.count(".") for name in _KNOWN) + 1


def is_resolver(name: str) -> bool:
    """Return whether *name* is that of a public resolver, or below it."""
    labels = name.rstrip(".").lower().split(".")[-_MOST_LABELS:]  # a hello may have thousands
    return any(".".join(labels[at:]) in _KNOWN for at in range(len(labels)))
