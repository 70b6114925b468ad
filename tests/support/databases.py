"""A PostgreSQL of our own: Debian's server on a free port, with its own data, and without privileges."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@contextmanager
def postgres(*, tls: bool = False) -> Iterator[int]:
    """Run PostgreSQL as long as the block lasts; yield its port on loopback. postgres needs no password.

    With *tls* it grants encryption to who asks for it.
    """
    user = pwd.getpwnam("postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name)
    home = Path(tempfile.mkdtemp(prefix="netlab-postgres-", dir="/tmp"))  # short: sockets are
    as_user = {"user": user.pw_uid, "group": user.pw_gid} if os.getuid() == 0 else {}
    try:
        os.chown(home, user.pw_uid, user.pw_gid)
        subprocess.run(
            [PROGRAMS[-1] / "initdb", "-D", home / "data", "-A", "trust", "-U", "postgres", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=home,
            **as_user,
        )
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        options = ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1,::1", "-c", "log_destination=stderr"]
        if tls:
            _certify(home, as_user)
            options += ["-c", "ssl=on", "-c", f"ssl_cert_file={home}/cert", "-c", f"ssl_key_file={home}/key"]
        with (home / "log").open("w") as log:
            server = subprocess.Popen(
                [PROGRAMS[-1] / "postgres", "-D", home / "data", "-p", str(port), "-k", home, *options],
                stderr=log,
                cwd=home,
                **as_user,
            )
        try:
            wait_for(port)
            yield port
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(30)
            server.kill()
            server.wait()
    finally:
        shutil.rmtree(home)


def _certify(home: Path, as_user: dict[str, int]) -> None:
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    files = ["-keyout", home / "key", "-out", home / "cert"]  # the key is for its owner only
    subprocess.run([*request, *files], check=True, capture_output=True, cwd=home, **as_user)


def wait_for(port: int) -> None:
    """Wait until the server takes connections."""
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="postgres", sslmode="disable").close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
