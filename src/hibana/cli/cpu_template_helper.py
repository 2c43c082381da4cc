"""The `cpu-template-helper` program: makes, checks and compares CPU templates (operations.md §4.3).

`template dump` shows what guests see on this host. Dumps of two hosts, stripped of what they have in common, are the
raw material of a template that makes the two alike; `template verify` tells whether a template has the effect that it
should have. `fingerprint` tells when all that has to be done again, because the host has changed.
"""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from hibana import FIRECRACKER_VERSION
from hibana.cli import exits
from hibana.config import file
from hibana.config.cpu import CustomCpuTemplate
from hibana.config.host_file import read_host_file
from hibana.config.resources import Resources
from hibana.cpu_templates import compare, fingerprint
from hibana.cpu_templates.fingerprint import Fingerprint
from hibana.cpu_templates.render import json_form, pretty
from hibana.errors import (
    BuildMicrovmError,
    FingerprintsDiffer,
    HostFileError,
    JsonError,
    ToolFileError,
    ToolJsonError,
    VmmError,
    VmResourcesError,
    os_text,
)
from hibana.host.disk_uring import try_ring
from hibana.host.tap import open_tap
from hibana.observe import log
from hibana.serde.records import decode
from hibana.vmm import cpu_model
from hibana.vmm.cpu_dump import dump

T = TypeVar("T")

_STDERR: Final = 2


def main(argv: Sequence[str]) -> None:
    """Do what the command line says. Raises VmmError; argparse ends the program if that cannot be understood."""
    options = _parser().parse_args(argv)
    run: Callable[[Namespace], None] = options.run
    run(options)


def entry() -> None:
    """Run the program and end the process."""
    log.configure(level=log.OFF)
    try:
        main(sys.argv[1:])
    except VmmError as error:
        exits.say(_STDERR, str(error))
        sys.exit(error.exit_code)


# --- commands ---------------------------------------------------------------------------------------------------------


def _template_dump(options: Namespace) -> None:
    _write(options.output, json_form(_dump(_resources(options))))


def _template_strip(options: Namespace) -> None:
    templates = [_read(path, CustomCpuTemplate) for path in options.paths]
    for path, stripped in zip(options.paths, compare.strip(templates), strict=True):
        stem, extension = os.path.splitext(path)
        _write(f"{stem}{options.suffix}{extension}", json_form(stripped))


def _template_verify(options: Namespace) -> None:
    resources = _resources(options)
    found = _dump(resources)
    if resources.chosen_cpu_template is not None:
        compare.verify(cpu_model.content(resources.chosen_cpu_template), found)


def _fingerprint_dump(options: Namespace) -> None:
    _write(options.output, fingerprint.file_form(fingerprint.take(_dump(_resources(options)))))


def _fingerprint_compare(options: Namespace) -> None:
    prev, curr = _read(options.prev, Fingerprint), _read(options.curr, Fingerprint)
    if differences := fingerprint.differences(prev, curr, options.filters):
        raise FingerprintsDiffer(differences="\n".join(differences))


# --- the microVM in question ------------------------------------------------------------------------------------------


class _Nowhere:
    """What a configuration file says about log, metrics and metadata: nothing of it is needed here."""

    def put_logger(self, config: object, /) -> None: ...

    def put_metrics(self, config: object, /) -> None: ...

    def put_mmds(self, value: object, /) -> None: ...


def _resources(options: Namespace) -> Resources:
    """Read what the microVM shall be: the file of `--config`, and instead of its template that of `--template`."""
    resources = Resources(open_tap, try_ring)
    if options.config is not None:
        text = _bytes(options.config)
        try:
            file.apply(file.read_config(text), resources, _Nowhere())
        except VmmError as error:
            raise VmResourcesError(cause=error) from error
    if options.template is not None:
        resources.put_cpu_template(_read(options.template, CustomCpuTemplate))
    return resources


def _dump(resources: Resources) -> CustomCpuTemplate:
    try:
        return dump(resources.machine, resources.chosen_cpu_template)
    except VmmError as error:
        raise BuildMicrovmError(cause=error) from error


# --- files ------------------------------------------------------------------------------------------------------------


def _bytes(path: str) -> bytes:
    try:
        return read_host_file(path)
    except HostFileError as error:
        raise ToolFileError(path=path, cause=error) from error


def _read(path: str, kind: type[T]) -> T:
    try:
        return decode(_bytes(path), kind)
    except JsonError as error:
        raise ToolJsonError(path=path, cause=error) from error


def _write(path: str, content: dict[str, Any]) -> None:
    try:
        with open(path, "wb") as target:
            target.write(pretty(content))
    except OSError as error:
        raise ToolFileError(path=path, cause=os_text(error)) from error


# --- the command line -------------------------------------------------------------------------------------------------


def _parser() -> ArgumentParser:
    parser = ArgumentParser("cpu-template-helper", description="Make, check and compare CPU templates.")
    parser.add_argument("-V", "--version", action="version", version=f"cpu-template-helper v{FIRECRACKER_VERSION}")
    groups = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_template(groups.add_parser("template", help="templates, and what they do"))
    _add_fingerprint(groups.add_parser("fingerprint", help="what a host's guests see, and why"))
    return parser


def _add_template(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("dump", help="write down the CPU of a guest")
    _add_microvm(command)
    command.add_argument("-o", "--output", default="cpu_config.json", help="where to [%(default)s]")
    command.set_defaults(run=_template_dump)
    command = commands.add_parser("strip", help="leave of templates only what distinguishes them")
    command.add_argument("-p", "--paths", nargs="+", default=[], help="two or more templates")
    command.add_argument("-s", "--suffix", default="_stripped", help="of the names of the results [%(default)s]")
    command.set_defaults(run=_template_strip)
    command = commands.add_parser("verify", help="check that a template has its effect")
    _add_microvm(command)
    command.set_defaults(run=_template_verify)


def _add_fingerprint(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("dump", help="take the fingerprint of this host")
    _add_microvm(command)
    command.add_argument("-o", "--output", default="fingerprint.json", help="where to [%(default)s]")
    command.set_defaults(run=_fingerprint_dump)
    command = commands.add_parser("compare", help="find out what has changed")
    command.add_argument("-p", "--prev", required=True, help="the fingerprint before")
    command.add_argument("-c", "--curr", required=True, help="the fingerprint now")
    command.add_argument(
        "-f", "--filters", nargs="+", choices=fingerprint.FIELDS, default=fingerprint.FIELDS, metavar="FIELD",
        help=f"what to look at: {', '.join(fingerprint.FIELDS)} [all]",
    )  # fmt: skip
    command.set_defaults(run=_fingerprint_compare)


def _add_microvm(parser: ArgumentParser) -> None:
    parser.add_argument("-c", "--config", help="the configuration file of the microVM")
    parser.add_argument("-t", "--template", help="a CPU template, instead of the one in the configuration")
