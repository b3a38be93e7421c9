"""``python -m nearfar``."""

from nearfar.cli.main import main

main(prog_name="nearfar")
