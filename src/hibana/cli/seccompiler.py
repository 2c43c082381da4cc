"""The `seccompiler-bin` program: policies in JSON become filters for `--seccomp-filter` (operations.md §4.4)."""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Final

from hibana import FIRECRACKER_VERSION
from hibana.cli import exits
from hibana.errors import (
    FilterCreateError,
    JsonError,
    PolicyJsonError,
    PolicyOpenError,
    PolicyReadError,
    UnknownArchitecture,
    VmmError,
    os_text,
)
from hibana.seccomp import container
from hibana.seccomp.compiler import ARCHITECTURES, compile_policy
from hibana.seccomp.policy import Filter, parse
from hibana.whole_file import open_for_reading, read_to_the_end

_STDERR: Final = 2


def main(argv: Sequence[str]) -> None:
    """Compile what the command line names. Raises VmmError."""
    options = _options(argv)
    architecture = ARCHITECTURES.get(options.target_arch.lower())
    policy = _policy(options.input_file)
    if architecture is None:
        raise UnknownArchitecture(name=options.target_arch)
    programs = compile_policy(policy, architecture, basic=options.basic)
    if options.split_output:
        folder = os.path.dirname(options.output_file)
        for category, program in programs.items():
            _write(os.path.join(folder, f"{category}.bpf"), program.code)
    else:
        _write(options.output_file, container.write(programs))


def entry() -> None:
    """Run the program and end the process."""
    try:
        main(sys.argv[1:])
    except VmmError as error:
        exits.say(_STDERR, f"Error: {error}")
        sys.exit(error.exit_code)


def _options(argv: Sequence[str]) -> Namespace:
    parser = ArgumentParser("seccompiler-bin", description="Compile seccomp filters from JSON.", allow_abbrev=False)
    parser.add_argument("-V", "--version", action="version", version=f"seccompiler-bin {FIRECRACKER_VERSION}")
    parser.add_argument("-i", "--input-file", required=True, help="the policy, in JSON")
    parser.add_argument("-t", "--target-arch", required=True, help=f"one of {', '.join(ARCHITECTURES)}")
    parser.add_argument("-o", "--output-file", default="seccomp_binary_filter.out", help="the filters [%(default)s]")
    parser.add_argument("-b", "--basic", action="store_true", help="ignore all arguments of system calls (deprecated)")
    parser.add_argument(
        "--split-output",
        action="store_true",
        help="write the instructions alone, one file a category, into the folder of the output file",
    )
    return parser.parse_args(argv)


def _policy(path: str) -> dict[str, Filter]:
    try:
        fd = open_for_reading(path)
    except OSError as error:
        raise PolicyOpenError(cause=os_text(error)) from error
    try:
        return parse(read_to_the_end(fd))
    except OSError as error:
        raise PolicyReadError(cause=os_text(error)) from error
    except JsonError as error:
        raise PolicyJsonError(cause=error) from error
    finally:
        os.close(fd)


def _write(path: str, content: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(content)
    except OSError as error:
        raise FilterCreateError(cause=os_text(error)) from error
