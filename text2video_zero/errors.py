"""Mistakes of the user and shortages of the machine, kept apart from bugs."""

# What RuntimeErrors say that are a shortage of memory; only CUDA has an exception of its own.
SHORTAGES = ("out of memory", "can't allocate memory", "not enough memory")


class UserError(Exception):
    """Something that the person can put right.

    The message is one sentence for that person: it names the offending value and the remedy. The app
    shows it as it is, the command line prints it and exits with status 2; neither shows a traceback.
    Every other exception is a bug.
    """

    def __init__(self, message: str) -> None:
        # Half a character of UTF-16, which a name or a broken client may hold, fits into no answer of a server.
        super().__init__(message.encode(errors="replace").decode())


class FieldError(UserError):
    """A value that a field of a request refuses. The sentence calls fields by their labels, as a form does."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether this is a device, or the machine, that has no more memory to give."""
    import torch  # late: this module is everybody's, and torch takes seconds

    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in SHORTAGES)
    )
