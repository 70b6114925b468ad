"""Finding the files of TLS libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from netlab.tracer.tlslibraries import Libraries, Library

pytestmark = pytest.mark.privileged

APART = """
mount -t tmpfs tmpfs {place} && cp {library} {place}/libssl-0a1b2c.so.3 &&
exec {python} -c "
import ctypes
ctypes.CDLL('{place}/libssl-0a1b2c.so.3')
print('loaded', flush=True)
input()
"
"""


def _found(libraries: Libraries) -> dict[tuple[int, int], Library]:
    found: dict[tuple[int, int], Library] = {}

    def note(file: int, library: Library) -> None:
        status = os.fstat(file)
        found[status.st_dev, status.st_ino] = library

    libraries.find(note)
    return found


def _system(library: str) -> Path:
    said = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    return Path(next(line.split()[-1] for line in said.splitlines() if line.split()[:1] == [library]))


@pytest.mark.parametrize("library", ["libssl.so.3", "libcrypto.so.3", "libgnutls.so.30"])
def test_the_systems_libraries_are_found_whoever_has_them(library: str) -> None:
    status = _system(library).stat()
    found = _found(Libraries())
    assert found[status.st_dev, status.st_ino].value == library.partition(".")[0]


def test_a_library_that_only_another_mount_namespace_has_is_found_once(tmp_path: Path) -> None:
    libraries = Libraries()
    _found(libraries)
    script = APART.format(place=tmp_path, library=_system("libssl.so.3"), python=sys.executable)
    command = ["unshare", "--mount", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"loaded\n"
        assert not list(tmp_path.iterdir())
        inside = Path(f"/proc/{process.pid}/root{tmp_path}/libssl-0a1b2c.so.3").stat()
        assert _found(libraries).get((inside.st_dev, inside.st_ino)) is Library.SSL
        assert (inside.st_dev, inside.st_ino) not in _found(libraries)
        process.communicate(b"\n")


def test_what_a_container_only_calls_a_library_is_not_opened(tmp_path: Path) -> None:
    place = tmp_path / "usr/lib"
    place.mkdir(parents=True)
    os.mkfifo(place / "libssl.so.3")
    (place / "libcrypto.so.3").symlink_to("/dev/zero")
    code = f"import os; os.chroot({str(tmp_path)!r}); print('apart', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"apart\n"
        found = _found(Libraries())
        process.communicate(b"\n")

    for file in (place / "libssl.so.3", Path("/dev/zero")):
        assert (file.stat().st_dev, file.stat().st_ino) not in found
