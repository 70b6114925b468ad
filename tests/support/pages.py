"""Run a page's code blocks in one IPython shell, and hold what they print against the page.

A block of text right behind one of code is what that one prints.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell

BLOCK = re.compile(
    r"^```(?:python|ipython)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE
)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the code blocks of *page* and what each is said to print."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def main(page: Path) -> int:
    """Return 1 at the first block that fails or prints something else."""
    shell = InteractiveShell()
    for code, said in blocks(page):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            result = shell.run_cell(code)
        printed = out.getvalue()
        if not result.success or (said and printed != said):
            sys.stderr.write(f"{code}\nprinted:\n{printed}\ninstead of:\n{said}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
