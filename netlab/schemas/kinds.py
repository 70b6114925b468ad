"""The kinds of columns, by short names: the tables of columns have one in each line."""

from __future__ import annotations

from netlab.columns import Kind

TEXT, CATEGORY, INTEGER = Kind.TEXT, Kind.CATEGORY, Kind.INTEGER
REAL, FLAG, TIME = Kind.REAL, Kind.FLAG, Kind.TIME
