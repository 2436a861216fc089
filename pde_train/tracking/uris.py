"""Uris of tracking stores: what they are made of, and what of it may be seen. No other module takes one apart."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, quote_plus, unquote

from pde_train.errors import UsageError

URI = "MLFLOW_TRACKING_URI"
"""MLflow's own environment variable, which names a store."""

HIDDEN = "***"

DATABASES = ("postgresql", "mysql", "mssql", "oracle")
"""What the uri of a database begins with that is no file; its user alone is no secret."""

SECRET = re.compile(r"(?i)pass|pwd|token|secret|key|auth|sig|cred|jwt|session")
"""What the name of a parameter has whose value is a secret."""

REFERENCE = re.compile(r"\$\{[^{}$,]*\}")
"""The name of an environment variable, or of another value, in the place of the value itself."""

IN_TEXT = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>]+")

SHORTEST = 3
"""Characters of a secret that is looked for in texts; a shorter one stands in every word."""


@dataclass(frozen=True)
class Parts:
    """A uri taken apart; `userinfo` is everything before the last @ of what follows the scheme, None without one."""

    scheme: str
    userinfo: str | None
    place: str
    parameters: tuple[tuple[str, str], ...]
    fragment: str

    @classmethod
    def of(cls, uri: str) -> Parts:
        """Take a uri apart, so that nothing of a password is taken for a host, whatever signs the password has."""
        scheme, separator, rest = uri.partition("://")
        if not separator:
            scheme, rest = "", uri
        if _is_file(scheme, rest):  # whose name may have any sign but a ?
            place, _, query = rest.partition("?")
            return cls(scheme, None, place, tuple(parse_qsl(query, keep_blank_values=True)), "")
        userinfo, at, place = rest.rpartition("@")
        if at and "?" in userinfo:  # is it a password with a ?, or a parameter with an @
            return cls(scheme, userinfo, HIDDEN, tuple(parse_qsl(rest.partition("?")[2])), "")
        place, _, fragment = place.partition("#")
        place, _, query = place.partition("?")
        return cls(scheme, userinfo if at else None, place, tuple(parse_qsl(query, keep_blank_values=True)), fragment)

    @property
    def user(self) -> str:
        return (self.userinfo or "").partition(":")[0]

    @property
    def password(self) -> str:
        return (self.userinfo or "").partition(":")[2]


def masked(uri: str) -> str:
    """The uri as it may be shown: without user, password, and values of parameters that may be secrets."""
    if REFERENCE.search(uri) and not holds_secret(uri):
        return uri
    parts = Parts.of(uri)
    shown = f"{parts.scheme}://" if parts.scheme else ""
    shown += (f"{HIDDEN}@" if parts.userinfo is not None else "") + parts.place
    if parts.parameters and parts.place != HIDDEN:
        shown += "?" + "&".join(_shown(name, value) for name, value in parts.parameters)
    return shown + (f"#{HIDDEN}" if parts.fragment else "")


def holds_secret(uri: str) -> bool:
    """Whether a secret is written in a uri, and not the name of a variable that holds it."""
    parts = Parts.of(REFERENCE.sub("$", uri))
    if parts.password.replace("$", ""):
        return True
    user = parts.user.replace("$", "")
    if user and not parts.password and not parts.scheme.startswith(DATABASES):  # a token in the place of a user
        return True
    return bool(parts.fragment) or any(_is_secret(name, value) for name, value in parts.parameters)


def without_secrets(text: str, uris: Iterable[str] = ()) -> str:
    """A text of a library without the secrets of these uris, and with every other uri masked."""
    for secret in sorted({s for uri in uris for s in _secrets(uri)}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return IN_TEXT.sub(lambda match: masked(match[0]), text)


def absolute(uri: str) -> str:
    """A sqlite uri with an absolute path; any other uri as it is.

    Args:
        uri: Of a store.

    Returns:
        The uri.

    Raises:
        UsageError: The path has a question mark, where the path of a uri ends, or a percent sign with two hexadecimal
            digits, which libraries take for another sign.
    """
    file = sqlite_file(uri)
    if file is None:
        return uri
    _, mark, query = uri.partition("?")
    if "?" in str(file.absolute()) or "/" in query or re.search(r"%[0-9A-Fa-f]{2}", str(file.absolute())):
        raise UsageError(
            "the path of the tracking store has a ? or a % with two digits, which mean something else in a uri: "
            "expected a folder without them, name a file elsewhere by tracking.uri, or choose tracking=offline or none"
        )
    return f"sqlite:///{file.absolute()}{mark}{query}"


def encoded(uri: str) -> str:
    """The uri with what is special in its user and password written so that libraries find its host."""
    parts = Parts.of(uri)
    if parts.userinfo is None or parts.place == HIDDEN:
        return uri
    begin = uri.index(parts.userinfo, len(parts.scheme))
    return f"{uri[:begin]}{quote(parts.userinfo, safe=':%')}{uri[begin + len(parts.userinfo) :]}"


def sqlite_file(uri: str) -> Path | None:
    """The file of a sqlite store; None for any other store, and for one in memory."""
    if not uri.startswith("sqlite:///"):
        return None
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    return None if path in ("", ":memory:") else Path(path)


def experiment_in_file(uri: str, name: str) -> str | None:
    """The id of an experiment in a sqlite store, read without MLflow; None where there is none to be read."""
    file = sqlite_file(uri)
    if file is None or not file.exists():
        return None
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as db,
    ):
        for (found,) in db.execute("SELECT experiment_id FROM experiments WHERE name = ?", (name,)):
            return str(found)
    return None


def is_database(uri: str) -> bool:
    """Whether a uri names a database that is no file."""
    return uri.startswith(DATABASES)


def _is_file(scheme: str, rest: str) -> bool:
    return scheme.startswith("sqlite") and rest.startswith("/")


def _is_secret(name: str, value: str) -> bool:
    """Whether a parameter is a secret, or holds parameters of which one is."""
    if SECRET.search(name):
        return bool(value.replace("$", ""))
    return "=" in value and SECRET.search(unquote(value)) is not None


def _shown(name: str, value: str) -> str:
    if not value:  # what has no name may be a secret itself
        return HIDDEN
    return f"{name}={HIDDEN if _is_secret(name, value) else value}"


def _secrets(uri: str) -> Iterable[str]:
    """Every secret of a uri, as it stands there and as libraries write it."""
    parts = Parts.of(uri)
    secrets = [parts.password, parts.fragment, *(value for name, value in parts.parameters if _is_secret(name, value))]
    if not is_database(uri):
        secrets.append(parts.user)
    if parts.place == HIDDEN:
        secrets += [parts.userinfo or "", *re.split(r"[:/?&=@]", uri.partition("://")[2])]
    for secret in secrets:
        yield from (s for s in {secret, unquote(secret), quote(secret), quote_plus(secret)} if len(s) >= SHORTEST)
