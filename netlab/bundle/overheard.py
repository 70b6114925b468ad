"""What a recording's connections said: requests, lookups, names and handshakes, as a capture has them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import pandas as pd

from netlab.frames import Schema
from netlab.protocols.dns.stats import dns_stats
from netlab.protocols.overview import protocol_stats
from netlab.schemas import DNS, NAMES, REQUESTS, TLS


class Overheard(ABC):
    """Has the tables of what was said, as far as they were recorded."""

    @abstractmethod
    def _at(self, schema: Schema) -> pd.DataFrame:
        """Return the table of that kind as it is shown now; raises CaptureError if there is none."""

    @abstractmethod
    def _has(self, schema: Schema) -> bool:
        """Tell whether there is a table of that kind."""

    def requests(self, protocol: str | None = None) -> pd.DataFrame:
        """Return the requests that were known then (`netlab.schemas.REQUESTS`), all or of one protocol."""
        found = self._at(REQUESTS)
        return found if protocol is None else found[found["protocol"] == protocol].reset_index(drop=True)

    def dns(self) -> pd.DataFrame:
        """Return the name lookups that were known then (`netlab.schemas.DNS`)."""
        return self._at(DNS)

    def dns_stats(self, by: Sequence[str] = ("server_address", "name", "type")) -> pd.DataFrame:
        """Return the lookups of `dns()` counted by outcome (`netlab.dns_stats`)."""
        return dns_stats(self.dns(), by)

    def protocol_stats(self) -> pd.DataFrame:
        """Return what was asked until then in every protocol that was recorded (`netlab.protocol_stats`)."""
        heard = [read() for read, schema in ((self.requests, REQUESTS), (self.dns, DNS)) if self._has(schema)]
        return protocol_stats(*heard) if heard else protocol_stats(self.requests())

    def names(self) -> pd.DataFrame:
        """Return the names of addresses that were known then (`netlab.schemas.NAMES`)."""
        return self._at(NAMES)

    def tls(self) -> pd.DataFrame:
        """Return the TLS handshakes that were known then (`netlab.schemas.TLS`)."""
        return self._at(TLS)
