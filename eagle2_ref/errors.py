"""One error for everything a user can mend: what is wrong and where, and what to do about it."""


class BadInput(ValueError):
    """Wrong input from outside: a checkpoint, an option, a prompt, an implementation's name.

    The first line says what is wrong and where; `hint` says what to do. The command line prints both and exits with 2.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what, self.hint = what, hint

    def __str__(self) -> str:
        return self.what + "".join(f"\n  {line}" for line in self.hint.splitlines())
