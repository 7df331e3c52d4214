"""``python -m sevkit``."""

from sevkit.cli.main import run

run()
