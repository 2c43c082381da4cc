"""What may be asked of the jailer: each word checked, in the reference's sentences (operations.md §1.1, §1.2).

Whoever starts the jailer is root and trusted; these checks find mistakes, they do not keep anybody out.
"""

import os
from typing import Final, NamedTuple

from hibana.errors import (
    CanonicalizeError,
    InvalidCgroupVersion,
    InvalidGid,
    InvalidLimitFormat,
    InvalidLimitName,
    InvalidLimitValue,
    InvalidParentCgroup,
    InvalidUid,
    JailIdCharacterError,
    JailIdLengthError,
    NotADirectory,
    NotAFile,
    VmmError,
    os_text,
)
from hibana.serde.rust import NotUnsigned, unsigned

_ID_LENGTH: Final = range(1, 65)
_FSIZE: Final = "fsize"
_NO_FILE: Final = "no-file"


class Limits(NamedTuple):
    """Resource limits of the jailed process; None leaves one as it is."""

    file_size: int | None = None
    open_files: int = 2048


def instance_id(text: str) -> str:
    """Check the identifier: letters, digits and dashes."""
    size = len(os.fsencode(text))
    if size not in _ID_LENGTH:
        raise JailIdLengthError(size=size)
    for at, character in enumerate(text):
        if not (character.isalnum() or character == "-"):
            raise JailIdCharacterError(character=character, at=at)
    return text


def executable(text: str) -> str:
    """Find the file that shall run in the jail; give its real path."""
    path = _canonical(text)
    if not os.path.isfile(path):
        raise NotAFile(path=path)
    return path


def base_folder(text: str) -> str:
    """Find the folder below which the jails are; give its real path."""
    path = _canonical(text)
    if not os.path.isdir(path):
        raise NotADirectory(path=path)
    return path


def user(text: str) -> int:
    """Read a user's number."""
    return _number(text, 32, InvalidUid(text=text))


def group(text: str) -> int:
    """Read a group's number."""
    return _number(text, 32, InvalidGid(text=text))


def cgroup_version(text: str) -> int:
    """Read the version of the cgroup hierarchy; whether there is such a one is seen when it is used."""
    return _number(text, 8, InvalidCgroupVersion(text=text))


def parent_cgroup(path: str) -> str:
    """Check the cgroup below which jails get theirs."""
    if escapes(path):
        raise InvalidParentCgroup
    return path


def escapes(path: str) -> bool:
    """Tell whether a path leads out of the folder that it is meant to be in."""
    parts = path.split("/")
    return path.startswith("/") or parts[0] == "." or ".." in parts


def limits(texts: list[str]) -> Limits:
    """Read `fsize=<bytes>` and `no-file=<number>`; the last one of each counts."""
    wanted = Limits()
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidLimitFormat(text=text)
        try:
            number = unsigned(value, 64)
        except NotUnsigned as error:
            raise InvalidLimitValue(value=value, cause=error) from error
        if name == _FSIZE:
            wanted = wanted._replace(file_size=number)
        elif name == _NO_FILE:
            wanted = wanted._replace(open_files=number)
        else:
            raise InvalidLimitName(name=name)
    return wanted


def _canonical(path: str) -> str:
    try:
        return os.path.realpath(path, strict=True)
    except OSError as error:
        raise CanonicalizeError(path=path, cause=os_text(error)) from error


def _number(text: str, bits: int, problem: VmmError) -> int:
    try:
        return unsigned(text, bits)
    except NotUnsigned:
        raise problem from None
