"""``python -m covalent_cirro.emulator``: the emulated AWS as a process. Its code is `covalent_cirro.local.emulator`."""

import sys

from covalent_cirro.local.emulator.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
