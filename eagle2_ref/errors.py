"""The error for everything that a user can correct."""


class BadInput(ValueError):
    """Wrong input from outside: a checkpoint, an option, a prompt, the name of an implementation.

    The command line prints the message and the hint, and exits with 2.

    Args:
        what: what is wrong, and where.
        hint: what to do about it.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what, self.hint = what, hint

    def __str__(self) -> str:
        return self.what + "".join(f"\n  {line}" for line in self.hint.splitlines())
