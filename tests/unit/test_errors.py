"""Every sentence a user can see, against the reference's catalogue.

The sentence lives in the class, once. Here it is looked for in the specification: each part of it between two facts
must stand there word for word. What is ours alone is listed, with the reason.
"""

import os
import re
from collections.abc import Iterator
from string import Formatter

import pytest

from hibana import errors
from hibana.errors import ActionError, RequestError, VmmError, os_debug, os_text

SPECIFICATION = os.path.join(os.path.dirname(__file__), "..", "..", "..", "shared", "spec")

OURS = {
    "UnknownEngine": "the reference has one engine and no choice",
    "CpuIsFixed": "likewise",
    "UnknownCommand": "the reference has no friendly program",
    "KernelLoadError": "the loader inside the reference has more words than the catalogue",
    "UnknownCpuVendor": "the catalogue has only its first words",
    "CpuValueMismatch": "the catalogue has its lines one by one",
    "VmResourcesError": "the catalogue does not have what cpu-template-helper says about microVMs that cannot be made",
    "BuildMicrovmError": "likewise",
    "ToolFileError": "nor about files",
    "ToolJsonError": "likewise",
}
"""Sentences that the reference has no counterpart of; so have those whose docstring says when they will be deleted."""


def subclasses(root: type[VmmError]) -> Iterator[type[VmmError]]:
    for each in root.__subclasses__():
        if each.__module__ == errors.__name__:
            yield each
            yield from subclasses(each)


ERRORS = list(subclasses(VmmError))


@pytest.fixture(scope="module")
def catalogue() -> str:
    if not os.path.isdir(SPECIFICATION):
        pytest.skip("the specification is not beside this checkout (../shared/spec)")
    texts = []
    for name in ("api.md", "machine.md", "operations.md", "devices.md"):
        with open(os.path.join(SPECIFICATION, name), encoding="utf-8") as file:
            texts.append(file.read())
    return re.sub(r"\s+", " ", " ".join(texts)).replace("``", "`")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_a_sentence_is_the_references(error: type[VmmError], catalogue: str) -> None:
    if error.__name__ in OURS or "deleted when" in (error.__doc__ or "").lower() or error.text == VmmError.text:
        return
    for literal, *_ in Formatter().parse(error.text):
        for part in re.split("[`\n]", literal.strip()):  # the catalogue sets names in backticks too, and lines apart
            words = re.sub(r"\s+", " ", part).strip()
            assert words in catalogue, f"{words!r} of {error.__name__} is in no catalogue"


def test_what_is_said_to_be_ours_exists() -> None:
    assert OURS.keys() <= {error.__name__ for error in ERRORS}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_an_error_has_a_status_and_an_exit_code_that_exist(error: type[VmmError]) -> None:
    assert error.status in (400, 413)
    assert error.exit_code in {1, 134, 152, 153}


def test_wrappers_and_refusals_are_different_things() -> None:
    assert not set(subclasses(ActionError)) & set(subclasses(RequestError))
    for error in subclasses(RequestError):
        assert error.status == 400


def test_errors_nest_by_their_sentences() -> None:
    cause = errors.KernelFileError(cause=os_text(FileNotFoundError(2, "whatever")))
    assert str(errors.BootSourceError(cause=cause)) == (
        "Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)"
    )


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (1, "Operation not permitted"),
        (2, "No such file or directory"),
        (4, "Interrupted system call"),
        (5, "I/O error"),
        (6, "No such device or address"),
        (9, "Bad file descriptor"),
        (11, "Resource temporarily unavailable"),
        (12, "Out of memory"),
        (13, "Permission denied"),
        (14, "Bad address"),
        (16, "Resource busy"),
        (17, "File exists"),
        (19, "No such device"),
        (20, "Not a directory"),
        (21, "Is a directory"),
        (22, "Invalid argument"),
        (24, "No file descriptors available"),
        (25, "Not a tty"),
        (27, "File too large"),
        (18, "Cross-device link"),
        (28, "No space left on device"),
        (29, "Invalid seek"),
        (30, "Read-only file system"),
        (32, "Broken pipe"),
        (34, "Result not representable"),
        (35, "Resource deadlock would occur"),
        (36, "Filename too long"),
        (38, "Function not implemented"),
        (40, "Symbolic link loop"),
        (75, "Value too large for data type"),
        (88, "Not a socket"),
        (95, "Not supported"),
        (98, "Address in use"),
        (99, "Address not available"),
        (104, "Connection reset by peer"),
        (107, "Socket not connected"),
        (110, "Operation timed out"),
        (111, "Connection refused"),
        (122, "Quota exceeded"),
    ],
)
def test_the_systems_errors_have_musls_words(number: int, sentence: str) -> None:
    assert os_text(OSError(number, "whatever the host says")) == f"{sentence} (os error {number})"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (2, "NotFound"),
        (13, "PermissionDenied"),
        (20, "NotADirectory"),
        (21, "IsADirectory"),
        (36, "InvalidFilename"),
        (40, "FilesystemLoop"),
        (5, "Uncategorized"),
    ],
)
def test_the_systems_errors_have_rusts_kinds(number: int, kind: str) -> None:
    """In the debug form, which panics show."""
    assert os_debug(OSError(number, "")).startswith(f"Os {{ code: {number}, kind: {kind}, message: ")
