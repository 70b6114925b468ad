"""What each mode of a capture needs, and what is refused with it, or on this system."""

from __future__ import annotations

from netlab.errors import BadInput, CapabilityError
from netlab.kernel import capabilities, netns as namespaces, processes, spaces
from netlab.kernel.compiler import require_bcc
from netlab.tracer import system, translations
from netlab.tracer.filters import Filter, Spaces
from netlab.tracer.translations import Host

MODES = ("ebpf", "poll")
_OWN_PIDS = (
    "pid= follows processes by their number in the root pid namespace, which cannot be told from in here"
)
_ELSEWHERE = 'capture(mode="poll") sees what lasts, without; netlab.load() opens recordings'


def refuse_spaces(netns: Spaces, nat: bool | namespaces.NetNs) -> None:  # noqa: FBT001 - what users say
    """Refuse what names a network namespace on a system that has none."""
    if system.LINUX:
        return
    if not spaces.is_all(netns):
        raise BadInput(
            f"netns is {netns!r}, and this system has no network namespaces", fix="Leave netns out"
        )
    if not isinstance(nat, bool):
        raise BadInput(f"nat is {nat!r}, and this system has no network namespaces", fix="Leave nat out")


def host_of(nat: bool | namespaces.NetNs) -> Host | None:  # noqa: FBT001 - what users say
    """Return the namespace that *nat* stands for; None also where there is no such thing."""
    return translations.host_of(nat) if system.LINUX else None


def require(mode: str, wanted: Filter, **options: bool) -> None:
    """Refuse a capture in *mode* if it cannot be here, or not with one of *options*."""
    if mode == "poll":
        asked = [name for name, value in options.items() if value]
        if asked:
            raise BadInput(
                f'{asked[0]}= needs eBPF, which mode="poll" does without', fix="Leave one of them out"
            )
        system.here()
        return
    if not system.LINUX:
        raise CapabilityError("cannot follow connections with eBPF: this system is not Linux", fix=_ELSEWHERE)
    if wanted.pids and not processes.numbered_by_root():
        raise CapabilityError(_OWN_PIDS, fix="docker run --pid=host …, or filter by process= instead")
    _require_bpf()
    require_bcc()


def _require_bpf() -> None:
    try:
        capabilities.require_bpf(doing="follow connections with eBPF")
    except CapabilityError as error:
        fix = f'{error.fix}; or capture(mode="poll"), which sees what lasts, without'
        raise CapabilityError(error.problem, fix=fix) from error
