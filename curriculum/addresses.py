"""Which addresses may be sent a key or data: https, or this machine. What a variable that holds a key is called."""

from ipaddress import ip_address
from urllib.parse import urlsplit

SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
"""A variable with one of these in its name is not given to a worker, so the name of one that holds a key has one."""


def check_url(url: str, key: str, path: bool = True) -> None:
    """Refuses an address that a key or data should not be sent to. The message names its `key` and never repeats it.

    Raises:
        ValueError: not https (http to this machine excepted), or with credentials, a query, a fragment, or a path where
            none is wanted.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"`{key}`: expected a URL such as https://api.openai.com/v1") from None
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise ValueError(f"`{key}`: expected no credentials in the URL; put the key into an environment variable")
    if parts.query or parts.fragment:
        raise ValueError(f"`{key}`: expected no query or fragment in the URL")
    if not path and parts.path.strip("/"):
        raise ValueError(f"`{key}`: expected scheme, host and port alone, and no path")
    if not host or any(c.isspace() or not c.isprintable() for c in url):
        raise ValueError(f"`{key}`: expected a URL such as https://api.openai.com/v1")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(url)):
        raise ValueError(f"`{key}`: expected https, or http to this machine (127.0.0.1, localhost)")


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
