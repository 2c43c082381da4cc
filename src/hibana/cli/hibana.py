"""The `hibana` program, for people: `hibana doctor` says what this machine can do, and what would make it better."""

import sys
from collections.abc import Sequence
from typing import Final

from hibana import __version__
from hibana.cli import args, exits
from hibana.cli.args import HELP, Argument
from hibana.doctor import production
from hibana.doctor.checks import examine
from hibana.doctor.finding import ERROR, Finding, Host
from hibana.errors import UnknownCommand, VmmError

_STDOUT: Final = 1
_STDERR: Final = 2

_DOCTOR_FLAGS: Final = (HELP, Argument("json", "Print the findings as JSON, for programs."))
_USAGE: Final = """hibana COMMAND [OPTIONS]

commands:
  doctor   Say what this machine can do for microVMs, and what would make it better."""


def main(argv: Sequence[str]) -> int:
    """Run a command; give the exit code. Raises UnknownCommand, or what is wrong with the command's options."""
    command, *words = argv or ["--help"]
    if command in ("--help", "-h", "help"):
        exits.say(_STDOUT, _USAGE)
    elif command == "--version":
        exits.say(_STDOUT, f"Hibana {__version__}")
    elif command == "doctor":
        return doctor(words)
    else:
        raise UnknownCommand(name=command)
    return exits.OK


def doctor(words: Sequence[str]) -> int:
    """Examine this machine; fail if something cannot work."""
    typed = args.parse(_DOCTOR_FLAGS, words)
    if typed.given("help"):
        exits.say(_STDOUT, f"hibana doctor\n\n{args.help_text(_DOCTOR_FLAGS)}")
        return exits.OK
    findings = examine(Host())
    exits.say(_STDOUT, as_json(findings) if typed.given("json") else as_text(findings))
    return exits.GENERIC_ERROR if any(finding.level == ERROR for finding in findings) else exits.OK


def as_text(findings: Sequence[Finding]) -> str:
    """Write a line for each finding, and what nobody can find out."""
    width = max(len(finding.check) for finding in findings)
    lines = [
        f"{finding.level:>5}  {finding.check:{width}}  {finding.text}{f'  →  {finding.fix}' if finding.fix else ''}"
        for finding in findings
    ]
    return "\n".join([*lines, "", "What no program can see:", *(f"  - {advice}" for advice in production.ADVICE)])


def as_json(findings: Sequence[Finding]) -> str:
    """Write the findings for programs: a list of objects with `check`, `level`, `text` and `fix`."""
    import msgspec.json

    return msgspec.json.encode([finding._asdict() for finding in findings]).decode()


def entry() -> None:
    """Run the program and end the process."""
    try:
        code = main(sys.argv[1:])
    except VmmError as error:
        exits.say(_STDERR, f"Error: {error}")
        code = error.exit_code
    exits.at_once(code)
