"""Which of the kernel's types a source reaches."""

from __future__ import annotations

import pytest

from netlab.kernel.reach import reached

TYPES = """\
typedef unsigned int u32;

enum colour {
\tRED = 1,
\tBLUE = 2,
};

typedef struct inner inner_t;

struct inner {
\tu32 of;
};

struct far {
\tlong int of;
};

typedef int handler_t(struct far *);

struct middle {
\tinner_t by_value;
\tstruct far *by_pointer;
\tenum colour colour;
};

struct outer {
\tstruct middle many[4];
\thandler_t *handler;
};

union either {
\tstruct outer outer;
};
"""


def declared(source: str) -> list[str]:
    return [piece.partition(" {")[0].rstrip() for piece in reached(TYPES, source).split("\n\n") if piece]


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("u32 number;", ["typedef unsigned int u32;"]),
        ("if (x == BLUE) return;", ["enum colour"]),
        ("struct far *far;", ["struct far"]),
        ("inner_t *inner;", ["typedef unsigned int u32;", "typedef struct inner inner_t;", "struct inner"]),
        ("int far, outer;", []),
        ("struct unknown *one;", []),
    ],
)
def test_a_source_reaches_what_it_names(source: str, names: list[str]) -> None:
    assert declared(source) == names


def test_members_are_reached_in_the_order_of_the_types_and_what_is_pointed_to_is_not() -> None:
    assert declared("union either *one;") == [
        "typedef unsigned int u32;",
        "enum colour",
        "typedef struct inner inner_t;",
        "struct inner",
        "typedef int handler_t(struct far *);",
        "struct middle",
        "struct outer",
        "union either",
    ]
