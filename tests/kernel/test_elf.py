"""Where functions are in files, against where the dynamic loader has put them."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from hypothesis import example, given, strategies as st

from netlab.kernel import elf


def _where(address: int) -> tuple[Path, int]:
    """Return the file that is mapped at an address, and the place in it."""
    for line in Path("/proc/self/maps").read_text(encoding="ascii").splitlines():
        ends, _, offset, _, inode, *path = line.split(None, 5)
        start, end = (int(part, 16) for part in ends.split("-"))
        if start <= address < end and inode != "0":
            return Path(path[0]), address - start + int(offset, 16)
    raise AssertionError(hex(address))


@pytest.mark.parametrize("name", ["SSL_new", "SSL_read", "SSL_write_ex"])
def test_a_function_is_where_the_loader_has_put_it(name: str) -> None:
    library = ctypes.CDLL("libssl.so.3")
    address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    assert address
    path, offset = _where(address)
    with path.open("rb") as file:
        assert elf.functions(file.fileno(), [name, "SSL_that_is_not_there"]) == {name: offset}


_SECTIONS_BEYOND_63_BITS = (bytes([0, 0, 0, 0, 0, 0, 0, 128]), 40)


@example(*_SECTIONS_BEYOND_63_BITS)
@given(st.binary(max_size=200), st.integers(0, 4096))
def test_damaged_files_offer_what_can_be_read_and_raise_nothing(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    path, _ = _where(ctypes.cast(ctypes.CDLL("libz.so.1").inflate, ctypes.c_void_p).value or 0)
    image = path.read_bytes()
    damaged = tmp_path_factory.mktemp("damaged") / "library"
    damaged.write_bytes(image[:at] + noise + image[at + len(noise) :])
    with damaged.open("rb") as file:
        assert elf.functions(file.fileno(), ["inflate"]).keys() <= {"inflate"}


@pytest.mark.parametrize("image", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(40)])
def test_files_that_end_within_the_header_offer_nothing(tmp_path: Path, image: bytes) -> None:
    cut = tmp_path / "library"
    cut.write_bytes(image)
    with cut.open("rb") as file:
        assert elf.functions(file.fileno(), ["inflate"]) == {}
