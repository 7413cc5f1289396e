"""``zoo COMMAND``: parse, dispatch, and turn errors into one line and an exit code. No logic.

Exit codes: 0 done, 1 our fault or a failed check, 2 the user's mistake, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from keyword import iskeyword

from runtime.errors import EdgeZooError

# command -> one line of help. `module_of` names the module that holds add_arguments and run.
COMMANDS = {
    "list": "list the networks of the zoo",
    "show": "show one network of the zoo, or what an .onnx file says of itself",
    "export": "export a trained network to a verified ONNX file",
    "import": "check an ONNX file from elsewhere, and write it with metadata, verified against itself",
    "quantize": "make an int8 file that is measured to be as accurate and faster, or none",
    "tune": "find the fastest engine and setting for an .onnx file on this machine, and remember it",
    "predict": "classify pictures with an ONNX file",
    "explain": "show where in a picture an ONNX file finds its answer",
    "stamp": "put an explanation into an ONNX file, as an optional output",
    "layers": "list the layers of an ONNX file that can be explained",
    "eval": "measure top-1, top-5 and speed of an ONNX file on labelled pictures",
    "bench": "measure size, accuracy, speed and memory of networks on this machine, as a table",
    "profile": "show where the time of an ONNX file goes, operator by operator",
    "doctor": "check this machine: versions, devices, cores, clashing packages",
}


def module_of(command: str) -> str:
    """The module of a command: named as the command is, with an underscore behind a word that Python keeps."""
    return f"zoo.commands.{command}{'_' if iskeyword(command) else ''}"


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, as one parser."""
    parser = argparse.ArgumentParser(prog="zoo", description="ONNX model zoo and edge inference for vision networks.")
    parser.add_argument("--version", action="version", version=f"edgezoo {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, line in COMMANDS.items():
        command = commands.add_parser(name, help=line, description=f"{line[0].upper()}{line[1:]}.")
        command.add_argument(
            "-v", "--verbose", action="store_true", help="show framework logs, and tracebacks of errors"
        )
        module = import_module(module_of(name))
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = build_parser().parse_args(argv)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:  # the reader, `head` say, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the one place where errors become exit codes
        if args.verbose:
            import traceback

            traceback.print_exc()
        if any(isinstance(cause, KeyboardInterrupt) for cause in _causes(error)):
            return _interrupted()
        if isinstance(error, EdgeZooError):
            return _fail(f"error: {error}", error.exit_code)
        if isinstance(error, OSError) and error.filename:
            return _fail(f"error: {error.filename}: {error.strerror}", 2)
        if isinstance(error, MemoryError):
            return _fail("error: not enough memory: use a smaller batch or input", 2)
        return _fail(f"internal error: {type(error).__name__}: {error} (-v shows where)", 1)


def _interrupted() -> int:
    return _fail("interrupted; nothing half-written was kept", 130)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it: an import that Ctrl-C breaks off in compiled code is an ImportError."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _fail(message: str, code: int) -> int:
    # One line, whatever a library put into its message.
    print(f"zoo: {' '.join(message.split())}", file=sys.stderr)
    return code


def _version() -> str:
    from importlib.metadata import version

    return version("edgezoo")
