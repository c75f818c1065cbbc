"""What others wrote, as a part of one of our sentences: exceptions of libraries, names in files."""


def brief(error: BaseException) -> str:
    r"""Its first line, without a full stop, or its name; what the system says about a file without the path.

    >>> brief(ValueError("Bad split. Give another one.\nSee the manual."))
    'Bad split; Give another one'
    >>> brief(FileNotFoundError(2, "No such file or directory", "/a/b"))
    'no such file or directory'
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    line = next(iter(str(error).strip().splitlines()), "")[:300].strip().rstrip(".") or type(error).__name__
    return line.replace(". ", "; ")


def shown(name: str | bytes) -> str:
    r"""A name from a file as it can be shown on one line; it is only ever shown, never used as a path.

    >>> print(shown(b"caf\xe9\n.png"))
    caf\xe9?.png
    """
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
    return "".join(letter if letter.isprintable() else "?" for letter in text)
