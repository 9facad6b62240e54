"""`python -m cnnjax` is `cnnjax`."""

from cnnjax.cli import entry_point

if __name__ == "__main__":
    entry_point()
