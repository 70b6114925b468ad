"""One question to many workers: an answer or an error of each of them, by a moment that is known before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from netlab.errors import BadInput, CapabilityError

if TYPE_CHECKING:
    from distributed import Client, Future

Answers: TypeAlias = "dict[str, Told | Exception]"  # by host

_LOOK_S = 0.5  # how soon the death of a worker is noticed


@dataclass(frozen=True, slots=True)
class Told:
    """What a host answered; between which times of this host's clock it did, in nanoseconds of UTC."""

    value: Any
    asked_ns: int
    heard_ns: int


def workers(client: Client) -> dict[str, str]:
    """Return the address of each host's worker, by the host's name.

    That is the worker's name where it was given one, else the address of its machine.
    """
    found: dict[str, str] = {}
    for address, told in _registered(client).items():
        name = told["name"]
        host = name if isinstance(name, str) and name != address else told["host"]
        if host in found:
            raise BadInput(
                f"two workers are called {host}: {found[host]} and {address}",
                fix="Start one on each host: dask worker SCHEDULER --nworkers 1 --name HOST",
            )
        found[host] = address
    if not found:
        raise CapabilityError(
            "the cluster has no workers", fix="Start one on each host: dask worker SCHEDULER --name HOST"
        )
    return dict(sorted(found.items()))


def _registered(client: Client) -> dict[str, dict[str, Any]]:
    """Return what the scheduler knows of each worker, by its address.

    `client.scheduler_info()` gives what the client has at that moment, which a timer of its own may just have
    put in the answer's place: that has no workers.
    """
    try:
        told: dict[str, dict[str, Any]] = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    except (OSError, AttributeError) as error:  # a closed client has no scheduler
        raise CapabilityError(
            f"the cluster's scheduler does not answer: {error}", fix="Connect again: distributed.Client(…)"
        ) from error
    return told


def places(client: Client, hosts: Sequence[str]) -> dict[str, str]:
    """Return the IP addresses of these hosts' workers."""
    known = workers(client)
    told = _registered(client)
    return {host: told[known[host]]["host"] for host in hosts if host in known}


def ask(
    client: Client, work: Callable[..., Any], arguments: Mapping[str, tuple[Any, ...]], *, timeout_s: float
) -> Answers:
    """Have the worker of each host do *work* with the host's arguments, and return what came of it."""
    known, asked_ns = workers(client), time.time_ns()
    futures = {
        host: client.submit(work, *given, workers=[known[host]], pure=False)
        for host, given in arguments.items()
        if host in known
    }
    addresses = {host: known[host] for host in futures}
    answers: Answers = client.sync(_answers, client, futures, addresses, asked_ns, timeout_s)
    for future in futures.values():
        future.release()
    absent = {host: ConnectionError("no worker of this name is there") for host in arguments}
    return {host: answers.get(host, absent[host]) for host in arguments}


async def _answers(
    client: Client,
    futures: Mapping[str, Future[Any]],
    addresses: Mapping[str, str],
    asked_ns: int,
    timeout_s: float,
) -> Answers:
    """Wait for the answers, until the time is over or those that are still to come have no worker any more.

    A task that may run on one worker only waits for ever when that has died, so its death is looked for.
    """
    loop = asyncio.get_running_loop()
    over_s = loop.time() + timeout_s
    waiting = {asyncio.ensure_future(_result(future, asked_ns)): host for host, future in futures.items()}
    found: Answers = {}
    while waiting and (left_s := over_s - loop.time()) > 0:
        done, _ = await asyncio.wait(
            waiting, timeout=min(left_s, _LOOK_S), return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            found[waiting.pop(task)] = task.result()
        if not done:
            for task in await _bereft(client, waiting, addresses, over_s - loop.time()):
                found[waiting.pop(task)] = ConnectionError("the worker ended before it had answered")
                task.cancel()
    for task, host in waiting.items():
        found[host] = TimeoutError(f"no answer within {timeout_s:g} s")
        task.cancel()
    return found


async def _result(future: Future[Any], asked_ns: int) -> Told | Exception:
    try:
        return Told(await future, asked_ns, time.time_ns())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told beside the answers of the others
        return error


async def _bereft(
    client: Client,
    waiting: Mapping[asyncio.Task[Any], str],
    addresses: Mapping[str, str],
    left_s: float,
) -> list[asyncio.Task[Any]]:
    """Return those that wait for workers which the scheduler has lost."""
    try:
        alive = await asyncio.wait_for(client.nthreads(), max(left_s, 0))
    except TimeoutError:
        return []
    return [task for task, host in waiting.items() if addresses[host] not in alive]
