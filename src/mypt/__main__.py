"""The program: `mypt`, and `python -m mypt` for launchers such as torchrun."""

import signal
import sys


def main() -> None:
    """Run the command line. Ctrl-C before it is loaded, or after its work is over, ends it without a word."""
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:  # a caller may have switched it off
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mypt.cli.app import main as run

    try:
        if is_heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    finally:
        if is_heard:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
