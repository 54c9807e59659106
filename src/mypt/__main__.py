"""python -m mypt: the same commands, also for launchers such as torchrun."""

from mypt.cli.app import main

if __name__ == "__main__":
    main()
