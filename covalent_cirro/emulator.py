"""``python -m covalent_cirro.emulator``: the emulated AWS as a process. Its code is `covalent_cirro.local.emulator`."""

import sys

from covalent_cirro.errors import EmulatorError

if __name__ == "__main__":
    try:
        from covalent_cirro.local.emulator.command_line import main
    except EmulatorError as error:  # moto has another version
        sys.exit(str(error))
    sys.exit(main())
