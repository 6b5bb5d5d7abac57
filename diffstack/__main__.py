"""The command `diffstack`, which is `python -m diffstack` too."""

import signal
import sys
from importlib.util import find_spec


def main() -> int:
    """Run the command line.

    Returns:
        The exit status: 0, 1 where a comparison failed, 2 for bad input, 130 after Ctrl-C.
    """
    for module in ("typer", "rich", "matplotlib"):
        if find_spec(module) is None:
            print(
                f"diffstack: {module} is not installed; install it with: pip install 'diffstack[cli]'", file=sys.stderr
            )
            return 2
    try:
        from diffstack import cli  # noqa: PLC0415  # needs what was looked for above

        signal.signal(signal.SIGINT, cli.stop)
        return cli.run(sys.argv[1:])
    except KeyboardInterrupt:
        print("diffstack: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
