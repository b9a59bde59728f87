"""``python -m trtfarm``."""

from trtfarm.cli.main import main

if __name__ == "__main__":
    main()
