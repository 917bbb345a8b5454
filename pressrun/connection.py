"""Which server a command talks to, and with which key: options, environment, or a local `up`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate

import typer

from pressrun.api_client import ApiClient, is_loopback
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.terminal import Terminal

DEFAULT_URL = "http://127.0.0.1:8080"
LOCAL_DATA = Path(".pressrun")
"""Where `pressrun up` keeps its data by default, relative to where commands are run."""
URL_FILE = "url"
API_KEY_FILE = "api-key"
ADMIN_KEY_FILE = "admin-key"

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="PRESSRUN_URL",
        help=f"Address of the server; default: the local `up`'s, else {DEFAULT_URL}.",
    ),
]
ApiKeyOption = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="PRESSRUN_API_KEY",
        help="A tenant's key; default for a local `up`: .pressrun/api-key.",
    ),
]
AdminKeyOption = Annotated[
    str | None,
    typer.Option(
        "--admin-key",
        envvar="PRESSRUN_ADMIN_KEY",
        help="The server's admin key; default for a local `up`: .pressrun/admin-key.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Write the answer to stdout as JSON, and nothing else.")
]

Connected = Callable[Concatenate[ApiClient, Terminal, ...], None]
"""The body of a command: its client, what it writes to, then parameters of its own."""


def for_tenant(command: Connected) -> Callable[..., None]:
    """A command that takes ``--url``, ``--api-key`` and ``--json`` beside its own arguments. Its
    body gets what those say as its first two: a tenant's client, and the terminal."""

    def connected(
        url: UrlOption = None,
        api_key: ApiKeyOption = None,
        json_only: JsonOption = False,
        **own: Any,
    ) -> None:
        with tenant_client(url, api_key) as client:
            command(client, Terminal(json_only=json_only), **own)

    return _with_options_of(connected, command)


def for_admin(command: Connected) -> Callable[..., None]:
    """As ``for_tenant``, with ``--admin-key``."""

    def connected(
        url: UrlOption = None,
        admin_key: AdminKeyOption = None,
        json_only: JsonOption = False,
        **own: Any,
    ) -> None:
        with admin_client(url, admin_key) as client:
            command(client, Terminal(json_only=json_only), **own)

    return _with_options_of(connected, command)


def _with_options_of(connected: Callable[..., None], command: Connected) -> Callable[..., None]:
    """``connected`` under the name of ``command``, whose own parameters come first: Typer reads
    them off the signature."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[2:]
    shared = list(inspect.signature(connected, eval_str=True).parameters.values())[:-1]
    options = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *shared)]
    made = wraps(command)(connected)
    made.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    made.__annotations__ = {one.name: one.annotation for one in options}
    return made


def tenant_client(url: str | None, api_key: str | None) -> ApiClient:
    """Raises CommandError (USAGE) when no key is given or lies about."""
    address = resolve_url(url)
    return ApiClient(address, api_key or _local_key(address, API_KEY_FILE, "--api-key"))


def admin_client(url: str | None, admin_key: str | None) -> ApiClient:
    """As ``tenant_client``, with the admin key."""
    address = resolve_url(url)
    return ApiClient(address, admin_key or _local_key(address, ADMIN_KEY_FILE, "--admin-key"))


def resolve_url(url: str | None) -> str:
    """The address given, that of the `up` whose data are here, or the default."""
    return url or _read(LOCAL_DATA / URL_FILE) or DEFAULT_URL


def _local_key(address: str, name: str, option: str) -> str:
    # A key of this machine must not reach another one because somebody typed its address.
    key = _read(LOCAL_DATA / name) if is_loopback(address) else None
    if key is None:
        variable = "PRESSRUN_" + name.replace("-", "_").upper()
        raise CommandError(f"no key for {address}: give {option} or set {variable}", ExitCode.USAGE)
    return key


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except (OSError, UnicodeError):
        return None
