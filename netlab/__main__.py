"""`python -m netlab`: the command line, where only the interpreter is at hand."""

from __future__ import annotations

from netlab.cli import main

raise SystemExit(main())
