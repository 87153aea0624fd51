"""Where a server listens: an address such as http://127.0.0.1:8000, or `unix:` and the path of a socket."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2

SOCKET = "unix:"


def socket_url(path: Path) -> str:
    """The address of a server that listens on a socket."""
    return f"{SOCKET}{path}"


def socket_path(url: str) -> Path | None:
    """The socket of such an address; none for one of a port."""
    return Path(url.removeprefix(SOCKET)) if url.startswith(SOCKET) else None


def base_url(url: str) -> str:
    """What requests to the server begin with; on a socket the name of the host means nothing."""
    return "http://localhost" if url.startswith(SOCKET) else url


def connection(url: str, limits: "httpx2.Limits | None" = None) -> dict[str, Any]:
    """How an `httpx2.Client` reaches the server: nothing of the environment, so no proxy, changes it."""
    import httpx2

    chosen: dict[str, Any] = {"trust_env": False, "limits": limits or httpx2.Limits()}
    path = socket_path(url)
    if path is None:
        return chosen
    return chosen | {"transport": httpx2.HTTPTransport(uds=str(path), limits=chosen["limits"], trust_env=False)}


def open_client(url: str, seconds: float) -> "httpx2.Client":
    """A client whose paths are the server's."""
    import httpx2

    return httpx2.Client(base_url=base_url(url), timeout=seconds, **connection(url))
