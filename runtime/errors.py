"""Every error edgezoo raises on purpose.

    EdgeZooError
    ├── UserError                        what was asked for cannot be: exit code 2
    │   ├── ArtifactNotFound             (FileNotFoundError)
    │   ├── InvalidArtifact              (ValueError)  not ONNX, or metadata that cannot be trusted
    │   │   └── UnsupportedSchema        metadata written by another version of edgezoo
    │   ├── InvalidImage                 (ValueError)  cannot be decoded, or no defined meaning
    │   │   └── ImageTooLarge
    │   ├── InvalidInput                 (ValueError)  array, option, label or data file of the wrong form
    │   ├── UnknownName                  (LookupError) model, source or label nobody knows
    │   ├── WeightsUnavailable           (OSError)     file missing, hub out of reach
    │   ├── InvalidWeights               (ValueError)  keys or shapes that do not fit, or an unsafe file
    │   ├── DeviceUnavailable            (RuntimeError) asked for, not there; never replaced by another
    │   ├── MissingDependency            (ImportError) an extra is not installed, or two wheels clash
    │   ├── OutputNotWritable            (OSError)     read-only folder, full disk
    │   ├── QuantizationRefused          (ValueError)  int8 would lose too much, or win nothing
    │   └── NoGradient                   (ValueError)  nothing that leads to the answer has a slope
    └── InternalError                    what should have worked did not: exit code 1
        ├── ExportFailed                 (RuntimeError) the framework's exporter gave up
        ├── ParityError                  (RuntimeError) the ONNX file disagrees with its source
        ├── InferenceFailed              (RuntimeError) the engine stopped in the middle of a run
        └── UnsupportedOperator          (NotImplementedError) no rule differentiates it yet

Each is also the builtin a caller would catch. Messages are one line: what, where, what to do.
"""

from __future__ import annotations

from typing import ClassVar


class EdgeZooError(Exception):
    """Base of every error raised on purpose; ``exit_code`` is what the command line returns."""

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        # OSError and KeyError print tuples and quotes; a message is a message.
        return " ".join(str(part) for part in self.args)


class UserError(EdgeZooError):
    """The request cannot be met as given; the message says what to change."""

    exit_code = 2


class InternalError(EdgeZooError):
    """A limit or a fault of edgezoo or of a tool beneath it."""

    exit_code = 1


class ArtifactNotFound(UserError, FileNotFoundError):
    """No model file at that path."""


class InvalidArtifact(UserError, ValueError):
    """The file is not a usable ONNX model, or its metadata is damaged."""


class UnsupportedSchema(InvalidArtifact):
    """The file's metadata follows a schema this version does not read."""


class InvalidImage(UserError, ValueError):
    """The image cannot be decoded, or its pixels have no defined meaning."""


class ImageTooLarge(InvalidImage):
    """The image has more pixels than edgezoo agrees to decode."""


class InvalidInput(UserError, ValueError):
    """An array, an option, a label file or a data set has the wrong form."""


class UnknownName(UserError, LookupError):
    """A model, source or label that is in no table."""


class WeightsUnavailable(UserError, OSError):
    """The weights are not there, or the hub cannot be reached."""


class InvalidWeights(UserError, ValueError):
    """The weights do not fit the network, or reading them would run code."""


class DeviceUnavailable(UserError, RuntimeError):
    """The device that was asked for cannot be used on this machine."""


class MissingDependency(UserError, ImportError):
    """A package that this step needs is not installed, or is installed twice."""


class OutputNotWritable(UserError, OSError):
    """The output cannot be written where it was asked for."""


class QuantizationRefused(UserError, ValueError):
    """The int8 file would not be as good as was asked for, or not faster: none was written."""


class NoGradient(UserError, ValueError):
    """Nothing differentiable leads from a tensor to the output: its gradient would be zero without a word."""


class ExportFailed(InternalError, RuntimeError):
    """The framework's exporter, or a pass over its graph, failed."""


class ParityError(InternalError, RuntimeError):
    """The ONNX graph does not compute what its source computes; no file was written."""


class InferenceFailed(InternalError, RuntimeError):
    """The engine failed while running a valid input."""


class UnsupportedOperator(InternalError, NotImplementedError):
    """An operator, or a form of one, that no gradient rule knows yet."""
