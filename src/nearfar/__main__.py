"""``python -m nearfar``."""

from nearfar.cli import main

main(prog_name="nearfar")
