"""What is the user's to mend: each kind of error is told in one line."""


class InputError(ValueError):
    """A file, a setting or a data set is not as it should be.

    The message says what was found, what was expected and what to do. The command line prints it as one line and exits
    with status 2; from Python it is an ordinary ``ValueError``. Its kinds are the classes below.
    """


class MissingError(InputError):
    """A file, a folder, an entry of a list or a package is needed and is not there."""


class DamagedError(InputError):
    """A file cannot be read, or does not hold what a file of its kind holds."""


class MismatchError(InputError):
    """Two things that belong together do not fit, such as the sizes of a mask and its photograph, or have changed."""


class SettingError(InputError):
    """A word of the command line or a setting is unknown, or outside of what is possible."""


class OccupiedError(InputError):
    """Something stands where the output would go, and it is not certain that it may be replaced."""


class UnreachableError(InputError):
    """The network, a hub, a GPU or another process does not answer."""


class SpaceError(InputError):
    """The disk, the memory or the GPU's memory is too small."""
