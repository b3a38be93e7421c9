"""Start PostgreSQL with pgvector from pgserver's files, in this folder, and print the variables that lead to it.

It outlives this program, and ends by itself within a minute once the folder is removed.
"""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pgserver

uri = urlsplit(pgserver.get_server(Path("postgres").absolute(), cleanup_mode=None).get_uri())
print(f"PGHOST={uri.hostname or parse_qs(uri.query)['host'][0]}")
print(f"PGUSER={uri.username}\nPGDATABASE={uri.path[1:]}")
