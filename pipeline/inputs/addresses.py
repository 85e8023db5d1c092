"""Addresses of OpenAI-compatible servers as recipes give them: `http://host:8000/v1#model`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from pipeline.errors import InputError

_KEY_ENTRY = re.compile(r"(?P<host>[A-Za-z0-9.\-\[\]]+(:\d+)?)=(?P<variable>[A-Za-z_][A-Za-z0-9_]*)")


class Address(NamedTuple):
    """Where a server is.

    Attributes:
        url: base URL of its API, such as ``http://host:8000/v1``.
        model: name of the model there; None for the only one.
    """

    url: str
    model: str | None

    @property
    def host(self) -> str:
        """``host`` or ``host:port``."""
        return urlsplit(self.url).netloc


def is_address(text: str) -> bool:
    """Whether a recipe's value is an address rather than a model."""
    return text.strip().lower().startswith(("http://", "https://"))


def read_addresses(text: str) -> list[Address]:
    """The addresses of one model, separated by commas.

    Raises:
        ValueError: one is not an address, or they name different models; the message is made to follow a key's name
            and repeats no password.
    """
    found = [_read_address(part.strip()) for part in text.split(",")]
    if len({address.model for address in found}) > 1:
        raise ValueError("must name the same model at every address")
    if len(set(found)) < len(found):
        raise ValueError("names an address twice")
    return found


def _read_address(text: str) -> Address:
    try:
        parts = urlsplit(text)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        port_is_valid = False
    if not port_is_valid or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address such as `http://host:8000/v1` or `http://host:8000/v1#model`")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a password; name the variable that holds the key in `api_keys`")
    if parts.query:
        raise ValueError("must not contain `?...`; the model's name goes after `#`")
    path = parts.path.rstrip("/") or "/v1"
    return Address(f"{parts.scheme}://{parts.netloc}{path}", parts.fragment or None)


def read_key_variables(entries: Sequence[str]) -> Mapping[str, str]:
    """Host (with its port, if the address has one) -> environment variable that holds its key.

    Raises:
        ValueError: an entry is not `host=VARIABLE`; the message does not repeat it, since it may be a key.
    """
    found = {}
    for number, entry in enumerate(entries, 1):
        match = _KEY_ENTRY.fullmatch(entry)
        if not match:
            raise ValueError(
                f"must list `host=VARIABLE` or `host:port=VARIABLE`, the name of the environment variable and never "
                f"the key itself; entry {number} does not have this form"
            )
        found[match["host"]] = match["variable"]
    return found


def read_key(address: Address, variables: Mapping[str, str]) -> str | None:
    """The key for a server, from the environment variable that is named for its host; None if none is.

    Raises:
        InputError: that variable is not set.
    """
    variable = variables.get(address.host)
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise InputError(
            f"{address.url}: its key should be in the environment variable {variable} (`api_keys`), which is not set."
        )
    return os.environ[variable]
