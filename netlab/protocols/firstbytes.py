"""Which protocols are told by a conversation's bytes: judges of its beginning, and of its middle."""

from __future__ import annotations

from netlab.protocols import firststores, firstweb
from netlab.protocols.opinions import first_of

OPENING = firstweb.OPENING | firststores.OPENING
_MIDDLE = firstweb.MIDDLE | firststores.MIDDLE
MIDDLE = {
    name: first_of(judge, _MIDDLE[name]) if name in _MIDDLE else judge for name, judge in OPENING.items()
}
