"""Text from anywhere (names, what programs say), made safe to show."""


def harmless(text: str) -> str:
    """Return *text* with what a terminal would obey instead of show, but line ends, written as escapes."""
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)
