"""The exceptions of the exact stack; every other error is a plain `TypeError` or `ValueError`."""


class StackOverflowError(IndexError):
    """A push onto a full stack."""


class StackUnderflowError(IndexError):
    """A pop from an empty stack."""
