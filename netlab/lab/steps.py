"""The steps of building a network, each of which may fail."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from pyroute2.netlink.exceptions import NetlinkError

from netlab.errors import LabError, NetlabError

_DOCTOR = "netlab.doctor() tells what this host allows"


@contextmanager
def step(problem: str) -> Iterator[None]:
    """Say which step failed."""
    try:
        yield
    except subprocess.CalledProcessError as error:
        raise LabError(f"{problem}: {str(error.stderr).strip()[:300]}", fix=_DOCTOR) from error
    except NetlinkError as error:
        raise LabError(f"{problem}: {error.args[-1]}", fix=_DOCTOR) from error
    except NetlabError as error:
        raise LabError(f"{problem}: {error.problem}", fix=error.fix or _DOCTOR) from error
    except (OSError, subprocess.SubprocessError) as error:
        raise LabError(f"{problem}: {error}", fix=_DOCTOR) from error
