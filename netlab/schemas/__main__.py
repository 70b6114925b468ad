"""Write every schema as Markdown: `python -m netlab.schemas > docs/schemas.md`."""

import sys

from netlab.schemas import as_markdown

sys.stdout.write(as_markdown())
