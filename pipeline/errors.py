"""The errors that users see. Each message says what is wrong, where, and what to do about it."""


class PipelineError(Exception):
    """Base of every error that this project raises on purpose; commands print it without a traceback."""


class InputError(PipelineError, ValueError):
    """A recipe, constitution, prompt file or model that cannot be used as it is."""


class RunError(PipelineError, RuntimeError):
    """A run directory that cannot be continued: a different recipe, another writer, damaged or missing files."""


class EngineError(PipelineError, RuntimeError):
    """A model that could not be loaded or could not answer."""


class LogProbabilityError(EngineError):
    """A model that answers but does not report how likely a given text is."""


class PreflightError(PipelineError, ValueError):
    """Training that would silently learn the wrong thing, or that left no usable adapter."""
