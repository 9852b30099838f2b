"""The one exception that is the user's to mend, told in one line."""


class InputError(ValueError):
    """A file, a setting or a data set is not as it should be.

    The message says what was found, what was expected and what to do. The command line prints it as one line and exits
    with status 2; from Python it is an ordinary ``ValueError``.
    """
