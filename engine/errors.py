"""The user's mistakes: what was found, what to do. The command prints the sentence and exits."""


class XmrError(Exception):
    """Something the user can mend, said in one sentence. The command exits 1."""


class UsageError(XmrError):
    """A command line that asks for nothing that exists. The command exits 2."""


class UnreadableError(XmrError):
    """An index that cannot be asked as it lies on the disk, whatever is asked of it. The command exits 1."""
