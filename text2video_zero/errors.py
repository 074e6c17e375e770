"""Mistakes of the user, kept apart from bugs."""


class UserError(Exception):
    """Something that the person can put right.

    The message is one sentence for that person: it names the offending value and the remedy. The app
    shows it as it is, the command line prints it and exits with status 2; neither shows a traceback.
    Every other exception is a bug.
    """

    def __init__(self, message: str) -> None:
        # Half a character of UTF-16, which a name or a broken client may hold, fits into no answer of a server.
        super().__init__(message.encode(errors="replace").decode())
