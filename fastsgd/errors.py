"""The three public errors: a field is illegal, fields disagree, a named backend cannot run here; and one warning."""


class FastsgdError(Exception):
    """Root of the library's errors, for callers who catch all of them."""


class SpecError(FastsgdError, ValueError):
    """One field is illegal by itself. Raised when a record is made."""


class PlanError(FastsgdError, ValueError):
    """Fields disagree with each other, or no backend can do what they ask. Raised before anything runs."""


class BackendUnavailable(FastsgdError, RuntimeError):
    """A backend that was asked for by name cannot run on this machine. The message says what is missing."""


class SlowBackendWarning(UserWarning):
    """`backend="auto"` found no kernel for a run and takes the reference backend, some thousand times slower."""


class UnknownField(SpecError):
    """A name that a record or a table does not have; `key` is it."""

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key
