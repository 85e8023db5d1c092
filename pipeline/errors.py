"""The errors that users see. Each message says what is wrong, where, and what to do about it."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, at most 200 characters; its kind where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


class PipelineError(Exception):
    """Base class of every error that this project raises on purpose; commands print it without a traceback."""


class InputError(PipelineError, ValueError):
    """A recipe, constitution, prompt file or model that cannot be used as it is."""


class RunError(PipelineError, RuntimeError):
    """A run directory that cannot be continued: a different recipe, another writer, damaged or missing files."""


class EngineError(PipelineError, RuntimeError):
    """A model that could not be loaded or could not answer."""


class LogProbabilityError(EngineError):
    """A model that generates text but does not report log-probabilities."""


class PreflightError(PipelineError, ValueError):
    """Training that would silently learn the wrong thing, or that left no usable adapter."""
