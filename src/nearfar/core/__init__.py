"""The words that every other package uses: errors, types, jobs, settings. Imports no other package of nearfar."""

import logging

logging.getLogger("nearfar").addHandler(logging.NullHandler())  # the program that imports this decides where logs go
