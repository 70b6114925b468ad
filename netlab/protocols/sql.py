"""What an SQL statement does and to which tables, without its values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from netlab.checks import needing

with needing("protocols", "SQL statements need sqlglot, which is not installed"):
    import sqlglot
    from sqlglot import expressions as ast

_LONGEST = 4096  # characters that are read
_DEEPEST = 40  # brackets: what is nested deeper is not parsed
_SHORT = 1024  # characters that are parsed again with every item of lists
_MOST_TABLES = 8

_LETTER = r"A-Za-z_\x80-\U0010ffff"  # to PostgreSQL, for which a name begins with one
_TOKENS = re.compile(  # as PostgreSQL's scan.l cuts them: where one ends, a value may begin
    rf"""(?P<blank> (?: [ \t\n\r\f\v]+ | --[^\r\n]* | /\*.*?(?:\*/|\Z) )+ )
      | (?P<name> "(?:[^"]|"")*" )
      | (?P<text> [eE]'(?:[^'\\]|\\.|'')*(?:'|\Z) | (?:[bBxXnN]|[uU]&)?'(?:[^']|'')*(?:'|\Z)
                | (?P<tag>\$(?:[{_LETTER}][{_LETTER}0-9]*)?\$).*?(?:(?P=tag)|\Z) | "[^"]*\Z )
      | (?P<word> [{_LETTER}][{_LETTER}0-9$]* | \$[0-9]+ )
      | (?P<doubt> [0-9][0-9.]*+[{_LETTER}][{_LETTER}0-9.]*+\$.* )
      | (?P<number> [0-9][{_LETTER}0-9.]*(?:(?<=[eE])[+-][0-9]+)? )""",
    re.VERBOSE | re.DOTALL,
)
_NESTED = re.compile(r"/\*(?:(?!\*/).)*?/\*", re.DOTALL)
_VALUE = r"(?:''|0|\$\d+)"
_VALUE_LIST = re.compile(rf"({_VALUE})(?: ?, ?{_VALUE})+")
_ROW_LIST = re.compile(rf"(\( ?{_VALUE} ?\))(?: ?, ?\( ?{_VALUE} ?\))+")
_NAME = rf'(?:[{_LETTER}][{_LETTER}0-9$]*|"(?:[^"]|"")+")'
_TABLE_COMMAND = re.compile(
    r"(?:create (?:(?:global |local )?temp(?:orary)? |unlogged )?table|alter table|drop table"
    r"|truncate(?: table)?|copy(?: binary)?|lock(?: table)?"
    r"|(?:vacuum|analyze)(?: ?\([^)]*\))?+(?: full)?+(?: freeze)?+(?: verbose)?+(?: analyze)?+)"
    r" (?:if (?:not )?exists )?(?:only )?(?!(?:table|only|all|if|binary)\b|u&)"  # these are no names
    rf"((?:{_NAME} ?\. ?)*{_NAME})(?![{_LETTER}0-9$]| ?\.)",
    re.IGNORECASE,
)
_ENDING = re.compile(r'"(?:[^"]|"")*"|[();]|\bbegin atomic\b', re.IGNORECASE)
_NO_UNIT = re.compile(r"(?<=\bdate_part)( ?\( ?)''", re.IGNORECASE)  # which sqlglot wants to be one
_DEALLOCATE = re.compile(  # alone, and a name that is the same in any encoding
    r'deallocate (?:prepare )?(?!all\b)(?:([a-z_][a-z0-9_$]{0,61})|"([!#-~]{1,62})") ?;?',
    re.IGNORECASE | re.ASCII,
)
_PARSED = {"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "TABLE", "VALUES"}
_COMMANDS = _PARSED | {
    *("ABORT", "ALTER", "ANALYZE", "BEGIN", "CALL", "CHECKPOINT", "CLOSE", "CLUSTER", "COMMENT", "COMMIT"),
    *(
        "COPY",
        "CREATE",
        "DEALLOCATE",
        "DECLARE",
        "DISCARD",
        "DO",
        "DROP",
        "END",
        "EXECUTE",
        "EXPLAIN",
        "FETCH",
    ),
    *(
        "GRANT",
        "IDENTIFY_SYSTEM",
        "IMPORT",
        "LISTEN",
        "LOAD",
        "LOCK",
        "MOVE",
        "NOTIFY",
        "PREPARE",
        "REASSIGN",
    ),
    *("REFRESH", "REINDEX", "RELEASE", "RESET", "REVOKE", "ROLLBACK", "SAVEPOINT", "SECURITY", "SET", "SHOW"),
    *("START", "TRUNCATE", "UNLISTEN", "VACUUM"),
    # of replication
    *("ALTER_REPLICATION_SLOT", "BASE_BACKUP", "CREATE_REPLICATION_SLOT", "DROP_REPLICATION_SLOT"),
    *("READ_REPLICATION_SLOT", "START_REPLICATION", "TIMELINE_HISTORY", "UPLOAD_MANIFEST"),
}


@dataclass(frozen=True, slots=True)
class Statement:
    """The command of a statement and the tables that it names."""

    operation: str | None = None
    tables: tuple[str, ...] = ()
    deallocated: bytes | None = None  # the one prepared statement that a DEALLOCATE names


def statement(text: str) -> Statement:
    """Return what *text* does, by its first statement: the command, and the tables as they are written.

    What cannot be parsed is told by its first word, if that is a command of PostgreSQL's.
    """
    return next(statements(text), Statement())


def statements(text: str) -> Iterator[Statement]:
    """Yield what each statement of *text* does, as far as it is sure where they end."""
    return (_read(one) for one in _cut(_bare(text)))


def _cut(bare: str) -> Iterator[str]:
    """Cut *bare* at the semicolons that end a statement: not those of a rule's or a function's body."""
    begin = depth = 0
    for found in _ENDING.finditer(bare):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if found[0].lower() == "begin atomic":
            break
        if found[0] == ";" and depth <= 0:
            if bare[begin : found.start()].strip():
                yield bare[begin : found.start()].strip()
            begin, depth = found.end(), 0
    if bare[begin:].strip():
        yield bare[begin:].strip()


def fingerprint(text: str) -> str:
    """Return *text* without comments and values: numbers are 0, strings are empty, lists have one item."""
    return _with_short_lists(_bare(text))


def _bare(text: str) -> str:
    """Return *text* without its comments and values.

    Of a text in which a quote may be escaped or may not (a backslash before it, which a setting of the
    session decides), or a comment is in another, only the first word is left; of one in which a dollar is
    part of a name or not (behind 0x1f or 1_000, which the server's version decides), what is before that.
    """
    if "\\'" in text or _NESTED.search(text):
        text = text[: re.match(r"\s*\w*", text).end()]  # type: ignore[union-attr] # it matches nothing, too
    return _TOKENS.sub(_without_value, text[:_LONGEST]).strip()


def _with_short_lists(bare: str) -> str:
    return _ROW_LIST.sub(r"\1", _VALUE_LIST.sub(r"\1", bare))


def _without_value(found: re.Match[str]) -> str:
    kind = found.lastgroup
    if kind in {"name", "word"}:
        return found[0]
    return {"text": "''", "number": "0"}.get(kind or "", " ")


@lru_cache(maxsize=2048)
def _read(bare: str) -> Statement:
    word = re.match(r"[\s(;]*(\w+)", bare)
    command = word[1].upper() if word else ""
    if command not in _COMMANDS:
        return Statement()
    if command in _PARSED and bare.count("(") <= _DEEPEST:
        found = _parsed(_with_short_lists(bare))
        if found is None and len(bare) <= _SHORT:  # a function may want more than one value
            found = _parsed(bare)
        return found or Statement(None if command == "WITH" else command)
    if command == "DEALLOCATE" and (one := _DEALLOCATE.fullmatch(bare)):
        return Statement(command, deallocated=(one[2] or one[1].lower()).encode())
    named = _TABLE_COMMAND.match(bare)
    parts = re.findall(_NAME, named[1]) if named else []
    return Statement(command, (".".join(part.replace('"', "") for part in parts),) if named else ())


@lru_cache(maxsize=2048)
def _parsed(bare: str) -> Statement | None:
    try:
        whole = _NO_UNIT.sub(r"\1'day'", bare)
        tree = next(found for found in sqlglot.parse(whole, dialect="postgres") if found)
    except Exception:  # noqa: BLE001 - a parser of any text that somebody sent, and its depth is Python's
        return None
    command = tree.key.upper()
    if command not in _PARSED:
        command = "SELECT" if isinstance(tree, ast.Query) else ""
    defined = {query.alias for query in tree.find_all(ast.CTE)}
    tables = [table for table in tree.find_all(ast.Table) if not isinstance(table.parent, ast.Lock)]
    names = dict.fromkeys(".".join(part.name for part in table.parts) for table in tables if table.name)
    return Statement(command or None, tuple(name for name in names if name not in defined)[:_MOST_TABLES])
