"""`python -m minidiff` is the `minidiff` command."""

from minidiff.cli import main

if __name__ == "__main__":
    main()
