"""The zip file: written whole, or member by member; read whole, or as far as it goes.

While a recording runs its archive has no central directory yet, which zip has at the end. Each member begins
with a header of its own (APPNOTE.TXT section 4.3.7), so that what is whole can be read without one.
"""

from __future__ import annotations

import os
import secrets
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeAlias

from netlab.closing import Closes
from netlab.errors import BundleError

Members: TypeAlias = Iterable[tuple[str, bytes]]

HISTORY = "history/"
_LOCAL = struct.Struct("<4s5H3I2H")
_SIGNATURE, _DIRECTORY = b"PK\x03\x04", b"PK\x01\x02"
_ZIP64 = 0xFFFFFFFF
_UTF8 = 0x800  # the one flag that changes nothing here: encryption and sizes that follow the data do


class Archive(Closes):
    """The members of a recording; `lost_bytes` is None if it is complete, else what is no whole member."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._zip: zipfile.ZipFile | None = None
        self.lost_bytes: int | None = None
        try:
            self._zip = zipfile.ZipFile(file)
            members = self._zip.infolist()
        except zipfile.BadZipFile:
            members, self.lost_bytes = _whole_members(file)
            if not members:
                raise
        self._members = {member.filename: member for member in members}
        if len(self._members) != len(members):
            raise ValueError("two of its members have one name")

    @property
    def names(self) -> list[str]:
        """The members' names, in order."""
        return list(self._members)

    def size(self, name: str) -> int:
        """Return how large a member says it is, unpacked."""
        return self._members[name].file_size

    def read(self, name: str) -> bytes:
        """Return a member; KeyError if there is none, BadZipFile if it is damaged."""
        member = self._members[name]
        return _unpacked(self._file, member) if self._zip is None else self._zip.read(member)

    def close(self) -> None:
        """Let go of what was read of the file, which stays open."""
        if self._zip is not None:
            self._zip.close()


def _whole_members(file: BinaryIO) -> tuple[list[zipfile.ZipInfo], int]:
    """Return the members that are there from their headers to their ends, and how many bytes are left."""
    size = file.seek(0, os.SEEK_END)
    members: list[zipfile.ZipInfo] = []
    end = 0
    while (member := _member_at(file, end, size)) is not None:
        members.append(member)
        end = file.tell() + member.compress_size
    if members and not _is_sound(file, members[-1]):  # its bytes may not have reached the disk
        end = members.pop().header_offset
    file.seek(end)
    return members, 0 if file.read(len(_DIRECTORY)) == _DIRECTORY else size - end


def _member_at(file: BinaryIO, offset: int, size: int) -> zipfile.ZipInfo | None:
    """Return the member whose header is at *offset*, the file being left where its data begin."""
    file.seek(offset)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(_SIGNATURE):
        return None
    _, _, flags, method, _, _, crc, packed, unpacked, name_bytes, extra_bytes = _LOCAL.unpack(header)
    name = file.read(name_bytes)
    begin = offset + _LOCAL.size + name_bytes + extra_bytes
    if flags & ~_UTF8 or method not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        return None
    if _ZIP64 in {packed, unpacked} or begin + packed > size:
        return None
    member = zipfile.ZipInfo(name.decode())
    member.header_offset, member.compress_type, member.CRC = offset, method, crc
    member.compress_size, member.file_size = packed, unpacked
    file.seek(begin)
    return member


def _unpacked(file: BinaryIO, member: zipfile.ZipInfo) -> bytes:
    """Return the data of a member that `_member_at` found, never more than it says."""
    file.seek(member.header_offset)
    header = _LOCAL.unpack(file.read(_LOCAL.size))
    file.seek(header[-2] + header[-1], os.SEEK_CUR)
    data = file.read(member.compress_size)
    if member.compress_type == zipfile.ZIP_DEFLATED:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.file_size)
    if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
        raise zipfile.BadZipFile(f"{member.filename} is damaged")
    return data


def _is_sound(file: BinaryIO, member: zipfile.ZipInfo) -> bool:
    try:
        _unpacked(file, member)
    except (zipfile.BadZipFile, zlib.error):
        return False
    return True


# -- writing ---------------------------------------------------------------------------------------------


def write(path: Path, members: Members) -> None:
    """Make the file at *path*, or replace it; it appears whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, data in members:
                # Parquet is compressed already, but of a segment of few rows most is its description.
                how = zipfile.ZIP_DEFLATED if name.startswith(HISTORY) else zipfile.ZIP_STORED
                archive.writestr(zipfile.ZipInfo(name), data, how)  # without a time: the same bytes each time
        _to_disk(file)


def beside(path: Path, *, hidden: bool = False) -> Path:
    """Return a name in the same directory that is not taken."""
    return path.with_name(f"{'.' * hidden}{path.stem}.{secrets.token_hex(4)}{path.suffix}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give an empty file to write to, which at the end of the block takes the place of what *path* leads to.

    What is replaced leaves it its owner and permissions: a file that others may not read stays one.
    """
    real = Path(os.path.realpath(path))
    temporary = beside(real, hidden=True)
    try:
        temporary.touch(exist_ok=False)
        before = real.stat() if real.exists() else temporary.stat()
        with suppress(AttributeError, PermissionError):  # only root may, and not on every system
            os.chown(temporary, before.st_uid, before.st_gid)
        mode = stat.S_IMODE(before.st_mode)
        temporary.chmod(mode | stat.S_IWUSR)
        yield temporary
        temporary.chmod(mode)
        temporary.replace(real)
    except OSError as error:
        raise BundleError(
            f"cannot write {path}: {error.strerror or error}", fix="Give a path that you can write to"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Have others who save to this directory wait: of two who add to one file one would lose what he adds."""
    with ExitStack() as held:
        with suppress(ImportError, OSError):  # where there are no locks it goes on
            import fcntl  # not on every system that this module is imported on

            directory = os.open(path.parent, os.O_RDONLY)
            held.callback(os.close, directory)
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield


class Growing(Closes):
    """An archive to which members are added one by one; killed at any moment it keeps the whole ones."""

    def __init__(self, path: Path, members: Members) -> None:
        self._end = 0
        with replacing(path) as temporary:
            self._file = temporary.open("wb", buffering=0)
            try:
                for name, data in members:
                    self.append(name, data)
            except BaseException:
                self._file.close()
                raise

    def append(self, name: str, data: bytes) -> None:
        """Add a member, on the disk when this returns; what an error leaves of it is taken back."""
        record = memoryview(_record(name, data))
        try:
            while record:
                record = record[self._file.write(record) :]
            _to_disk(self._file)
        except BaseException:
            self._file.truncate(self._end)
            self._file.seek(self._end)
            raise
        self._end = self._file.tell()

    def reader(self) -> BinaryIO:
        """Open the same file to read it, whatever its name is by now."""
        return open(f"/proc/self/fd/{self._file.fileno()}", "rb")  # noqa: PTH123 - a link, no path

    def is_at(self, path: Path) -> bool:
        """Tell whether the file at *path* is this one."""
        return path.exists() and os.path.samestat(path.stat(), os.fstat(self._file.fileno()))

    def close(self) -> None:
        """Let go of the file; safe to call again."""
        self._file.close()


def _record(name: str, data: bytes) -> bytes:
    """Return a member as it stands in the file: its header, complete from the start, and its data."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(data) + packer.flush()
    member = zipfile.ZipInfo(name)
    member.compress_type, member.CRC = zipfile.ZIP_DEFLATED, zlib.crc32(data)
    member.compress_size, member.file_size = len(packed), len(data)
    return member.FileHeader(zip64=False) + packed


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())  # the rename must not become durable before the content
