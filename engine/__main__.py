"""The `engine` command, also as `python -m engine`; Ctrl-C ends it in one line while it is still being loaded, too."""

import sys


def main() -> int:
    """Run the command of this process; returns its exit status."""
    try:
        from engine.cli import main as command
    except KeyboardInterrupt:
        sys.stderr.write("engine: error: interrupted\n")
        return 130
    return command()


if __name__ == "__main__":
    sys.exit(main())
